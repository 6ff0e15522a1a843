/**
 * Gradient clipping, by the norm of all gradients together.
 *
 * @module
 */

import { ManyKernel } from "../../kernels/many.ts";
import { pointwise } from "../../kernels/pointwise.ts";
import wgsl from "../../kernels/sum_of_squares.wgsl" with { type: "text" };
import { during } from "../../tensor/measure.ts";
import { scope } from "../../tensor/scope.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { sqrt } from "../ops/pointwise.ts";
import { sum } from "../ops/reduce.ts";
import { contiguous } from "../ops/view.ts";

/** Elements that a workgroup sums, and how many sums it makes: one for each of its invocations. */
const [SUMMED, SUMS] = [1024, 64];

const kernel = new ManyKernel("sum_of_squares.wgsl", wgsl, {
  writes: false,
  inputs: {},
  outputs: { sums: "f32" },
  memberSizes: { start: "u32", times: "f32" },
  sizes: {},
  elements: SUMMED,
  work: { flops: ({ count }) => 2 * count },
});

/**
 * Euclidean norm of all elements of all `tensors` together: a scalar tensor that passes no gradient
 * on. A tensor that stands for several equal ones counts `copies` times.
 */
export function globalNorm(
  tensors: readonly Tensor[],
  copies: readonly number[] = tensors.map(() => 1),
): Tensor {
  return scope(() => {
    let count = 0;
    const members = tensors.map((x, i) => {
      const start = count;
      count += SUMS * Math.ceil(x.size / SUMMED);
      return { x: contiguous(x), sizes: { start, times: copies[i] } };
    });
    const sums = Tensor.empty([count]);
    kernel.run(members, [], [sums], {});
    return sqrt(sum(sums));
  });
}

/**
 * The factor that clips gradients to a common norm of at most `maxNorm`, and the norm that they
 * have, both scalar tensors. The factor is `min(1, maxNorm / (norm + 1e-6))`, as in
 * `torch.nn.utils.clip_grad_norm_`. It is an argument of an optimizer's `step()`; nothing is read
 * back. A gradient that stands for several equal ones counts `copies` times in the norm.
 *
 * @throws {RangeError} If `maxNorm` is not a finite number above 0.
 */
export function clipFactor(
  grads: readonly Tensor[],
  maxNorm: number,
  copies?: readonly number[],
): { norm: Tensor; factor: Tensor } {
  if (!(maxNorm > 0 && maxNorm < Infinity)) {
    throw new RangeError(`Cannot clip to a norm of ${maxNorm}: it must be a finite number above 0`);
  }
  return during("optimizer", () =>
    scope(() => {
      const norm = globalNorm(grads, copies);
      const factor = pointwise(
        "minimum_(1.0, limit / (norm + 1e-6))",
        { norm, limit: maxNorm },
        [],
      );
      return { norm, factor };
    }));
}

/**
 * New gradients, scaled by one factor to a common norm of at most `maxNorm`, and the norm that they
 * had before, a scalar tensor. {@linkcode clipFactor} avoids these copies: an optimizer multiplies
 * the gradients with its factor.
 *
 * @throws {RangeError} If `maxNorm` is not a finite number above 0.
 */
export function clipByNorm(
  grads: readonly Tensor[],
  maxNorm: number,
  copies?: readonly number[],
): { norm: Tensor; grads: Tensor[] } {
  return during("optimizer", () =>
    scope(() => {
      const { norm, factor } = clipFactor(grads, maxNorm, copies);
      return { norm, grads: grads.map((g) => pointwise("g * factor", { g, factor }, g.shape)) };
    }));
}
