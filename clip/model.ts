/**
 * What a model is to methods, training and commands.
 *
 * @module
 */

import type { Tensor } from "../tensor/tensor.ts";
import type { Pass } from "./layers.ts";
import type { Prompts } from "./text.ts";
import type { Tower } from "./tower.ts";
import type { Weights } from "./weights.ts";

/** An image tower, a text tower, and the rule of their logits. */
export interface Model {
  /** The image tower. */
  readonly vision: Tower<Tensor>;
  /** The text tower. */
  readonly text: Tower<Prompts>;
  /** The frozen weights. */
  readonly weights: Weights;
  /** Features of normalized pixels, not normalized: `[B, 3, R, R] → [B, E]`. */
  imageFeatures(pixels: Tensor, pass?: Pass): Tensor;
  /** Features of prompts, not normalized: `[K, E]`. */
  textFeatures(prompts: Prompts, pass?: Pass): Tensor;
  /** Scores of features, `[B, E]` and `[K, E]` → `[B, K]`; by the model's scale if none is given. */
  logits(images: Tensor, texts: Tensor, scale?: number): Tensor;
  /** Gives the weights back. */
  release(): void;
}
