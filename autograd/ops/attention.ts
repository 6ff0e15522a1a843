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

/** How attention weighs. */
export interface AttentionOptions {
  /** Whether a position sees only itself and those before it. */
  readonly causal?: boolean;
  /** The factor of the scores; 1/√D by default. */
  readonly scale?: number;
  /**
   * Which positions are seen: 1, or 0 for those hidden; broadcast to `[…, T, S]`. Each must see at
   * least one.
   */
  readonly mask?: Tensor;
}

/**
 * Attention, `softmax(scale · q kᵀ) v`: `[…, T, D]`, `[…, S, D]` and `[…, S, E]` to `[…, T, E]`
 * (Vaswani et al., arXiv 1706.03762, equation 1). The scores `[…, T, S]` are never in memory,
 * unless there is a mask, the leading axes are broadcast, D or E is no multiple of 4 or above 256,
 * or the GPU has no memory to share them in.
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
    // Scaled here, so that a hidden position stays hidden whatever the scale.
    const seen = mask && where(mask, mulScalar(products, scale), full([], -Infinity));
    return matmul(seen ? scores(seen, 1, causal) : scores(products, scale, causal), v);
  });
}

/**
 * Whether one kernel can do it all. What does not fit together goes the other way too, and is
 * refused there.
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

/** As `[batch, heads, rows, width]`, and as the kernels read it: a view where possible. */
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
