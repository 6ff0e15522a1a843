/**
 * LoRA, computed by the dense product of its matrices.
 *
 * @module
 */

import { dropout } from "../../autograd/ops/dropout.ts";
import { linear, type LinearOptions } from "../../autograd/ops/linear.ts";
import { add } from "../../autograd/ops/pointwise.ts";
import type { FrozenLinear, Pass } from "../../clip/layers.ts";
import { attribute } from "../../tensor/measure.ts";
import { scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { denseCost } from "../cost/formulas.ts";
import type { AdapterMethod } from "./adapter_method.ts";
import { LowRank } from "./low_rank.ts";
import { lowRankMethod } from "./low_rank_method.ts";

/**
 * LoRA as CLIP-LoRA computes it when dropout is on: `x · (s · B A)ᵀ`, with the dense product `B A`
 * `[out, in]` (method `forward_lora` of `loralib/layers.py` in github.com/MaxZanella/CLIP-LoRA). It
 * computes the same function as `Lora`.
 */
export class DenseLora extends LowRank {
  /** The dense change of the weight, `[out, in]`. */
  override share(): Tensor {
    return this.weightDelta();
  }

  /** Computes a second dense product, and adds it to that of the layer. */
  override forward(
    x: Tensor,
    { weight, bias }: FrozenLinear,
    pass?: Pass,
    options: LinearOptions = {},
  ): Tensor {
    return scope(() => {
      const delta = attribute("adapter", () => {
        const drop = this.dropped(x, pass);
        return linear(drop ? dropout(x, drop.p, drop.key) : x, this.shared(pass));
      });
      const { activation, residual } = options;
      const y = linear(x, weight, bias, activation ? {} : options);
      const changed = attribute("adapter", () => add(y, delta));
      if (!activation) return changed;
      return residual ? add(activation(changed), residual) : activation(changed);
    });
  }
}

/** LoRA with the dense product that CLIP-LoRA's code makes. */
export const loraDense: AdapterMethod<DenseLora> = lowRankMethod({
  name: "lora-dense",
  label: ({ rank }) => `LoRA r = ${rank}, dense`,
  make: ([down, ...ups], options) => new DenseLora(down, ups, options),
  cost: denseCost,
  // Its files are LoRA's, and are read as such.
  reads: () => false,
});
