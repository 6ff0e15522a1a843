/**
 * The configuration of LoRA and its kin.
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
  /** Block-LoRA's n, which divides the rank; 1 for the kinds of LoRA. */
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
 * CLIP-LoRA's, with Block-LoRA as the method (`run_utils.py` of github.com/MaxZanella/CLIP-LoRA).
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

/** Adapters of LoRA and its kin. */
export type LowRankAdapters = Adapters<LowRank, AdapterConfig>;

/** The factor of an adapter's change. */
export function scaleOf({ alpha, rank, scaling }: AdapterConfig): number {
  return alpha / (scaling === "sqrt" ? Math.sqrt(rank) : rank);
}
