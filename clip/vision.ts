/**
 * CLIP's image tower: a vision transformer.
 *
 * @module
 */

import { patchEmbedding } from "../autograd/ops/conv.ts";
import { add } from "../autograd/ops/pointwise.ts";
import { concat, expand, reshape, slice } from "../autograd/ops/view.ts";
import { attribute } from "../tensor/measure.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { VisionConfig } from "./config.ts";
import {
  blocksOf,
  type LayerNorm,
  layerNormOf,
  Linear,
  type Pass,
  type ResidualBlock,
  runBlocks,
} from "./layers.ts";
import type { Weights } from "./weights.ts";

/** The image tower (class `VisionTransformer` of openai/CLIP's `clip/model.py`). */
export class VisionTower {
  /** Its blocks, the one nearest to the pixels first. */
  readonly blocks: readonly ResidualBlock[];
  /** What makes features of the pooled token. */
  readonly projection: Linear;
  readonly #config: VisionConfig;
  readonly #patch: Tensor;
  readonly #classToken: Tensor;
  readonly #positions: Tensor;
  readonly #preNorm: LayerNorm;
  readonly #postNorm: LayerNorm;

  /** Takes the weights of the tower out of those of the model. */
  constructor(weights: Weights, config: VisionConfig) {
    const name = "vision_model";
    this.#config = config;
    this.#patch = weights.get(`${name}.embeddings.patch_embedding.weight`);
    this.#classToken = weights.get(`${name}.embeddings.class_embedding`);
    this.#positions = weights.get(`${name}.embeddings.position_embedding.weight`);
    this.#preNorm = layerNormOf(weights, `${name}.pre_layrnorm`, config.layerNormEps);
    this.blocks = blocksOf(weights, name, config, false);
    this.#postNorm = layerNormOf(weights, `${name}.post_layernorm`, config.layerNormEps);
    this.projection = new Linear(weights.get("visual_projection.weight"));
  }

  /** Tokens of an image, the class token included. */
  get tokens(): number {
    return this.#positions.shape[0];
  }

  /**
   * What enters the first block: `[B, 3, R, R]`, normalized pixels, to `[B, 1 + patches, C]`, the class token first.
   *
   * @throws {RangeError} If the images are not of the model's size.
   */
  embed(pixels: Tensor): Tensor {
    const { imageSize, width } = this.#config;
    const [batch, ...image] = pixels.shape;
    if (image.join() !== [3, imageSize, imageSize].join()) {
      throw new RangeError(
        `Cannot encode images of [${pixels.shape}]: the model takes [B,3,${imageSize},${imageSize}]`,
      );
    }
    return scope(() => {
      const patches = patchEmbedding(pixels, this.#patch);
      const token = expand(reshape(this.#classToken, [1, 1, width]), [batch, 1, width]);
      return this.#preNorm.forward(add(concat([token, patches], 1), this.#positions));
    });
  }

  /** The normalized class token of what left the last block: `[B, T, C] → [B, C]`. */
  pool(hidden: Tensor): Tensor {
    const [batch, , width] = hidden.shape;
    return scope(() => this.#postNorm.forward(reshape(slice(hidden, 1, 0, 1), [batch, width])));
  }

  /** Image features, not normalized: `[B, 3, R, R] → [B, E]`. */
  forward(pixels: Tensor, pass?: Pass): Tensor {
    return attribute("vision", () =>
      scope(() => {
        const hidden = runBlocks(this.blocks, this.embed(pixels), pass);
        return this.projection.forward(this.pool(hidden), pass);
      }));
  }
}
