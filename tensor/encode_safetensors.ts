/**
 * Writes the safetensors format.
 *
 * @module
 */

import { beyondHalf, floatsToHalves, roundedShift } from "./half.ts";
import { LENGTH_BYTES } from "./safetensors.ts";
import { numel, type Shape } from "./shape.ts";
import { elementBytes } from "./tensor_file.ts";

/** A tensor to be written. */
export interface TensorToSave {
  /** How its elements are stored; F16 and BF16 round f32 to the nearest, ties to even. */
  readonly dtype: "F32" | "F16" | "BF16" | "I64" | "I32" | "U8";
  /** The size of each axis. */
  readonly shape: Shape;
  /** Its elements, row-major. */
  readonly data: ArrayLike<number>;
}

/**
 * A safetensors file of the given tensors: the same content gives the same bytes. As in the
 * reference implementation, names are sorted, and tensors of wider elements come first in the file,
 * so that each tensor begins at a multiple of its element's size.
 *
 * @throws {RangeError} If elements do not fill their tensor's shape, or do not fit its dtype.
 */
export function encodeSafetensors(
  tensors: Readonly<Record<string, TensorToSave>>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const sorted = byName(tensors);
  for (const [name, tensor] of sorted) checkTensor(name, tensor);
  const size = ({ dtype }: TensorToSave) => elementBytes(dtype);
  const starts = new Map<string, number>();
  let end = 0;
  for (const [name, tensor] of sorted.toSorted(([, a], [, b]) => size(b) - size(a))) {
    starts.set(name, end);
    end += tensor.data.length * size(tensor);
  }
  const entries = sorted.map(([name, tensor]) => {
    const start = starts.get(name)!;
    const data_offsets = [start, start + tensor.data.length * size(tensor)];
    return [name, { dtype: tensor.dtype, shape: tensor.shape, data_offsets }] as const;
  });
  const notes = Object.fromEntries(byName(metadata));
  const header = Object.fromEntries<unknown>(
    Object.keys(notes).length ? [["__metadata__", notes], ...entries] : entries,
  );
  const json = new TextEncoder().encode(JSON.stringify(header));
  // Spaces after the header, so that the tensors begin at a multiple of 8.
  const data = LENGTH_BYTES + Math.ceil(json.length / 8) * 8;
  const file = new Uint8Array(data + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(data - LENGTH_BYTES), true);
  file.fill(0x20, LENGTH_BYTES, data).set(json, LENGTH_BYTES);
  for (const [name, tensor] of sorted) store(tensor, file.buffer, data + starts.get(name)!);
  return file;
}

function byName<T>(record: Readonly<Record<string, T>>): [string, T][] {
  return Object.entries(record).sort(([a], [b]) => a < b ? -1 : 1);
}

const integerWithin = (least: number, most: number) => (value: number) =>
  Number.isInteger(value) && value >= least && value <= most;

/** Whether a finite number stays finite as the nearest bfloat16. */
const isBfloat16 = (value: number) => Math.abs(Math.fround(value)) < (2 - 2 ** -8) * 2 ** 127;

/**
 * Whether a dtype can hold an element. An integer must be in range, for I64 in the range that a
 * number holds exactly; a finite float must stay finite.
 */
const FITS: Readonly<Record<TensorToSave["dtype"], (value: number) => boolean>> = {
  F32: (value) => Number.isFinite(Math.fround(value)) || !Number.isFinite(value),
  F16: (value) => !beyondHalf(value),
  BF16: (value) => isBfloat16(value) || !Number.isFinite(value),
  I64: integerWithin(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  I32: integerWithin(-(2 ** 31), 2 ** 31 - 1),
  U8: integerWithin(0, 255),
};

function checkTensor(name: string, { dtype, shape, data }: TensorToSave): void {
  if (name === "__metadata__") {
    throw new RangeError(`Cannot save "${name}": the format has this name for its metadata`);
  }
  if (data.length !== numel(shape)) {
    throw new RangeError(
      `Cannot save "${name}" of shape [${shape}]: it has ${data.length} elements`,
    );
  }
  if (dtype === "F32" && data instanceof Float32Array) return;
  const fits = FITS[dtype];
  for (let i = 0; i < data.length; i++) {
    if (fits(data[i])) continue;
    throw new RangeError(`Cannot save "${name}" as ${dtype}: element ${i} is ${data[i]}`);
  }
}

function store({ dtype, data }: TensorToSave, file: ArrayBuffer, at: number): void {
  switch (dtype) {
    case "F32":
      return new Float32Array(file, at, data.length).set(data);
    case "I32":
      return new Int32Array(file, at, data.length).set(data);
    case "U8":
      return new Uint8Array(file, at, data.length).set(data);
    case "I64": {
      const stored = new BigInt64Array(file, at, data.length);
      for (let i = 0; i < stored.length; i++) stored[i] = BigInt(data[i]);
      return;
    }
  }
  const floats = data instanceof Float32Array ? data : Float32Array.from(data);
  const stored = new Uint16Array(file, at, data.length);
  if (dtype === "F16") return floatsToHalves(floats, stored);
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  for (let i = 0; i < stored.length; i++) stored[i] = toBfloat16(bits[i]);
}

/** The bits of the bfloat16 nearest to the f32 of the given bits, ties to even. */
function toBfloat16(bits: number): number {
  const isNan = (bits & 0x7fffffff) > 0x7f800000;
  return isNan ? bits >>> 16 | 0x40 : roundedShift(bits, 16);
}
