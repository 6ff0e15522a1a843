/**
 * Block-LoRA.
 *
 * @module
 */

import { addAll } from "../../autograd/ops/pointwise.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { thinCost } from "../cost/formulas.ts";
import type { AdapterMethod } from "./adapter_method.ts";
import { Lora } from "./lora.ts";
import { lowRankMethod } from "./low_rank_method.ts";

/**
 * `W' = W + s · (B₁ + … + Bₙ) A`, A `[r/n, in]`, Bᵢ `[out, r/n]` (arXiv 2501.16720). LoRA's B is
 * cut by columns and its A by rows into n blocks, `B A = Σ Bᵢ Aᵢ`. All blocks then share one A, so
 * that the Bᵢ are summed and n products become one.
 */
export class BlockLora extends Lora {
  /** Files number the blocks. */
  protected override readonly numbered = true;

  /** `Σ Bᵢ`. */
  protected override up(): Tensor {
    return addAll(this.ups);
  }
}

/** Block-LoRA, in which every block trains by itself. */
export const blockLora: AdapterMethod<BlockLora> = lowRankMethod({
  name: "block-lora",
  label: ({ rank, blocks }) => `Block-LoRA (${rank}, ${blocks})`,
  splits: { ups: (blocks) => blocks, copies: () => 1 },
  peftType: "BLOCK_LORA",
  make: ([down, ...ups], options) => new BlockLora(down, ups, options),
  cost: thinCost,
});
