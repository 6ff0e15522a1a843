/**
 * Tensors made from values on the host.
 *
 * @module
 */

import { beyondHalf, floatsToHalves, LARGEST_HALF } from "./half.ts";
import { upload } from "./queue.ts";
import { checkShape, numel, sameShape, type Shape } from "./shape.ts";
import { ARRAY_OF, type Data, type Dtype, ELEMENT_BYTES, Tensor, wholeWords } from "./tensor.ts";

/** Any typed array, of numbers or of bigints. */
export type NumberArray =
  | (Float32Array | Float64Array)
  | (Int8Array | Int16Array | Int32Array)
  | (Uint8Array | Uint8ClampedArray | Uint16Array | Uint32Array)
  | (BigInt64Array | BigUint64Array);

/** Numbers, in arrays nested as deep as the tensor has axes; the innermost may be typed arrays. */
export type Nested = number | NumberArray | readonly Nested[];

/**
 * A tensor with the given values. Nested arrays imply a shape; a flat or typed array may be given
 * one as `shape`. Numbers become f32, and so do typed arrays of floats; typed arrays of integers
 * become i32 or u32. `"f16"` rounds to the nearest half, ties to even.
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
 * @throws {RangeError} If the values do not fill the shape, nested arrays differ in length, or a
 * value is beyond the dtype.
 * @throws {TypeError} If a value is no number.
 */
export function tensor(values: Nested, shape?: Shape, dtype?: Dtype): Tensor {
  const typed = isTyped(values);
  const flat = typed ? values : flatten(values);
  const type = dtype ?? (typed ? dtypeOf(values) : "f32");
  if (!Object.hasOwn(ARRAY_OF, type)) {
    throw new TypeError(
      `Cannot make a tensor of ${type}: a dtype is one of ${Object.keys(ARRAY_OF).join(", ")}`,
    );
  }
  const sizes = shape ?? (typed ? [values.length] : shapeOf(values));
  checkShape(sizes);
  if (flat.length !== numel(sizes)) {
    throw new RangeError(
      `Cannot make a tensor of shape [${sizes}] (${
        numel(sizes)
      } elements) from ${flat.length} values`,
    );
  }
  const data = elementsOf(flat, type);
  return Tensor.on(upload(type === "f16" ? halvesOf(data) : data), sizes, type);
}

/** Whether a dtype can hold a number: not if it is finite and would be rounded to infinity. */
const RANGES: Readonly<Record<Dtype, (value: number) => boolean>> = {
  f32: (value) => Number.isFinite(Math.fround(value)) || !Number.isFinite(value),
  f16: (value) => !beyondHalf(value),
  u32: (value) => value >>> 0 === value,
  i32: (value) => (value | 0) === value,
};

const WORDS: Readonly<Record<Dtype, string>> = {
  f32: "the largest is 3.4028235e38",
  f16: `the largest is ${LARGEST_HALF}`,
  u32: "it takes integers from 0 to 2³² - 1",
  i32: "it takes integers from -2³¹ to 2³¹ - 1",
};

/**
 * A value as an element of `dtype`.
 *
 * @throws {RangeError} If the dtype cannot hold the value.
 * @throws {TypeError} If the value is no number.
 */
export function elementOf(value: unknown, dtype: Dtype): number {
  if (typeof value !== "number" && typeof value !== "bigint") {
    const shown = typeof value === "string" ? JSON.stringify(value) : String(value);
    throw new TypeError(
      `Cannot make a tensor with ${shown}: its elements are numbers, 1 and 0 for true and false`,
    );
  }
  const number = Number(value);
  if (RANGES[dtype](number)) return number;
  throw new RangeError(`Cannot make a tensor of ${dtype} with ${value}: ${WORDS[dtype]}`);
}

function elementsOf(values: ArrayLike<unknown>, dtype: Dtype): Data {
  const Elements = ARRAY_OF[dtype];
  if (values instanceof Elements) {
    const stray = dtype === "f16" ? (values as Float32Array).find(beyondHalf) : undefined;
    if (stray !== undefined) elementOf(stray, dtype);
    return values as Data;
  }
  const elements = new Elements(values.length);
  for (let i = 0; i < elements.length; i++) elements[i] = elementOf(values[i], dtype);
  return elements;
}

function halvesOf(data: Data): Uint16Array<ArrayBuffer> {
  const halves = new Uint16Array(wholeWords(ELEMENT_BYTES.f16 * data.length) / ELEMENT_BYTES.f16);
  floatsToHalves(data as Float32Array, halves);
  return halves;
}

function isTyped(values: unknown): values is NumberArray {
  return ArrayBuffer.isView(values) && !(values instanceof DataView);
}

function dtypeOf(values: NumberArray): Dtype {
  // By the array's name: not every JavaScript engine has a Float16Array.
  const name = Object.prototype.toString.call(values); // [object Float32Array]
  return name.includes("Float") ? "f32" : name.includes("Int") ? "i32" : "u32";
}

function flatten(values: unknown): unknown[] {
  if (Array.isArray(values)) {
    // Array.from() turns holes into undefined, which is refused; flatMap() alone would skip them.
    return Array.from(values as unknown[]).flatMap(flatten);
  }
  if (isTyped(values)) return Array.from(values as Iterable<unknown>);
  if (typeof values === "object" && values !== null) {
    throw new TypeError(
      `Cannot make a tensor of ${
        Object.prototype.toString.call(values)
      }: give numbers, arrays of them or a typed array`,
    );
  }
  return [values];
}

function shapeOf(values: unknown): Shape {
  if (isTyped(values)) return [values.length];
  if (!Array.isArray(values)) return [];
  const [first = [], ...rest] = Array.from(values, shapeOf);
  if (!rest.every((other) => sameShape(first, other))) {
    throw new RangeError("Cannot make a tensor from nested arrays that differ in length: pad them");
  }
  return [values.length, ...first];
}
