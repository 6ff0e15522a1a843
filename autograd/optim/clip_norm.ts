/**
 * Gradients held to a norm, all together.
 *
 * @module
 */

import { Kernel } from "../../kernels/kernel.ts";
import { pointwise } from "../../kernels/pointwise.ts";
import wgsl from "../../kernels/sum_of_squares.wgsl" with { type: "text" };
import { during } from "../../tensor/measure.ts";
import { scope } from "../../tensor/scope.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { sqrt } from "../ops/pointwise.ts";
import { sum } from "../ops/reduce.ts";
import { contiguous } from "../ops/view.ts";

const kernel = new Kernel("sum_of_squares.wgsl", wgsl, {
  flops: ({ count }) => 2 * count,
});

/** Workgroups of one tensor, at most; and the elements that are worth one. */
const MAX_GROUPS = 64;
const GROUP_ELEMENTS = 1024;

/** Euclidean norm of all elements of all `tensors` together: a scalar tensor. No gradient flows through it. */
export function globalNorm(tensors: readonly Tensor[]): Tensor {
  const groups = tensors.map(({ size }) => Math.min(MAX_GROUPS, Math.ceil(size / GROUP_ELEMENTS)));
  return scope(() => {
    const parts = Tensor.empty([groups.reduce((total, count) => total + count, 0)]);
    let first = 0;
    for (const [i, x] of tensors.entries()) {
      kernel.run([contiguous(x)], [parts], { count: x.size, first }, [groups[i]]);
      first += groups[i];
    }
    return sqrt(sum(parts));
  });
}

/**
 * New gradients, scaled by one factor to a common norm of at most `maxNorm`, and the norm that they had before, a scalar
 * tensor. The factor is `min(1, maxNorm / (norm + 1e-6))`, as in `torch.nn.utils.clip_grad_norm_`. Nothing is read back.
 * A gradient that stands for several equal ones counts `copies` times in the norm.
 *
 * @throws {RangeError} If `maxNorm` is not a finite number above 0.
 */
export function clipByNorm(
  grads: readonly Tensor[],
  maxNorm: number,
  copies: readonly number[] = grads.map(() => 1),
): { norm: Tensor; grads: Tensor[] } {
  if (!(maxNorm > 0 && maxNorm < Infinity)) {
    throw new RangeError(`Cannot clip to a norm of ${maxNorm}: it must be a finite number above 0`);
  }
  const clip = () => {
    const norm = globalNorm(grads.flatMap((g, i) => Array(copies[i]).fill(g)));
    const scaled = grads.map((g) =>
      pointwise("g * min(1.0, limit / (norm + 1e-6))", { g, norm, limit: maxNorm }, g.shape)
    );
    return { norm, grads: scaled };
  };
  return during("optimizer", () => scope(clip));
}
