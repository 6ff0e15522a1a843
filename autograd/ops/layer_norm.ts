/**
 * Layer normalization.
 *
 * @module
 */

import { MAX_STEPS } from "../../kernels/kernel.ts";
import wgsl from "../../kernels/layer_norm.wgsl" with { type: "text" };
import backwardWgsl from "../../kernels/layer_norm_backward.wgsl" with { type: "text" };
import weightsWgsl from "../../kernels/layer_norm_weights.wgsl" with { type: "text" };
import { chunkOf, reduceMiddle } from "../../kernels/reduce.ts";
import { ColumnsKernel, RowsKernel } from "../../kernels/rows.ts";
import { scope } from "../../tensor/scope.ts";
import { numel, sameShape } from "../../tensor/shape.ts";
import { checkFloats, Tensor } from "../../tensor/tensor.ts";
import { record, wrtAccumulating, wrtAll } from "../tape.ts";
import { contiguous } from "./view.ts";

const COLUMNS = { columns: true };
const forward = new RowsKernel("layer_norm.wgsl", wgsl, {
  inputs: { x: "E", weight: "E", bias: "E" },
  outputs: { y: "E", stats: "vec2f" },
  sizes: { rows: "u32", cols: "u32", epsilon: "f32" },
  // A sum, a difference, its square and sum; a difference, two products and a sum; the joining of
  // quads.
  flops: ({ rows, cols }) => 9 * rows * cols,
}, COLUMNS);
const backward = new RowsKernel("layer_norm_backward.wgsl", backwardWgsl, {
  inputs: { x: "E", weight: "E", stats: "vec2f", g: "E", accumulated: "E" },
  outputs: { dx: "E" },
  sizes: { rows: "u32", cols: "u32" },
  constants: { ADDS: "bool" },
  // Product and sum; difference, two products and a sum; difference, four products, two
  // differences.
  flops: ({ rows, cols }) => 13 * rows * cols,
}, COLUMNS);
const weightsKernel = new ColumnsKernel("layer_norm_weights.wgsl", weightsWgsl, {
  inputs: { x: "E", stats: "vec2f", g: "E" },
  outputs: { dweight: "E", dbias: "E" },
  sizes: { rows: "u32", chunk: "u32" },
  // Two sums, a difference and two products for each element.
  flops: (_, [x]) => 5 * (x as Tensor).size,
});

/**
 * `x` normalized over the axes that `weight` and `bias` have: to mean 0 and variance 1, then
 * multiplied with `weight` and shifted by `bias` (Ba, Kiros and Hinton, arXiv 1607.06450). Agrees
 * with `torch.nn.functional.layer_norm`.
 *
 * @throws {RangeError} If the last axes of `x` are not those of `weight` and `bias`, or if they
 * hold no elements or more than 30,000.
 */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon = 1e-5): Tensor {
  const { shape } = x;
  const normalized = weight.shape;
  const last = shape.slice(Math.max(0, shape.length - normalized.length));
  if (
    !sameShape(last, normalized) || !sameShape(normalized, bias.shape) || numel(normalized) === 0
  ) {
    throw new RangeError(
      `Cannot layerNorm [${shape}] with weight [${normalized}] and bias [${bias.shape}]`,
    );
  }
  checkFloats("layerNorm", x, weight, bias);
  const cols = numel(normalized);
  const rows = x.size / cols;
  if (cols > MAX_STEPS / 2) {
    throw new RangeError(
      `Cannot layerNorm [${shape}] over [${normalized}]: at most ${
        MAX_STEPS / 2
      } elements are possible`,
    );
  }
  return scope(() => {
    const [input, scale] = [contiguous(x), contiguous(weight)];
    const y = Tensor.empty(shape);
    const stats = Tensor.empty([rows, 2]);
    forward.run([input, scale, contiguous(bias)], [y, stats], { rows, cols, epsilon });
    return record(y, [
      wrtAccumulating(x, [input, scale, stats], (gradient, accumulated) =>
        scope(() => {
          const dx = Tensor.empty(shape);
          const g = contiguous(gradient);
          const operands = [input, scale, stats, g, accumulated ? contiguous(accumulated) : g];
          backward.run(operands, [dx], { rows, cols }, { ADDS: Number(accumulated !== null) });
          return dx;
        })),
      wrtAll([weight, bias], [input, stats], (g) =>
        scope(() => {
          const chunk = chunkOf(rows, cols);
          const chunks = Math.max(1, Math.ceil(rows / chunk));
          const sums = [Tensor.empty([chunks, cols]), Tensor.empty([chunks, cols])];
          weightsKernel.run([input, stats, contiguous(g)], sums, cols, chunks, {
            rows,
            chunk,
          });
          return sums.map((sum) =>
            (chunks === 1 ? sum : reduceMiddle(sum, 1, chunks, cols, "sum")).view(normalized)
          );
        })),
    ]);
  });
}
