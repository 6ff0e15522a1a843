/**
 * Attention.
 *
 * @module
 */

import {
  attend,
  type Attended,
  canAttend,
  isAttendable,
  keyGradient,
  queryGradient,
  rowDot,
  valueGradient,
  type Weighing,
} from "../../kernels/attention.ts";
import { scope } from "../../tensor/scope.ts";
import { numel, sameShape } from "../../tensor/shape.ts";
import { checkFloats, type Tensor } from "../../tensor/tensor.ts";
import { record, wrtAll } from "../tape.ts";
import { full } from "./create.ts";
import { matmul } from "./matmul.ts";
import { mulScalar, where } from "./pointwise.ts";
import { scores } from "./softmax.ts";
import { contiguous, reshape, transpose } from "./view.ts";

/** How {@linkcode attention} computes its weights. */
export interface AttentionOptions {
  /** Whether a position attends only to itself and to those before it; false by default. */
  readonly causal?: boolean;
  /** The factor of the scores; 1/√D by default. */
  readonly scale?: number;
  /**
   * Which keys a query attends to: 1 for those, 0 for hidden ones; broadcast to `[…, T, S]`. Each
   * query must attend to at least one key.
   */
  readonly mask?: Tensor;
}

/**
 * Attention, `softmax(scale · q kᵀ) v`: `[…, T, D]`, `[…, S, D]` and `[…, S, E]` to `[…, T, E]`
 * (Vaswani et al., arXiv 1706.03762, equation 1). A fused kernel computes it without storing the
 * scores `[…, T, S]`. Separate ops, which store them, compute it if there is a mask, if the leading
 * axes are broadcast, if D or E is above 256 or no multiple of 4, if the kernel variant is
 * `perLane`, or if the GPU has too little workgroup memory.
 *
 * @throws {RangeError} If the shapes do not fit, or the mask does not broadcast to `[…, T, S]`.
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { causal = false, scale = 1 / Math.sqrt(q.shape.at(-1)!), mask }: AttentionOptions = {},
): Tensor {
  checkFloats("attend", q, k, v);
  const weighing = { causal, scale };
  if (!mask && fits(q, k, v)) return inOnePass(q, k, v, weighing);
  return scope(() => {
    const products = matmul(q, transpose(k));
    // The scale is applied before the mask: afterwards, a scale of 0 or below would turn the
    // -Infinity of a hidden position into NaN or Infinity.
    const seen = mask && where(mask, mulScalar(products, scale), full([], -Infinity));
    return matmul(seen ? scores(seen, 1, causal) : scores(products, scale, causal), v);
  });
}

/**
 * Whether the fused kernel can compute it. It cannot where shapes do not match: the ops of the
 * other path then throw.
 */
function fits(q: Tensor, k: Tensor, v: Tensor): boolean {
  const [lead, ...rest] = [q, k, v].map(({ shape }) => shape.slice(0, -2));
  return [q, k, v].every(({ shape, size }) => shape.length >= 2 && size > 0) &&
    rest.every((other) => sameShape(lead, other)) &&
    q.shape.at(-1) === k.shape.at(-1) && k.shape.at(-2) === v.shape.at(-2) &&
    canAttend(q.shape.at(-1)!, v.shape.at(-1)!);
}

function inOnePass(q: Tensor, k: Tensor, v: Tensor, weighing: Weighing): Tensor {
  const lead = q.shape.slice(0, -2);
  return scope(() => {
    const [x, y, z] = [q, k, v].map(withHeads);
    return reshapeHeads(fused({ q: x, k: y, v: z }, weighing), [
      ...lead,
      q.shape.at(-2)!,
      v.shape.at(-1)!,
    ]);
  });
}

function fused(inputs: Attended, weighing: Weighing): Tensor {
  const { q, k, v } = inputs;
  const { y, logs } = attend(inputs, weighing);
  return record(y, [
    wrtAll([q, k, v], [q, k, v, y, logs], (gradient, needs) =>
      scope(() => {
        const g = isAttendable(gradient) ? gradient : contiguous(gradient);
        const deltas = needs[0] || needs[1] ? rowDot(g, y) : logs;
        const all = { ...inputs, g, logs, deltas };
        return [queryGradient, keyGradient, valueGradient]
          .map((gradientOf, i) => needs[i] ? gradientOf(all, weighing) : null);
      })),
  ]);
}

/** `x` as `[batch, heads, rows, width]`, laid out as the kernels read it: a view where possible. */
function withHeads(x: Tensor): Tensor {
  const { shape } = x;
  const [rows, width] = shape.slice(-2);
  const heads = shape.length > 2 ? shape.at(-3)! : 1;
  const split = shape.length === 4
    ? x
    : reshape(x, [numel(shape.slice(0, -3)), heads, rows, width]);
  return isAttendable(split) ? split : contiguous(split);
}

function reshapeHeads(y: Tensor, shape: readonly number[]): Tensor {
  return sameShape(y.shape, shape) ? y : reshape(y, shape);
}
