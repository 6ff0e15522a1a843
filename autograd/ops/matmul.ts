/**
 * Matrix products and affine layers.
 *
 * @module
 */

import { multiply } from "../../kernels/matmul.ts";
import { scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { add } from "./pointwise.ts";
import { sumTo } from "./reduce.ts";
import { permute, reshape, slice, transpose } from "./view.ts";

/**
 * Matrix product over the last two axes, the leading ones broadcast: `[…, m, k] × […, k, n] → […, m, n]`. Transposed
 * operands are read in place.
 *
 * @throws {RangeError} If the inner sizes differ, or the leading axes do not broadcast.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.shape.length > 2 && b.shape.length === 2 && a.shape.at(-1) === b.shape[0]) {
    // One tall product in place of a batch of them, and one for b's gradient in place of a batch to be summed.
    return scope(() => {
      const flat = matmul(reshape(a, [-1, a.shape.at(-1)!]), b);
      return reshape(flat, [...a.shape.slice(0, -1), b.shape[1]]);
    });
  }
  const [aShape, bShape] = [a.shape, b.shape];
  return record(scope(() => multiply(a, b)), [
    wrt(a, [b], (g) => scope(() => sumTo(multiply(g, transpose(b)), aShape))),
    wrt(b, [a], (g) => scope(() => sumTo(multiply(transpose(a), g), bShape))),
  ]);
}

/** Affine layer `x Wᵀ + b`: `[…, in] → […, out]`, with `weight` `[out, in]` as in PyTorch's checkpoints. */
export function linear(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  return scope(() => {
    const y = matmul(x, transpose(weight));
    return bias ? add(y, bias) : y;
  });
}

/**
 * The image cut into patches, each multiplied with `weight`: `[B, 3, H, W]` with `[C, 3, P, P]` to `[B, patches, C]`,
 * row by row. A convolution whose stride is its kernel's size; pixels beyond the last whole patch are ignored.
 */
export function patchEmbedding(images: Tensor, weight: Tensor): Tensor {
  const [batch, channels, height, width] = images.shape;
  const [embedding, , patch] = weight.shape;
  const [rows, cols] = [Math.floor(height / patch), Math.floor(width / patch)];
  return scope(() => {
    const whole = slice(slice(images, 2, 0, rows * patch), 3, 0, cols * patch);
    const split = reshape(whole, [batch, channels, rows, patch, cols, patch]);
    const patches = permute(split, [0, 2, 4, 1, 3, 5]); // [B, rows, cols, 3, P, P]
    const flat = reshape(patches, [batch, rows * cols, channels * patch * patch]);
    return matmul(flat, transpose(reshape(weight, [embedding, -1])));
  });
}
