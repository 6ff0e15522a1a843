/**
 * The interface of a model for methods, training and commands, and the description of a model that
 * is not built yet.
 *
 * @module
 */

import type { Tensor } from "../tensor/tensor.ts";
import type { PreprocessConfig } from "./config.ts";
import type { Pass } from "./layers.ts";
import type { Prompts } from "./text.ts";
import type { Tower } from "./tower.ts";
import type { Precision, Weights } from "./weights.ts";

/** An image tower: turns normalized pixels `[B, 3, R, R]` into features. */
export interface ImageTower extends Tower<Tensor> {
  /** Height and width of the images, R. */
  readonly imageSize: number;
  /** Number of tokens of an image in the blocks. */
  readonly tokens: number;
}

/** A text tower: turns prompts into features. */
export interface PromptTower extends Tower<Prompts> {
  /** The largest number of tokens in a prompt. */
  readonly context: number;
  /** Number of tokens in the vocabulary. */
  readonly vocabulary: number;
  /**
   * Uploads `rows` prompts to the GPU. `ids` holds their token ids row by row, as the tokenizer
   * returns them.
   *
   * @throws {RangeError} If the rows are longer than the context, or an id is not in the
   * vocabulary.
   */
  prompts(ids: Int32Array<ArrayBuffer>, rows: number): Prompts;
}

/** A model: an image tower, in most models a text tower, and the rule for their logits. */
export interface Model {
  /** The image tower. */
  readonly vision: ImageTower;
  /** The text tower, or null if the model takes only images. */
  readonly text: PromptTower | null;
  /** The sizes of the model, from which another like it can be built. */
  readonly definition: ModelDefinition;
  /** The frozen weights. */
  readonly weights: Weights;
  /** How the matrices among the weights are stored. */
  readonly precision: Precision;
  /** Width of the features, E. */
  readonly embedding: number;
  /** Image features, not L2-normalized, from normalized pixels: `[B, 3, R, R] → [B, E]`. */
  imageFeatures(pixels: Tensor, pass?: Pass): Tensor;
  /** Text features of prompts, not L2-normalized: `[K, E]`. */
  textFeatures(prompts: Prompts, pass?: Pass): Tensor;
  /**
   * Scores of image features `[B, E]` and text features `[K, E]`: `[B, K]`. If `scale` is not
   * given, the model's scale applies.
   */
  logits(images: Tensor, texts: Tensor, scale?: number): Tensor;
  /** Releases the weights. */
  release(): void;
}

/** A model without its weights. */
export interface ModelDefinition {
  /** The sizes of the model, as a value that JSON can represent. */
  readonly config: unknown;
  /** Height and width of its images. */
  readonly imageSize: number;
  /** The largest number of tokens in a prompt, or null if the model takes only images. */
  readonly context: number | null;
  /** Builds the model on its weights, which the model then releases. */
  build(weights: Weights): Model;
}

/** A family of models, as files in Hugging Face's layout describe them. */
export interface ModelFamily {
  /** The `model_type` of their `config.json`. */
  readonly modelType: string;
  /**
   * Describes the model of a parsed `config.json`.
   *
   * @throws {RangeError} If the model is not of this family, or is impossible.
   */
  define(config: unknown): ModelDefinition;
  /**
   * Reads from a parsed `preprocessor_config.json` how images are prepared. `file` is the name that
   * errors give it.
   *
   * @throws {RangeError} If the file asks for what is not supported.
   */
  preprocess(json: unknown, imageSize: number, file?: string): PreprocessConfig;
}
