/**
 * Softmax and its logarithm.
 *
 * @module
 */

import { MAX_STEPS } from "../../kernels/kernel.ts";
import logSoftmaxWgsl from "../../kernels/log_softmax.wgsl" with { type: "text" };
import logBackwardWgsl from "../../kernels/log_softmax_backward.wgsl" with { type: "text" };
import { pointwise } from "../../kernels/pointwise.ts";
import { RowsKernel } from "../../kernels/rows.ts";
import softmaxWgsl from "../../kernels/softmax.wgsl" with { type: "text" };
import backwardWgsl from "../../kernels/softmax_backward.wgsl" with { type: "text" };
import { scope } from "../../tensor/scope.ts";
import { numel, resolveAxis, type Shape } from "../../tensor/shape.ts";
import { checkFloats, Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { div, exp, log, maskedFill, mulScalar, sub } from "./pointwise.ts";
import { max, sum } from "./reduce.ts";
import { contiguous, detach, transpose } from "./view.ts";

const forward = new RowsKernel("softmax.wgsl", softmaxWgsl, {
  inputs: { x: "E" },
  outputs: { y: "E" },
  sizes: { rows: "u32", cols: "u32", queries: "u32", scale: "f32" },
  constants: { CAUSAL: "bool" },
  // Scale, maximum, difference, exponential, sum; scale, difference, exponential, product. Hidden
  // elements count too.
  flops: ({ rows, cols }) => 9 * rows * cols,
});
const backward = new RowsKernel("softmax_backward.wgsl", backwardWgsl, {
  inputs: { y: "E", g: "E" },
  outputs: { dx: "E" },
  sizes: { rows: "u32", cols: "u32", scale: "f32" },
  // The row's sum of products 2, then a difference and two products.
  flops: ({ rows, cols }) => 5 * rows * cols,
});
const logForward = new RowsKernel("log_softmax.wgsl", logSoftmaxWgsl, {
  inputs: { x: "E" },
  outputs: { y: "E" },
  sizes: { rows: "u32", cols: "u32" },
  // Maximum, difference, exponential, sum; two differences.
  flops: ({ rows, cols }) => 6 * rows * cols,
});
const logBackward = new RowsKernel("log_softmax_backward.wgsl", logBackwardWgsl, {
  inputs: { y: "E", g: "E" },
  outputs: { dx: "E" },
  sizes: { rows: "u32", cols: "u32" },
  // The row's sum, then an exponential, a product and a difference.
  flops: ({ rows, cols }) => 4 * rows * cols,
});

/**
 * Longer rows are computed by several kernels: one invocation would take more than MAX_STEPS steps.
 */
const LONG_ROW = MAX_STEPS / 2;
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

/**
 * Softmax of `scale · x` over the last axis. If `causal`, row `t` of the last two axes covers only
 * its columns 0 to `t`, and its other columns are 0.
 */
export function scores(x: Tensor, scale: number, causal: boolean): Tensor {
  checkFloats("softmax", x);
  const { shape } = x;
  const cols = shape.at(-1)!;
  if (cols > LONG_ROW) return longScores(x, scale, causal);
  const rows = numel(shape.slice(0, -1));
  return scope(() => {
    const y = Tensor.empty(shape);
    const sizes = { rows, cols, queries: shape.at(-2) ?? 1, scale };
    forward.run([contiguous(x)], [y], sizes, { CAUSAL: Number(causal) });
    return record(y, [
      wrt(x, [y], (g) =>
        scope(() => {
          const dx = Tensor.empty(shape);
          backward.run([y, contiguous(g)], [dx], { rows, cols, scale });
          return dx;
        })),
    ]);
  });
}

/** Like `scores`, for rows that are too long for one invocation. */
function longScores(x: Tensor, scale: number, causal: boolean): Tensor {
  return scope(() => {
    const scaled = mulScalar(x, scale);
    const seen = causal ? maskedFill(scaled, after(x.shape), -Infinity) : scaled;
    const e = exp(sub(seen, detach(max(seen, ROWS))));
    return div(e, sum(e, ROWS));
  });
}

/** A mask of the columns above the diagonal. */
function after(shape: Shape): Tensor {
  const [cols, queries] = [shape.at(-1)!, shape.at(-2) ?? 1].map(BigInt);
  const hides = "select(0u, 1u, i % cols > i / cols % queries)";
  return pointwise(hides, { cols, queries }, shape, "u32");
}

/** Logarithm of the softmax along `axis`, the last by default. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  checkFloats("logSoftmax", x);
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
      logForward.run([contiguous(x)], [y], { rows, cols });
      return record(y, [
        wrt(x, [y], (g) =>
          scope(() => {
            const dx = Tensor.empty(shape);
            logBackward.run([y, contiguous(g)], [dx], { rows, cols });
            return dx;
          })),
      ]);
    });
  });
}
