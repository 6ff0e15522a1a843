/**
 * Constant tensors, made by a kernel: an upload would cost a submit.
 *
 * @module
 */

import { pointwise } from "../../kernels/pointwise.ts";
import { elementOf } from "../../tensor/create.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Dtype, Tensor } from "../../tensor/tensor.ts";

/**
 * A tensor of `shape` filled with `value`.
 *
 * @throws {RangeError} If the dtype cannot hold the value.
 * @throws {TypeError} If the value is no number, or the dtype is f16, which no kernel writes.
 */
export function full(shape: Shape, value: number, dtype: Dtype = "f32"): Tensor {
  const element = elementOf(value, dtype);
  if (dtype === "f32" || dtype === "f16") {
    return pointwise("value", { value: element }, shape, dtype);
  }
  // The integer is passed as its bits: f32 does not hold every integer exactly.
  const bits = BigInt.asUintN(32, BigInt(element));
  return pointwise(`bitcast<${dtype}>(value)`, { value: bits }, shape, dtype);
}

/** A tensor of `shape` filled with 0. */
export function zeros(shape: Shape, dtype: Dtype = "f32"): Tensor {
  return full(shape, 0, dtype);
}

/** A tensor of `shape` filled with 1. */
export function ones(shape: Shape, dtype: Dtype = "f32"): Tensor {
  return full(shape, 1, dtype);
}
