/**
 * Gradients held to a norm, all together.
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

/** What a workgroup sums, and into how many sums: one for each of its invocations. */
const [SUMMED, SUMS] = [1024, 64];

const kernel = new ManyKernel("sum_of_squares.wgsl", wgsl, {
  writes: false,
  shared: [{ name: "parts", access: "read_write" }],
  numbers: { place: "u32", times: "f32" },
  common: {},
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
      return { x: contiguous(x), numbers: { place: start, times: copies[i] } };
    });
    const sums = Tensor.empty([count]);
    kernel.run(members, [sums], {});
    return sqrt(sum(sums));
  });
}

/**
 * The factor that takes gradients to a common norm of at most `maxNorm`, and the norm that they
 * have, both scalar tensors, for an optimizer to step with: `min(1, maxNorm / (norm + 1e-6))`, as
 * in `torch.nn.utils.clip_grad_norm_`. Nothing is read back. A gradient that stands for several
 * equal ones counts `copies` times in the norm.
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
 * had before, a scalar tensor; see {@linkcode clipFactor}, which an optimizer steps with without a
 * copy of each gradient.
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
