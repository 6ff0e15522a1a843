/**
 * Layer normalization.
 *
 * @module
 */

import { Kernel, MAX_STEPS, spread } from "../../kernels/kernel.ts";
import wgsl from "../../kernels/layer_norm.wgsl" with { type: "text" };
import backwardWgsl from "../../kernels/layer_norm_backward.wgsl" with { type: "text" };
import { pointwise } from "../../kernels/pointwise.ts";
import { scope } from "../../tensor/scope.ts";
import { numel, sameShape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { sumTo } from "./reduce.ts";
import { contiguous, reshape } from "./view.ts";

const forward = new Kernel("layer_norm.wgsl", wgsl, {
  // Sum; difference, square and two sums; difference, two products and a sum.
  flops: ({ rows, cols }) => 9 * rows * cols,
});
const backward = new Kernel("layer_norm_backward.wgsl", backwardWgsl, {
  // Product and sum; difference, two products and a sum; difference, four products, two differences.
  flops: ({ rows, cols }) => 13 * rows * cols,
});

/**
 * Normalizes over the axes that `weight` and `bias` have: mean 0, variance 1, then scaled and shifted (Ba, Kiros and
 * Hinton, arXiv 1607.06450). Agrees with `torch.nn.functional.layer_norm`.
 *
 * @throws {RangeError} If the last axes of `x` are not those of `weight` and `bias`, or hold none or more than 15,000 elements.
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon = 1e-5): Tensor {
  const { shape } = x;
  const own = weight.shape;
  const last = shape.slice(Math.max(0, shape.length - own.length));
  if (!sameShape(last, own) || !sameShape(own, bias.shape) || numel(own) === 0) {
    throw new RangeError(
      `Cannot layerNorm [${shape}] with weight [${own}] and bias [${bias.shape}]`,
    );
  }
  const cols = numel(own);
  const rows = x.size / cols;
  if (cols > MAX_STEPS / 4) {
    throw new RangeError(
      `Cannot layerNorm [${shape}] over [${own}]: at most ${MAX_STEPS / 4} elements are possible`,
    );
  }
  const grid = spread(Math.ceil(rows / 64));
  return scope(() => {
    const [input, scale] = [contiguous(x), contiguous(weight)];
    const y = Tensor.empty(shape);
    const stats = Tensor.empty([rows, 2]);
    forward.run([input, scale, contiguous(bias)], [y, stats], { rows, cols, epsilon }, grid);
    return record(y, [
      wrt(x, [input, scale, stats], (g) =>
        scope(() => {
          const dx = Tensor.empty(shape);
          backward.run([input, scale, stats, contiguous(g)], [dx], { rows, cols }, grid);
          return dx;
        })),
      wrt(weight, [input, stats], (g) =>
        scope(() => {
          const mean = stats.view([rows, 1], [2, 1]);
          const rstd = stats.view([rows, 1], [2, 1], 1);
          const [flat, gradient] = [input.view([rows, cols]), reshape(g, [rows, cols])];
          const part = pointwise("g * (x - mean) * rstd", { g: gradient, x: flat, mean, rstd }, [
            rows,
            cols,
          ]);
          return reshape(sumTo(part, [cols]), own);
        })),
      wrt(bias, [], (g) => sumTo(g, own)),
    ]);
  });
}
