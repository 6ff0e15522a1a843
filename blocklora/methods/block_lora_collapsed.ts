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
 * Block-LoRA that stores only the sum of its blocks. All blocks begin at zero and have the same
 * gradient, so they are equal at every step, and their sum moves n times as far as one of them.
 */
export const blockLoraCollapsed: AdapterMethod<Lora> = lowRankMethod({
  name: "block-lora-collapsed",
  label: ({ rank, blocks }) => `Block-LoRA (${rank}, ${blocks}), collapsed`,
  splits: { ups: () => 1, copies: (blocks) => blocks },
  make: ([down, ...ups], options) => new Lora(down, ups, options),
  cost: thinCost,
  // Its files are those of a LoRA of rank r/n, and are read as such.
  reads: () => false,
});
