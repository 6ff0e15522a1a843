/**
 * How a tensor begins on the host.
 *
 * @module
 */

import { floatsToHalves } from "./half.ts";
import { upload } from "./queue.ts";
import { checkShape, numel, sameShape, type Shape } from "./shape.ts";
import { ARRAY_OF, type Data, type Dtype, ELEMENT_BYTES, Tensor, wholeWords } from "./tensor.ts";

/** Numbers, in arrays nested as deep as the tensor has axes. */
export type Nested = number | readonly Nested[];

/**
 * A tensor with the given values: nested arrays give their own shape, a flat or typed array takes `shape`. Typed arrays
 * keep their dtype, numbers become f32; `"f16"` rounds them to the nearest half, ties to even.
 *
 * @example
 * ```ts
 * import { init, tensor } from "../mod.ts";
 * await init();
 * const x = tensor([[1, 2, 3], [4, 5, 6]]);
 * console.log(x.shape); // [2, 3]
 * x.release();
 * ```
 *
 * @throws {RangeError} If the values do not fill the shape, or nested arrays differ in length.
 */
export function tensor(values: Nested | Data, shape?: Shape, dtype?: Dtype): Tensor {
  const typed = ArrayBuffer.isView(values);
  const flat: ArrayLike<number> = typed ? values : flatten(values);
  const type = dtype ?? (typed ? dtypeOf(values) : "f32");
  const sizes = shape ?? (typed ? [values.length] : shapeOf(values));
  checkShape(sizes);
  if (flat.length !== numel(sizes)) {
    throw new RangeError(
      `Cannot make a tensor of shape [${sizes}] (${
        numel(sizes)
      } elements) from ${flat.length} values`,
    );
  }
  const data = typed && type === dtypeOf(values) ? values : ARRAY_OF[type].from(flat);
  return Tensor.on(upload(type === "f16" ? halvesOf(data) : data), sizes, type);
}

function halvesOf(data: Data): Uint16Array<ArrayBuffer> {
  const halves = new Uint16Array(wholeWords(ELEMENT_BYTES.f16 * data.length) / ELEMENT_BYTES.f16);
  floatsToHalves(Float32Array.from(data), halves);
  return halves;
}

function dtypeOf(values: Data): Dtype {
  return values instanceof Uint32Array ? "u32" : values instanceof Int32Array ? "i32" : "f32";
}

function flatten(values: Nested): number[] {
  return typeof values === "number" ? [values] : values.flatMap(flatten);
}

function shapeOf(values: Nested): Shape {
  if (typeof values === "number") return [];
  const [first = [], ...others] = values.map(shapeOf);
  if (!others.every((other) => sameShape(first, other))) {
    throw new RangeError("Cannot make a tensor from nested arrays that differ in length: pad them");
  }
  return [values.length, ...first];
}
