/**
 * The model that joins the two towers.
 *
 * @module
 */

import { matmul } from "../autograd/ops/matmul.ts";
import { l2Normalize } from "../autograd/ops/normalize.ts";
import { exp, mul, mulScalar } from "../autograd/ops/pointwise.ts";
import { transpose } from "../autograd/ops/view.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { TensorFile } from "../tensor/tensor_file.ts";
import { type ClipConfig, parseConfig, parsePreprocessor } from "./config.ts";
import type { Pass } from "./layers.ts";
import type { Model, ModelDefinition, ModelFamily } from "./model.ts";
import { type Prompts, TextTower } from "./text.ts";
import { VisionTower } from "./vision.ts";
import { loadWeights } from "./load_weights.ts";
import type { Shape } from "../tensor/shape.ts";
import { declaredWeights, type Precision, type PrecisionChoice, type Weights } from "./weights.ts";

/**
 * Contrastive language-image pre-training (Radford et al., arXiv 2103.00020): two towers into one
 * space.
 */
export class Clip implements Model {
  /** Its sizes. */
  readonly config: ClipConfig;
  /** The image tower. */
  readonly vision: VisionTower;
  /** The text tower. */
  readonly text: TextTower;
  /** Its frozen weights. */
  readonly weights: Weights;
  readonly #logitScale: Tensor;

  /** Builds the towers on weights, which it takes over. */
  constructor(config: ClipConfig, weights: Weights) {
    this.config = config;
    this.weights = weights;
    this.#logitScale = weights.get("logit_scale", []);
    this.vision = new VisionTower(weights, config.vision, config.embedding);
    this.text = new TextTower(weights, config.text, config.embedding);
  }

  /**
   * Reads a model from files of tensors, with Hugging Face's names, OpenAI's or open_clip's. With
   * `precision` `"f16"`, which is the default for what the files have as F16, its matrices take
   * half the memory; all arithmetic is in f32.
   *
   * @throws {RangeError} If the weights do not fit the configuration, or the precision.
   */
  static async load(
    config: ClipConfig,
    files: readonly TensorFile[],
    options: { readonly precision?: PrecisionChoice } = {},
  ): Promise<Clip> {
    return new Clip(config, await loadWeights(files, weightShapes(config), options));
  }

  /** How it is described. */
  get definition(): ModelDefinition {
    return clipDefinition(this.config);
  }

  /** Width of the features. */
  get embedding(): number {
    return this.config.embedding;
  }

  /** How its matrices are stored. */
  get precision(): Precision {
    return this.weights.get("visual_projection.weight").dtype === "f16" ? "f16" : "f32";
  }

  /** Features of normalized pixels, not normalized: `[B, 3, R, R] → [B, E]`. */
  imageFeatures(pixels: Tensor, pass?: Pass): Tensor {
    return this.vision.forward(pixels, pass);
  }

  /** Features of prompts, not normalized: `[K, E]`. */
  textFeatures(prompts: Prompts, pass?: Pass): Tensor {
    return this.text.forward(prompts, pass);
  }

  /**
   * Cosines of image features `[B, E]` and text features `[K, E]` times a scale: `[B, K]`. Without
   * `scale` it is the model's temperature, the exponential of its logit scale.
   */
  logits(images: Tensor, texts: Tensor, scale?: number): Tensor {
    return scope(() => {
      const cosines = matmul(l2Normalize(images), transpose(l2Normalize(texts)));
      return scale === undefined ? mul(cosines, exp(this.#logitScale)) : mulScalar(cosines, scale);
    });
  }

  /** Gives the weights back. */
  release(): void {
    this.weights.release();
  }
}

/** A CLIP without its weights. */
export function clipDefinition(config: ClipConfig): ModelDefinition {
  const { vision: { imageSize }, text: { context } } = config;
  return { config, imageSize, context, build: (weights) => new Clip(config, weights) };
}

/** Models with the `config.json` of Hugging Face's `CLIPModel`. */
export const CLIP_FAMILY: ModelFamily = {
  modelType: "clip",
  define: (config) => clipDefinition(parseConfig(config)),
  preprocess: parsePreprocessor,
};

/** The name and shape of every weight of a model. */
export function weightShapes(config: ClipConfig): Map<string, Shape> {
  return declaredWeights((weights) => new Clip(config, weights));
}
