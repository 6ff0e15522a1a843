/**
 * The CLIP model: an image tower and a text tower that embed into one space.
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
 * CLIP, contrastive language-image pre-training (Radford et al., arXiv 2103.00020): an image tower
 * and a text tower that map into the same embedding space.
 */
export class Clip implements Model {
  /** The sizes of the model. */
  readonly config: ClipConfig;
  /** The image tower. */
  readonly vision: VisionTower;
  /** The text tower. */
  readonly text: TextTower;
  /** The frozen weights. */
  readonly weights: Weights;
  readonly #logitScale: Tensor;

  /** Builds both towers on `weights`, which {@linkcode release} then releases. */
  constructor(config: ClipConfig, weights: Weights) {
    this.config = config;
    this.weights = weights;
    this.#logitScale = weights.get("logit_scale", []);
    this.vision = new VisionTower(weights, config.vision, config.embedding);
    this.text = new TextTower(weights, config.text, config.embedding);
  }

  /**
   * Loads a model from tensor files with the weight names of Hugging Face, openai/CLIP or
   * open_clip. In precision `"f16"` the matrices take half the memory. By default, the matrices
   * that the files store as F16 stay in f16, and everything else is f32. All arithmetic is in f32.
   *
   * @throws {RangeError} If the weights do not match the configuration, or do not fit the
   * precision.
   */
  static async load(
    config: ClipConfig,
    files: readonly TensorFile[],
    options: { readonly precision?: PrecisionChoice } = {},
  ): Promise<Clip> {
    return new Clip(config, await loadWeights(files, weightShapes(config), options));
  }

  /** The sizes of the model, from which another like it can be built. */
  get definition(): ModelDefinition {
    return clipDefinition(this.config);
  }

  /** Width of the features. */
  get embedding(): number {
    return this.config.embedding;
  }

  /** How the matrices are stored. */
  get precision(): Precision {
    return this.weights.get("visual_projection.weight").dtype === "f16" ? "f16" : "f32";
  }

  /** Image features, not L2-normalized, from normalized pixels: `[B, 3, R, R] → [B, E]`. */
  imageFeatures(pixels: Tensor, pass?: Pass): Tensor {
    return this.vision.forward(pixels, pass);
  }

  /** Text features of prompts, not L2-normalized: `[K, E]`. */
  textFeatures(prompts: Prompts, pass?: Pass): Tensor {
    return this.text.forward(prompts, pass);
  }

  /**
   * Scaled cosine similarities of image features `[B, E]` and text features `[K, E]`: `[B, K]`. By
   * default, the scale is the model's temperature, the exponential of its logit scale.
   */
  logits(images: Tensor, texts: Tensor, scale?: number): Tensor {
    return scope(() => {
      const cosines = matmul(l2Normalize(images), transpose(l2Normalize(texts)));
      return scale === undefined ? mul(cosines, exp(this.#logitScale)) : mulScalar(cosines, scale);
    });
  }

  /** Releases the weights. */
  release(): void {
    this.weights.release();
  }
}

/** Describes a CLIP model of the given sizes, without its weights. */
export function clipDefinition(config: ClipConfig): ModelDefinition {
  const { vision: { imageSize }, text: { context } } = config;
  return { config, imageSize, context, build: (weights) => new Clip(config, weights) };
}

/** The family of models that have the `config.json` of Hugging Face's `CLIPModel`. */
export const CLIP_FAMILY: ModelFamily = {
  modelType: "clip",
  define: (config) => clipDefinition(parseConfig(config)),
  preprocess: parsePreprocessor,
};

/** The name and shape of every weight of a model. */
export function weightShapes(config: ClipConfig): Map<string, Shape> {
  return declaredWeights((weights) => new Clip(config, weights));
}
