/**
 * Matrix products.
 *
 * @module
 */

import { multiply } from "../../kernels/matmul.ts";
import { scope } from "../../tensor/scope.ts";
import { numel } from "../../tensor/shape.ts";
import { checkFloats, checkReadable, type Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { sumTo } from "./reduce.ts";
import { reshape, squeeze, transpose, unsqueeze } from "./view.ts";

/**
 * Matrix product over the last two axes, the leading ones broadcast:
 * `[…, m, k] × […, k, n] → […, m, n]`. A vector `[k]` is a row on the left and a column on the
 * right, and adds no axis to the result. Transposed views are read without a copy. The right
 * operand may be a frozen weight in f16; the arithmetic is in f32 all the same.
 *
 * @throws {TypeError} If the left operand is not f32, or the right one neither f32 nor f16.
 * @throws {RangeError} If the inner sizes differ, or the leading axes do not broadcast.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.dtype === "f16") {
    throw new TypeError(
      `Cannot matmul f16 [${a.shape}] with [${b.shape}]: only the right operand may be f16`,
    );
  }
  checkFloats("matmul", a);
  checkReadable("matmul", b);
  if (a.shape.length === 1 && b.shape.length > 0) {
    return scope(() => squeeze(matmul(unsqueeze(a, 0), b), b.shape.length > 1 ? -2 : 0));
  }
  if (b.shape.length === 1 && a.shape.length > 0) {
    return scope(() => squeeze(matmul(a, unsqueeze(b, 1)), -1));
  }
  if (a.shape.length > 2 && b.shape.length === 2 && a.shape.at(-1) === b.shape[0]) {
    // One tall product replaces a batch of products. The gradient of b is then one product too, not
    // a batch of gradients to be summed.
    return scope(() => {
      const rows = numel(a.shape.slice(0, -1));
      const flat = matmul(reshape(a, [rows, b.shape[0]]), b);
      return reshape(flat, [...a.shape.slice(0, -1), b.shape[1]]);
    });
  }
  const [aShape, bShape] = [a.shape, b.shape];
  return record(scope(() => multiply(a, b)), [
    wrt(a, [b], (g) => scope(() => sumTo(multiply(g, transpose(b)), aShape))),
    wrt(b, [a], (g) => scope(() => sumTo(multiply(transpose(a), g), bShape))),
  ]);
}
