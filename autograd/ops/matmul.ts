/**
 * Matrix products and affine layers.
 *
 * @module
 */

import { type Epilogue, type Mask, multiply, multiplyThen } from "../../kernels/matmul.ts";
import { pointwise } from "../../kernels/pointwise.ts";
import { attribute, currentPart } from "../../tensor/measure.ts";
import { scope } from "../../tensor/scope.ts";
import { numel, sameShape, type Shape } from "../../tensor/shape.ts";
import { checkFloats, checkReadable, type Tensor } from "../../tensor/tensor.ts";
import { type Flow, needsGradient, record, wrt, wrtAll } from "../tape.ts";
import { type DropoutKey, dropoutMask } from "./dropout.ts";
import type { Elementwise } from "./pointwise.ts";
import { sumTo } from "./reduce.ts";
import { contiguous, detach, reshape, squeeze, transpose, unsqueeze } from "./view.ts";

/**
 * Matrix product over the last two axes, the leading ones broadcast: `[…, m, k] × […, k, n] → […, m, n]`. A vector `[k]`
 * is a row on the left and a column on the right, and adds no axis to the result. Transposed operands are read in place.
 * The right operand may be a frozen weight in f16; the arithmetic is in f32 all the same.
 *
 * @throws {TypeError} If the left operand is not f32, or the right one neither f32 nor f16.
 * @throws {RangeError} If the inner sizes differ, or the leading axes do not broadcast.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.dtype === "f16") {
    throw new TypeError(
      `Cannot matmul f16 [${a.shape}] with [${b.shape}]: only the right operand may be f16`,
    );
  }
  checkFloats("matmul", a);
  checkReadable("matmul", b);
  if (a.shape.length === 1 && b.shape.length > 0) {
    return scope(() => squeeze(matmul(unsqueeze(a, 0), b), b.shape.length > 1 ? -2 : 0));
  }
  if (b.shape.length === 1 && a.shape.length > 0) {
    return scope(() => squeeze(matmul(a, unsqueeze(b, 1)), -1));
  }
  if (a.shape.length > 2 && b.shape.length === 2 && a.shape.at(-1) === b.shape[0]) {
    // One tall product in place of a batch of them, and one for b's gradient in place of a batch to be summed.
    return scope(() => {
      const rows = numel(a.shape.slice(0, -1));
      const flat = matmul(reshape(a, [rows, b.shape[0]]), b);
      return reshape(flat, [...a.shape.slice(0, -1), b.shape[1]]);
    });
  }
  const [aShape, bShape] = [a.shape, b.shape];
  return record(scope(() => multiply(a, b)), [
    wrt(a, [b], (g) => scope(() => sumTo(multiply(g, transpose(b)), aShape))),
    wrt(b, [a], (g) => scope(() => sumTo(multiply(transpose(a), g), bShape))),
  ]);
}

/** What a layer does to its product, in the same pass. */
export interface LinearOptions {
  /** Added to `x Wᵀ`; nothing by default. */
  readonly low?: LowRankChange;
  /** Applied to each element of the sum with the bias; nothing by default. */
  readonly activation?: Elementwise;
  /** Added last, of the result's shape; nothing by default. */
  readonly residual?: Tensor;
}

/** A change of a layer's weight by a product of two thin matrices: `scale · dropout(x) downᵀ upᵀ` is added. */
export interface LowRankChange {
  /** `[r, in]`. */
  readonly down: Tensor;
  /** `[out, r]`. */
  readonly up: Tensor;
  /** The factor of the change. */
  readonly scale: number;
  /** What falls of `x` in it, by {@linkcode dropout}; nothing by default. */
  readonly dropout?: { readonly p: number; readonly key: DropoutKey };
  /** What its work is attributed to; what the layer's is by default. */
  readonly part?: string;
}

