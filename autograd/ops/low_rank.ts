/**
 * A layer with a low-rank change of its weight, as in LoRA: the product of two thin matrices is
 * fused with the layer's product.
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
  /** The {@linkcode dropout} of `x` in the change; none by default. */
  readonly dropout?: { readonly p: number; readonly key: DropoutKey };
  /** The label that the change's work counts under; the layer's label by default. */
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

/** A change whose thin product is computed: `t` `[rows, r]` is `scale · dropout(x) downᵀ`. */
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
 * The gradient rules of a changed layer's input and of its thin matrices. Their work counts under
 * the change's label, except the product with the layer's weight. The dropout mask is not saved:
 * each product that needs it draws it again, and so drops the elements that the forward pass did.
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
