/**
 * Matrix products and affine layers.
 *
 * @module
 */

import { multiply } from "../../kernels/matmul.ts";
import { scope } from "../../tensor/scope.ts";
import { numel } from "../../tensor/shape.ts";
import { checkFloats, checkReadable, type Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { add } from "./pointwise.ts";
import { sumTo } from "./reduce.ts";
import { permute, reshape, slice, squeeze, transpose, unsqueeze } from "./view.ts";

/**
 * Matrix product over the last two axes, the leading ones broadcast: `[…, m, k] × […, k, n] → […, m, n]`. A vector `[k]`
 * is a row on the left and a column on the right, and adds no axis to the result. Transposed operands are read in place.
 * The right operand may be a frozen weight in f16; the arithmetic is in f32 all the same.
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
    // One tall product in place of a batch of them, and one for b's gradient in place of a batch to be summed.
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

/**
 * Affine layer `x Wᵀ + b`: `[…, in] → […, out]`, with `weight` `[out, in]` as in PyTorch's checkpoints.
 *
 * @throws {RangeError} If the inner sizes differ.
 */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  checkFloats("linear", x);
  checkReadable("linear", weight);
  const lead = x.shape.slice(0, -1);
  return scope(() => {
    const rows = lead.length === 1 ? x : reshape(x, [numel(lead), x.shape.at(-1) ?? 0]);
    // A rule of its own, not that of a product with a transpose: the weight's gradient then lies as the weight does.
    const y = record(scope(() => multiply(rows, transpose(weight))), [
      wrt(rows, [weight], (g) => multiply(g, weight)),
      wrt(weight, [rows], (g) => scope(() => multiply(transpose(g), rows))),
    ]);
    const whole = lead.length === 1 ? y : reshape(y, [...lead, weight.shape[0]]);
    return bias ? add(whole, bias) : whole;
  });
}

/**
 * The image cut into patches, each multiplied with `weight`: `[B, 3, H, W]` with `[C, 3, P, P]` to `[B, patches, C]`,
 * row by row. A convolution whose stride is its kernel's size; pixels beyond the last whole patch are ignored.
 *
 * @throws {RangeError} If the channels differ, or the patches are not square.
 */
export function patchEmbedding(images: Tensor, weight: Tensor): Tensor {
  const [batch, channels, height, width] = images.shape;
  const [embedding, depth, patch, across] = weight.shape;
  if (images.shape.length !== 4 || weight.shape.length !== 4) {
    throw new RangeError(
      `Cannot embed patches of [${images.shape}] by [${weight.shape}]: both need four axes`,
    );
  }
  if (channels !== depth || patch !== across || patch === 0) {
    throw new RangeError(
      `Cannot embed patches of [${images.shape}] by [${weight.shape}]: channels are ${channels} and ` +
        `${depth}, a patch is ${patch} by ${across}`,
    );
  }
  const [rows, cols] = [Math.floor(height / patch), Math.floor(width / patch)];
  return scope(() => {
    const whole = slice(slice(images, 2, 0, rows * patch), 3, 0, cols * patch);
    const split = reshape(whole, [batch, channels, rows, patch, cols, patch]);
    const patches = permute(split, [0, 2, 4, 1, 3, 5]); // [B, rows, cols, 3, P, P]
    const flat = reshape(patches, [batch, rows * cols, channels * patch * patch]);
    return matmul(flat, transpose(reshape(weight, [embedding, channels * patch * patch])));
  });
}
