/**
 * The configuration of the LoRA family.
 *
 * @module
 */

import type { Adapters } from "./adapters.ts";
import type { LowRank } from "./low_rank.ts";
import type { MethodConfig } from "./method.ts";
import { type AdaptedLayers, DEFAULT_LAYERS } from "./sites.ts";

/** What to adapt, and how. */
export interface AdapterConfig extends MethodConfig, AdaptedLayers {
  /** The nominal rank r. */
  readonly rank: number;
  /** Block-LoRA's number of blocks n, a divisor of the rank; 1 for methods without blocks. */
  readonly blocks: number;
  /** The numerator of the scale. */
  readonly alpha: number;
  /**
   * Whether the scale is `alpha / √r`, as in CLIP-LoRA (PEFT: `use_rslora`), or `alpha / r`, as in
   * LoRA's paper.
   */
  readonly scaling: "sqrt" | "linear";
  /** Probability of dropping an element of an adapter's input. */
  readonly dropout: number;
}

/**
 * CLIP-LoRA's defaults, with Block-LoRA as the method (`run_utils.py` of
 * github.com/MaxZanella/CLIP-LoRA).
 */
export const DEFAULT_ADAPTER: AdapterConfig = {
  method: "block-lora",
  rank: 8,
  blocks: 4,
  alpha: 1,
  scaling: "sqrt",
  dropout: 0.25,
  ...DEFAULT_LAYERS,
};

/** Adapters of the LoRA family. */
export type LowRankAdapters = Adapters<LowRank, AdapterConfig>;

/** The factor by which an adapter's change is multiplied. */
export function scaleOf({ alpha, rank, scaling }: AdapterConfig): number {
  return alpha / (scaling === "sqrt" ? Math.sqrt(rank) : rank);
}
