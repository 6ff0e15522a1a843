/**
 * Softmax, its logarithm, and attention.
 *
 * @module
 */

import { Kernel, MAX_STEPS, spread } from "../../kernels/kernel.ts";
import logSoftmaxWgsl from "../../kernels/log_softmax.wgsl" with { type: "text" };
import { pointwise } from "../../kernels/pointwise.ts";
import softmaxWgsl from "../../kernels/softmax.wgsl" with { type: "text" };
import backwardWgsl from "../../kernels/softmax_backward.wgsl" with { type: "text" };
import { scope } from "../../tensor/scope.ts";
import { numel, resolveAxis, type Shape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { full } from "./create.ts";
import { matmul } from "./matmul.ts";
import { div, exp, log, maskedFill, mulScalar, sub, where } from "./pointwise.ts";
import { max, sum } from "./reduce.ts";
import { contiguous, detach, transpose } from "./view.ts";

const forward = new Kernel("softmax.wgsl", softmaxWgsl, {
  // Scale, maximum, difference, exponential, sum, quotient; of what a causal mask hides too.
  flops: ({ rows, cols }) => 6 * rows * cols,
});
const backward = new Kernel("softmax_backward.wgsl", backwardWgsl, {
  // The row's sum of products 2, then a difference and two products.
  flops: ({ rows, cols }) => 5 * rows * cols,
});
const logForward = new Kernel("log_softmax.wgsl", logSoftmaxWgsl, {
  // Maximum, difference, exponential, sum, difference.
  flops: ({ rows, cols }) => 5 * rows * cols,
});

/** What hides a position: so low a score that its softmax is 0, and finite. */
const HIDDEN = -1e30;

/** Rows longer than this are worked on by several kernels, since one invocation would take more than MAX_STEPS. */
const LONG_ROW = MAX_STEPS / 4;
const ROWS = { axis: -1, keepAxes: true } as const;

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
  if (cols > LONG_ROW) return longScores(x, scale, causal);
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

/** As `scores`, of rows that are too long for one invocation each. */
function longScores(x: Tensor, scale: number, causal: boolean): Tensor {
  return scope(() => {
    const scaled = mulScalar(x, scale);
    const seen = causal ? maskedFill(scaled, after(x.shape), HIDDEN) : scaled;
    const e = exp(sub(seen, detach(max(seen, ROWS))));
    return div(e, sum(e, ROWS));
  });
}

/** A mask of the columns that come after a row's own. */
function after(shape: Shape): Tensor {
  const [cols, queries] = [shape.at(-1)!, shape.at(-2) ?? 1].map(BigInt);
  const hides = "select(0u, 1u, i % cols > i / cols % queries)";
  return pointwise(hides, { cols, queries }, shape, "u32");
}

/** Logarithm of the softmax along `axis`, the last by default. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  return along(x, axis, (x) => {
    const { shape } = x;
    const cols = shape.at(-1)!;
    if (cols > LONG_ROW) {
      return scope(() => {
        const below = sub(x, detach(max(x, ROWS)));
        return sub(below, log(sum(exp(below), ROWS)));
      });
    }
    const rows = numel(shape.slice(0, -1));
    return scope(() => {
      const y = Tensor.empty(shape);
      logForward.run([contiguous(x)], [y], { rows, cols }, spread(Math.ceil(rows / 64)));
      return record(y, [
        wrt(
          x,
          [y],
          (g) => scope(() => pointwise("g - exp(y) * total", { g, y, total: sum(g, ROWS) }, shape)),
        ),
      ]);
    });
  });
}

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
