/**
 * Constant tensors, made by a kernel: an upload would cost a submit.
 *
 * @module
 */

import { pointwise } from "../../kernels/pointwise.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Dtype, Tensor } from "../../tensor/tensor.ts";

/** A tensor of `shape` filled with `value`. */
export function full(shape: Shape, value: number, dtype: Dtype = "f32"): Tensor {
  return pointwise(dtype === "f32" ? "value" : `${dtype}(value)`, { value }, shape, dtype);
}

/** A tensor of `shape` filled with 0. */
export function zeros(shape: Shape, dtype: Dtype = "f32"): Tensor {
  return full(shape, 0, dtype);
}

/** A tensor of `shape` filled with 1. */
export function ones(shape: Shape, dtype: Dtype = "f32"): Tensor {
  return full(shape, 1, dtype);
}
