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
  type TowerHook,
} from "./layers.ts";
import type { ImageTower } from "./model.ts";
import { type NamedLinear, namedLinears } from "./tower.ts";
import type { WeightSource } from "./weights.ts";

/** The image tower (class `VisionTransformer` of openai/CLIP's `clip/model.py`). */
export class VisionTower implements ImageTower {
  /** The blocks, from the pixels to the features. */
  readonly blocks: readonly ResidualBlock[];
  /** Projects the pooled token to features. */
  readonly projection: Linear;
  readonly #config: VisionConfig;
  readonly #patch: Tensor;
  readonly #classToken: Tensor;
  readonly #positions: Tensor;
  readonly #preNorm: LayerNorm;
  readonly #postNorm: LayerNorm;

  /** Every token attends to all tokens. */
  readonly causal = false;

  /** Builds the tower on its weights. `embedding` is the width of its features. */
  constructor(weights: WeightSource, config: VisionConfig, embedding: number) {
    const { width, imageSize, patchSize, layerNormEps } = config;
    const tower = weights.at("vision_model");
    const patches = Math.floor(imageSize / patchSize) ** 2;
    this.#config = config;
    this.#classToken = tower.get("embeddings.class_embedding", [width]);
    this.#patch = tower.get("embeddings.patch_embedding.weight", [width, 3, patchSize, patchSize]);
    this.#positions = tower.get("embeddings.position_embedding.weight", [patches + 1, width]);
    this.#preNorm = layerNormOf(tower, "pre_layrnorm", width, layerNormEps);
    this.#postNorm = layerNormOf(tower, "post_layernorm", width, layerNormEps);
    this.blocks = blocksOf(tower, config, this.causal);
    this.projection = new Linear(weights.get("visual_projection.weight", [embedding, width]));
  }

  /** Number of blocks. */
  get depth(): number {
    return this.blocks.length;
  }

  /** The linear layers of the tower. */
  get linears(): readonly NamedLinear[] {
    const projection = { module: "visual_projection", linear: this.projection };
    return namedLinears("vision_model", this.blocks, projection);
  }

  /** Height and width of the images, in pixels. */
  get imageSize(): number {
    return this.#config.imageSize;
  }

  /** Number of tokens of an image, including the class token. */
  get tokens(): number {
    return this.#positions.shape[0];
  }

  /**
   * Computes the input of the first block from normalized pixels:
   * `[B, 3, R, R] → [B, 1 + patches, C]`. The class token comes first.
   *
   * @throws {RangeError} If the images do not have the model's size.
   */
  embed(pixels: Tensor, hook?: TowerHook): Tensor {
    const { imageSize, width } = this.#config;
    const [batch, ...image] = pixels.shape;
    if (image.join() !== [3, imageSize, imageSize].join()) {
      throw new RangeError(
        `Cannot encode images of [${pixels.shape}]: ` +
          `the model takes [B,3,${imageSize},${imageSize}]`,
      );
    }
    return scope(() => {
      const patches = patchEmbedding(pixels, this.#patch);
      const token = expand(reshape(this.#classToken, [1, 1, width]), [batch, 1, width]);
      const tokens = concat([token, patches], 1);
      const placed = add(hook?.embedded?.(tokens) ?? tokens, this.#positions);
      return this.#preNorm.forward(hook?.positioned?.(placed) ?? placed);
    });
  }

  /** Normalizes the class token in the output of the last block: `[B, T, C] → [B, C]`. */
  pool(hidden: Tensor): Tensor {
    const [batch, , width] = hidden.shape;
    return scope(() => this.#postNorm.forward(reshape(slice(hidden, 1, 0, 1), [batch, width])));
  }

  /** Image features, not L2-normalized: `[B, 3, R, R] → [B, E]`. */
  forward(pixels: Tensor, pass?: Pass): Tensor {
    return attribute("vision", () =>
      scope(() => {
        const hook = pass?.hooks?.vision;
        const hidden = runBlocks(this.blocks, this.embed(pixels, hook), pass, hook);
        const features = this.projection.forward(this.pool(hidden), pass);
        return hook?.features?.(features) ?? features;
      }));
  }
}
