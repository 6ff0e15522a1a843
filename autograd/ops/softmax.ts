/**
 * Softmax, its logarithm, and attention.
 *
 * @module
 */

import { Kernel, spread } from "../../kernels/kernel.ts";
import logSoftmaxWgsl from "../../kernels/log_softmax.wgsl" with { type: "text" };
import { pointwise } from "../../kernels/pointwise.ts";
import softmaxWgsl from "../../kernels/softmax.wgsl" with { type: "text" };
import backwardWgsl from "../../kernels/softmax_backward.wgsl" with { type: "text" };
import { scope } from "../../tensor/scope.ts";
import { numel, resolveAxis } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { full } from "./create.ts";
import { matmul } from "./matmul.ts";
import { mulScalar, where } from "./pointwise.ts";
import { sum } from "./reduce.ts";
import { contiguous, transpose } from "./view.ts";

const forward = new Kernel("softmax.wgsl", softmaxWgsl);
const backward = new Kernel("softmax_backward.wgsl", backwardWgsl);
const logForward = new Kernel("log_softmax.wgsl", logSoftmaxWgsl);

/** Runs `op`, which works on the last axis, along `axis`. */
function along(x: Tensor, axis: number, op: (x: Tensor) => Tensor): Tensor {
  const at = resolveAxis(axis, x.shape.length);
  const last = x.shape.length - 1;
  if (at === last) return op(x);
  return scope(() => transpose(op(transpose(x, at, last)), at, last));
}

/** Softmax along `axis`, the last by default: positive, with a sum of 1. */
export function softmax(x: Tensor, axis = -1): Tensor {
  return along(x, axis, (x) => scores(x, 1, false));
}

/** Softmax of `scale · x` over the last axis; if `causal`, of each row's columns up to its own number only. */
function scores(x: Tensor, scale: number, causal: boolean): Tensor {
  const { shape } = x;
  const cols = shape.at(-1)!;
  const rows = numel(shape.slice(0, -1));
  const grid = spread(Math.ceil(rows / 64));
  return scope(() => {
    const y = Tensor.empty(shape);
    const queries = shape.at(-2) ?? 1;
    forward.run([contiguous(x)], [y], { rows, cols, queries, scale }, grid, {
      CAUSAL: causal ? 1 : 0,
    });
    return record(y, [
      wrt(x, [y], (g) =>
        scope(() => {
          const dx = Tensor.empty(shape);
          backward.run([y, contiguous(g)], [dx], { rows, cols, scale }, grid);
          return dx;
        })),
    ]);
  });
}

/** Logarithm of the softmax along `axis`, the last by default. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  return along(x, axis, (x) => {
    const { shape } = x;
    const cols = shape.at(-1)!;
    const rows = numel(shape.slice(0, -1));
    return scope(() => {
      const y = Tensor.empty(shape);
      logForward.run([contiguous(x)], [y], { rows, cols }, spread(Math.ceil(rows / 64)));
      return record(y, [
        wrt(
          x,
          [y],
          (g) =>
            scope(() =>
              pointwise(
                "g - exp(y) * total",
                { g, y, total: sum(g, { axis: -1, keepAxes: true }) },
                shape,
              )
            ),
        ),
      ]);
    });
  });
}

/** Where a mask hides a position: so low a score that its softmax is 0, and finite. */
const HIDDEN = -1e30;

/** How attention weighs. */
export interface AttentionOptions {
  /** Whether a position sees only itself and those before it. */
  readonly causal?: boolean;
  /** The factor of the scores; 1/√D by default. */
  readonly scale?: number;
  /** Which positions are seen: 1, or 0 for those hidden; broadcast to `[…, T, S]`. Each must see at least one. */
  readonly mask?: Tensor;
}

/**
 * Attention, `softmax(scale · q kᵀ) v`: `[…, T, D]`, `[…, S, D]` and `[…, S, E]` to `[…, T, E]` (Vaswani et al., arXiv
 * 1706.03762, equation 1).
 *
 * @throws {RangeError} If the shapes do not fit, or the mask does not broadcast to `[…, T, S]`.
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { causal = false, scale = 1 / Math.sqrt(q.shape.at(-1)!), mask }: AttentionOptions = {},
): Tensor {
  return scope(() => {
    const products = matmul(q, transpose(k));
    // Scaled here, so that a hidden position stays hidden whatever the scale.
    const seen = mask && where(mask, mulScalar(products, scale), full([], HIDDEN));
    return matmul(seen ? scores(seen, 1, causal) : scores(products, scale, causal), v);
  });
}
