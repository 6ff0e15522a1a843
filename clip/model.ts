/**
 * What a model is to methods, training and commands, and how one is described before it is there.
 *
 * @module
 */

import type { Tensor } from "../tensor/tensor.ts";
import type { PreprocessConfig } from "./config.ts";
import type { Pass } from "./layers.ts";
import type { Prompts } from "./text.ts";
import type { Tower } from "./tower.ts";
import type { Precision, Weights } from "./weights.ts";

/** A tower of images: normalized pixels `[B, 3, R, R]` to features. */
export interface ImageTower extends Tower<Tensor> {
  /** Height and width of the images, R. */
  readonly imageSize: number;
  /** Tokens of an image in its blocks. */
  readonly tokens: number;
}

/** A tower of texts: prompts to features. */
export interface PromptTower extends Tower<Prompts> {
  /** The most tokens of a prompt. */
  readonly context: number;
  /** How many tokens there are. */
  readonly vocabulary: number;
  /**
   * Puts `rows` prompts, their ids row by row as the tokenizer gives them, on the GPU.
   *
   * @throws {RangeError} If the rows are longer than the context, or an id is not in the
   * vocabulary.
   */
  prompts(ids: Int32Array<ArrayBuffer>, rows: number): Prompts;
}

/** An image tower, for most models a text tower, and the rule of their logits. */
export interface Model {
  /** The image tower. */
  readonly vision: ImageTower;
  /** The text tower; null of a model of images alone. */
  readonly text: PromptTower | null;
  /** How the model is described, by which another like it can be built. */
  readonly definition: ModelDefinition;
  /** The frozen weights. */
  readonly weights: Weights;
  /** How the matrices among them are stored. */
  readonly precision: Precision;
  /** Width of the features, E. */
  readonly embedding: number;
  /** Features of normalized pixels, not normalized: `[B, 3, R, R] → [B, E]`. */
  imageFeatures(pixels: Tensor, pass?: Pass): Tensor;
  /** Features of prompts, not normalized: `[K, E]`. */
  textFeatures(prompts: Prompts, pass?: Pass): Tensor;
  /**
   * Scores of features, `[B, E]` and `[K, E]` → `[B, K]`; by the model's scale if none is given.
   */
  logits(images: Tensor, texts: Tensor, scale?: number): Tensor;
  /** Gives the weights back. */
  release(): void;
}

/** A model without its weights. */
export interface ModelDefinition {
  /** Its sizes, as JSON can have them. */
  readonly config: unknown;
  /** Height and width of its images. */
  readonly imageSize: number;
  /** The most tokens of a prompt; null of a model of images alone. */
  readonly context: number | null;
  /** Builds it on its weights, which it takes over. */
  build(weights: Weights): Model;
}

/** Models of one kind, as the files of Hugging Face's layout describe them. */
export interface ModelFamily {
  /** The `model_type` of their `config.json`. */
  readonly modelType: string;
  /**
   * The model that a parsed `config.json` describes.
   *
   * @throws {RangeError} If it is not of this family, or impossible.
   */
  define(config: unknown): ModelDefinition;
  /**
   * How images are prepared, by a parsed `preprocessor_config.json`, which errors call `file`.
   *
   * @throws {RangeError} If it asks for what is not done here.
   */
  preprocess(json: unknown, imageSize: number, file?: string): PreprocessConfig;
}
