/**
 * DoRA: the direction of a weight and its magnitude train separately.
 *
 * @module
 */

import { dropout } from "../../autograd/ops/dropout.ts";
import { linear, type LinearOptions } from "../../autograd/ops/linear.ts";
import { lowRankLinear } from "../../autograd/ops/low_rank.ts";
import { matmul } from "../../autograd/ops/matmul.ts";
import { add, addScalar, div, mul, mulScalar, sqrt, square } from "../../autograd/ops/pointwise.ts";
import { sum } from "../../autograd/ops/reduce.ts";
import { detach, unsqueeze } from "../../autograd/ops/view.ts";
import type { FrozenLinear, Pass } from "../../clip/layers.ts";
import { attribute } from "../../tensor/measure.ts";
import { scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import {
  type AdaptedSite,
  DROPOUT,
  type MethodCost,
  type ThinShape,
  totalCost,
} from "../cost/formulas.ts";
import type { AdapterMethod } from "./adapter_method.ts";
import { LowRank, type LowRankOptions } from "./low_rank.ts";
import { lowRankMethod } from "./low_rank_method.ts";

/** PEFT's name for the magnitudes. */
const MAGNITUDE = "lora_magnitude_vector";

/**
 * `W' = m · V / ‖V‖`, `V = W + s · B A`, with the norm over each row, the weights of one output
 * (Liu et al., arXiv 2402.09353, equation 5). The norm counts as a constant in the backward pass
 * (section 4.3).
 */
export class Dora extends LowRank {
  /** The magnitudes m, `[out]`. */
  readonly magnitude: Tensor;
  readonly #layer: FrozenLinear;

  /** Takes the tensors, which the caller releases, and the layer that they are for. */
  constructor(
    [down, up, magnitude]: readonly Tensor[],
    options: LowRankOptions,
    layer: FrozenLinear,
  ) {
    super(down, [up], options);
    this.magnitude = magnitude;
    this.#layer = layer;
  }

  override get tensors(): Readonly<Record<string, Tensor>> {
    return { ...super.tensors, [MAGNITUDE]: this.magnitude };
  }

  /** `m / ‖V‖`, `[out]`. */
  override share(): Tensor {
    return this.#gain(this.#layer.weight);
  }

  #gain(weight: Tensor): Tensor {
    return scope(() => {
      const delta = mulScalar(matmul(detach(this.up()), detach(this.down)), this.scale);
      return div(this.magnitude, rowNorms(add(weight, delta)));
    });
  }

  /**
   * `m / ‖V‖ · V x + b`. With dropout, `x'` is what is left of `x`, and the output is
   * `W x + b + (m / ‖V‖ − 1) · W x' + m / ‖V‖ · s · B A x'` (PEFT's `DoraLinearLayer`).
   */
  override forward(
    x: Tensor,
    { weight, bias }: FrozenLinear,
    pass?: Pass,
    { activation, residual }: LinearOptions = {},
  ): Tensor {
    return scope(() => {
      const drop = this.dropped(x, pass);
      const { down, scale } = this;
      const change = { down, up: this.up(), scale, label: "adapter" };
      const makeGain = () => this.shared(pass);
      let y: Tensor;
      if (drop && drop.p > 0) {
        const frozen = linear(x, weight, bias);
        y = attribute("adapter", () => {
          const left = dropout(x, drop.p, drop.key);
          const gain = makeGain();
          const delta = mulScalar(linear(linear(left, down), this.up()), scale);
          const changed = add(mul(linear(left, weight), addScalar(gain, -1)), mul(delta, gain));
          return add(frozen, changed);
        });
      } else {
        const changed = lowRankLinear(x, weight, null, change);
        y = attribute("adapter", () => {
          const scaled = mul(changed, makeGain());
          return bias ? add(scaled, bias) : scaled;
        });
      }
      const active = activation ? activation(y) : y;
      return residual ? add(active, residual) : active;
    });
  }

  /** `m / ‖V‖ · V`. */
  override mergedWeight(weight: Tensor): Tensor {
    return scope(() => mul(super.mergedWeight(weight), unsqueeze(this.#gain(weight), 1)));
  }
}

/** The norm of each row, `[out, in] → [out]`. */
function rowNorms(weight: Tensor): Tensor {
  return scope(() => sqrt(sum(square(weight), { axis: -1 })));
}

/**
 * DoRA. The magnitudes begin as the norms of the weight's rows, so that fresh adapters do not
 * change the model.
 */
export const dora: AdapterMethod<Dora> = lowRankMethod({
  name: "dora",
  label: ({ rank }) => `DoRA r = ${rank}`,
  make: (tensors, options, { linear }) => new Dora(tensors, options, linear),
  more: {
    [MAGNITUDE]: { shape: ([outputs]) => [outputs], fresh: rowNorms },
  },
  peftKeys: { use_dora: true },
  reads: ({ use_dora }) => use_dora === true,
  cost,
});

/** The costs of DoRA with dropout. The second stage of sums over many rows is not counted. */
function cost({ inner }: ThinShape, sites: readonly AdaptedSite[]): MethodCost {
  return totalCost(sites, ({ inputs, outputs, rows, tracked, adds }) => {
    const product = 2 * rows * inputs * outputs;
    const [down, up] = [2 * rows * inputs * inner, 2 * rows * inner * outputs];
    const [seen, made] = [rows * inputs, rows * outputs];
    const drop = DROPOUT * seen;
    // Once a step: s · B A, its sum with W, the squares, their sums, roots and quotients.
    const gain = 2 * outputs * inner * inputs + 4 * outputs * inputs + 2 * outputs;
    return {
      parameters: inner * (inputs + outputs) + outputs,
      forward: gain + drop + product + down + up + 5 * made + outputs,
      backward: 2 * up + down + 6 * made + 3 * outputs +
        (tracked ? product + down + made + drop + seen + (adds ? seen : 0) : 0),
      // Both products that the gain scales, the input after dropout, the thin product, the gain and
      // the norms.
      saved: 2 * made + seen + rows * inner + (tracked ? 3 : 2) * outputs,
    };
  });
}
