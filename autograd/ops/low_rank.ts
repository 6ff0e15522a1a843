/**
 * A layer whose frozen weight is changed by a product of two thin matrices: LoRA's product, fused
 * with that of the layer.
 *
 * @module
 */

import { type Mask, multiply, multiplyThen } from "../../kernels/matmul.ts";
import { attribute, currentLabel } from "../../tensor/measure.ts";
import { scope } from "../../tensor/scope.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { type GradientRule, needsGradient, wrt, wrtAll } from "../tape.ts";
import { type DropoutKey, dropoutMask } from "./dropout.ts";
import { affine, flatten, inputGradient, type LinearOptions } from "./linear.ts";
import { transpose } from "./view.ts";

/** A change of a layer: `scale · dropout(x) downᵀ upᵀ` is added to its product. */
export interface LowRankChange {
  /** `[r, in]`. */
  readonly down: Tensor;
  /** `[out, r]`. */
  readonly up: Tensor;
  /** The factor of the change. */
  readonly scale: number;
  /** What {@linkcode dropout} drops of `x` in it; nothing by default. */
  readonly dropout?: { readonly p: number; readonly key: DropoutKey };
  /** What its work is attributed to; what the layer's is by default. */
  readonly label?: string;
}

/**
 * Affine layer with a low-rank change, both products in one pass:
 * `activation(x Wᵀ + scale · dropout(x) downᵀ upᵀ + b) + residual`, `[…, in] → […, out]` (Hu et
 * al., arXiv 2106.09685, equation 3).
 *
 * @throws {RangeError} If the inner sizes differ, or the residual is not of the result's shape.
 */
export function lowRankLinear(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  change: LowRankChange,
  options: LinearOptions = {},
): Tensor {
  return affine(x, weight, bias, options, (rows) => {
    const thin = thinProduct(rows, change, x.shape);
    return {
      inputs: [change.down, change.up],
      lowRank: { a: thin.t, c: transpose(thin.up), label: thin.label },
      rulesOf: (source) => changed(x, source, weight, thin),
    };
  });
}

/** A change that is under way: its thin product `t` `[rows, r]`, the scale in it. */
interface Change extends LowRankChange {
  readonly t: Tensor;
  readonly mask: Mask | null;
  readonly label: string;
}

function thinProduct(rows: Tensor, change: LowRankChange, shape: Shape): Change {
  const { down, up, scale, dropout, label = currentLabel() } = change;
  const mask = dropout ? dropoutMask(dropout.p, dropout.key, shape) : null;
  const t = attribute(label, () =>
    multiplyThen(rows, transpose(down), {
      expression: "scale * x",
      numbers: { scale },
      ...(mask && { mask: { ...mask, over: "a" } }),
    })[0]);
  return { ...change, t, mask, label, up };
}

/**
 * The gradients of a changed layer's input and of its thin matrices, attributed to the change but
 * for the product of the layer itself. What was dropped of the input is dropped of its gradient:
 * the mask is drawn again each time, and none of it is saved.
 */
function changed(x: Tensor, source: Tensor, weight: Tensor, change: Change): GradientRule[] {
  const { down, up, scale, t, mask, label } = change;
  const outer = currentLabel();
  const numbers = mask?.items ? [mask.items.numbers] : [];
  // Only the gradient of `down` reads the input.
  const saves = [weight, down, up, ...numbers, ...(needsGradient(down) ? [source] : [])];
  const { shape } = x;
  const rule = wrtAll([x, down], saves, (gradient, needs, [accumulated]) =>
    scope(() => {
      const g = flatten(gradient);
      const [dt] = multiplyThen(g, up, { expression: "scale * x", numbers: { scale } });
      const dx = () =>
        inputGradient(g, weight, shape, accumulated, {
          lowRank: { a: dt, c: down, label },
          ...(mask && { mask: { ...mask, over: "lowRank" } }),
        });
      const ddown = () =>
        multiplyThen(transpose(dt), flatten(source), {
          ...(mask && { mask: { ...mask, over: "c" } }),
        })[0];
      return [needs[0] ? attribute(outer, dx) : null, needs[1] ? ddown() : null];
    }));
  const ofUp = wrt(up, [t], (g) => scope(() => multiply(transpose(flatten(g)), t)));
  return [{ ...rule, accumulates: [true, false], label }, { ...ofUp, label }];
}