/**
 * Affine layer `x Wᵀ + b`: `[…, in] → […, out]`, with `weight` `[out, in]` as in PyTorch's checkpoints; or
 * `activation(x Wᵀ + low + b) + residual`.
 *
 * @throws {RangeError} If the inner sizes differ, or the residual is not of the result's shape.
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  { low, activation, residual }: LinearOptions = {},
): Tensor {
  const vectors = bias ? { bias } : {};
  checkFloats("linear", x, ...Object.values(vectors), ...(residual ? [residual] : []));
  checkReadable("linear", weight);
  const shape = [...x.shape.slice(0, -1), weight.shape[0]];
  if (residual && !sameShape(residual.shape, shape)) {
    throw new RangeError(`Cannot add a residual of [${residual.shape}] to a layer's [${shape}]`);
  }
  return scope(() => {
    // What is recorded is of x as it is: layers of one input then add to one gradient of it.
    const rows = flatten(x);
    const change = low && thinProduct(rows, low, x.shape);
    const inputs = [x, weight, ...Object.values(vectors), ...(low ? [low.down, low.up] : [])];
    const keeps = activation !== undefined && inputs.some(needsGradient);
    const sum = bias ? "x + bias" : "x";
    const value = activation ? activation.forward.replace(/\bx\b/g, `(${sum})`) : sum;
    const [made, kept] = multiplyThen(rows, transpose(weight), {
      expression: residual ? `${value} + residual` : value,
      ...(keeps && { kept: sum }),
      vectors: bias ? { bias: contiguous(bias) } : {},
      matrices: residual ? { residual: flatten(residual) } : {},
      ...(change && { low: { a: change.t, c: transpose(change.up), part: change.part } }),
    });
    const y = made.view(shape);
    // A view of x keeps no more than x does, and a copy is kept in its place.
    const flows = affine(x, x.contiguous ? x : rows, weight, bias, change);
    // An activation's gradient is of what it was applied to.
    const before = kept?.view(shape);
    if (before) record(before, flows);
    const own = activation ? before ? [gate(before, activation)] : [] : flows;
    return record(y, residual ? [...own, wrt(residual, [], (g) => g)] : own);
  });
}

/** `[…, C]` as rows `[R, C]`, of which nobody is told. */
function flatten(x: Tensor): Tensor {
  return reshape(detach(x), [numel(x.shape.slice(0, -1)), x.shape.at(-1) ?? 0]);
}

/** How gradients flow through `x Wᵀ + low + b`: the weight's then lies as the weight does. */
function affine(
  x: Tensor,
  source: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  change?: Change,
): Flow[] {
  const others = [
    wrt(weight, [source], (g) => scope(() => multiply(transpose(flatten(g)), flatten(source)))),
    ...(bias ? [wrt(bias, [], (g) => sumTo(g, bias.shape))] : []),
  ];
  if (change) return [...changed(x, source, weight, change), ...others];
  const { shape } = x;
  const ofX = wrt(x, [weight], (g, found) => inputGradient(flatten(g), weight, shape, found()));
  return [ofX, ...others];
}

/** `g W`, the low product, and what was found before, in one pass. */
function inputGradient(
  g: Tensor,
  weight: Tensor,
  shape: Shape,
  found: Tensor | null,
  more: Epilogue = {},
): Tensor {
  return scope(() => {
    const sum = found && { expression: "x + found", matrices: { found: flatten(found) } };
    return multiplyThen(g, weight, { ...more, ...sum })[0].view(shape);
  });
}

function gate(x: Tensor, { gradient }: Elementwise): Flow {
  return wrt(x, [x], (g) => pointwise(gradient, { g, x }, x.shape));
}

/** A change that is under way: its thin product `t` `[rows, r]`, the scale in it. */
interface Change extends LowRankChange {
  readonly t: Tensor;
  readonly mask: Mask | null;
  readonly part: string;
}

function thinProduct(rows: Tensor, low: LowRankChange, shape: Shape): Change {
  const { down, up, scale, dropout, part = currentPart() } = low;
  const mask = dropout ? dropoutMask(dropout.p, dropout.key, shape) : null;
  const t = attribute(part, () =>
    multiplyThen(rows, transpose(down), {
      expression: "scale * x",
      numbers: { scale },
      ...(mask && { mask: { ...mask, over: "a" } }),
    })[0]);
  return { ...low, t, mask, part, up };
}

/**
 * The gradients of a changed layer's input and of its thin matrices, attributed to the change but for the layer's own
 * product. What fell of the input falls of its gradient: the mask is drawn again each time, and nothing of it kept.
 */
function changed(x: Tensor, source: Tensor, weight: Tensor, change: Change): Flow[] {
  const { down, up, scale, t, mask, part } = change;
  const own = currentPart();
  const numbers = mask?.items ? [mask.items.numbers] : [];
  // Only the gradient of `down` reads the input.
  const saves = [weight, down, up, ...numbers, ...(needsGradient(down) ? [source] : [])];
  const { shape } = x;
  const flow = wrtAll([x, down], saves, (gradient, needs, found) =>
    scope(() => {
      const g = flatten(gradient);
      const [dt] = multiplyThen(g, up, { expression: "scale * x", numbers: { scale } });
      const dx = () =>
        inputGradient(g, weight, shape, found(0), {
          low: { a: dt, c: down, part },
          ...(mask && { mask: { ...mask, over: "low" } }),
        });
      const ddown = () =>
        multiplyThen(transpose(dt), flatten(source), {
          ...(mask && { mask: { ...mask, over: "c" } }),
        })[0];
      return [needs[0] ? attribute(own, dx) : null, needs[1] ? ddown() : null];
    }));
  const ofUp = wrt(up, [t], (g) => scope(() => multiply(transpose(flatten(g)), t)));
  return [{ ...flow, part }, { ...ofUp, part }];
}
