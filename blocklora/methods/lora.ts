/**
 * LoRA, computed by two thin products.
 *
 * @module
 */

import type { LinearOptions } from "../../autograd/ops/linear.ts";
import { lowRankLinear } from "../../autograd/ops/low_rank.ts";
import type { FrozenLinear, Pass } from "../../clip/layers.ts";
import { attribute } from "../../tensor/measure.ts";
import { scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { thinCost } from "../cost/formulas.ts";
import type { AdapterMethod } from "./adapter_method.ts";
import { LowRank } from "./low_rank.ts";
import { lowRankMethod } from "./low_rank_method.ts";

/**
 * `W' = W + s · B A`, A `[r, in]`, B `[out, r]`: `s · (x Aᵀ) Bᵀ` is added to the layer's product
 * (Hu et al., arXiv 2106.09685, equation 3). With `r/n` for r it is also Block-LoRA whose equal
 * blocks are collapsed into their sum.
 */
export class Lora extends LowRank {
  /** The up-projection: B, or the sum of the blocks. */
  override share(): Tensor {
    return this.up();
  }

  /** Computes the layer's product and the thin products in one pass, and adds them. */
  override forward(
    x: Tensor,
    { weight, bias }: FrozenLinear,
    pass?: Pass,
    options?: LinearOptions,
  ): Tensor {
    return scope(() => {
      const change = {
        down: this.down,
        up: attribute("adapter", () => this.shared(pass)),
        scale: this.scale,
        dropout: this.dropped(x, pass),
        label: "adapter",
      };
      return lowRankLinear(x, weight, bias, change, options);
    });
  }
}

/** LoRA, as CLIP-LoRA sets it up (arXiv 2405.18541). */
export const lora: AdapterMethod<Lora> = lowRankMethod({
  name: "lora",
  // With magnitudes, it is DoRA.
  reads: ({ use_dora }) => !use_dora,
  label: ({ rank }) => `LoRA r = ${rank}`,
  make: ([down, ...ups], options) => new Lora(down, ups, options),
  cost: thinCost,
});
