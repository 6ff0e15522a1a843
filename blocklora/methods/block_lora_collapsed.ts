/**
 * Block-LoRA by the sum of its blocks.
 *
 * @module
 */

import { thinCost } from "../cost/formulas.ts";
import type { AdapterMethod } from "./adapter_method.ts";
import { Lora } from "./lora.ts";
import { lowRankMethod } from "./low_rank_method.ts";

/**
 * Block-LoRA whose blocks are stored as the one sum that they make. All begin at zero and all have
 * the same gradient, so that they are equal at every step; the sum takes n times their step.
 */
export const blockLoraCollapsed: AdapterMethod<Lora> = lowRankMethod({
  name: "block-lora-collapsed",
  label: ({ rank, blocks }) => `Block-LoRA (${rank}, ${blocks}), collapsed`,
  splits: { ups: () => 1, copies: (blocks) => blocks },
  make: ([down, ...ups], options) => new Lora(down, ups, options),
  cost: thinCost,
  // Its files are those of a LoRA of rank r/n, by which they are read.
  reads: () => false,
});
