/**
 * Files of named tensors, whatever their format.
 *
 * @module
 */

import { halvesToFloats } from "./half.ts";
import type { Shape } from "./shape.ts";

/** Bytes at rest: a file, a Blob, an array. */
export interface ByteSource {
  /** What errors call it. */
  readonly name: string;
  /** How many bytes there are. */
  readonly size: number;
  /** Copies `length` bytes from `offset` on. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

/** An array as a source. */
export function bytesSource(bytes: Uint8Array<ArrayBuffer>, name = "safetensors"): ByteSource {
  return {
    name,
    size: bytes.length,
    read: (offset, length) => Promise.resolve(bytes.slice(offset, offset + length)),
  };
}

/**
 * All that was asked for, where a view of elements of any size may begin.
 *
 * @throws {RangeError} If the source gives another number of bytes.
 */
export async function readExactly(
  source: ByteSource,
  offset: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await source.read(offset, length);
  if (bytes.length === length) return bytes.byteOffset % 8 === 0 ? bytes : bytes.slice();
  throw new RangeError(
    `Cannot read ${source.name}: it gave ${bytes.length} of ${length} bytes from ${offset} on`,
  );
}

/** A file of named tensors, of which all but their elements has been read and checked. */
export interface TensorFile {
  /** What errors call it. */
  readonly name: string;
  /** The tensors, by name. */
  readonly tensors: ReadonlyMap<string, TensorDescription>;
  /** A tensor's bytes, row-major, little-endian. */
  bytes(name: string): Promise<Uint8Array<ArrayBuffer>>;
  /** A tensor's elements as f32, row-major. */
  floats(name: string): Promise<Float32Array<ArrayBuffer>>;
  /**
   * The same, in pieces of at most `pieceBytes` of the file; `start` is the number of a piece's
   * first element.
   */
  pieces(
    name: string,
    pieceBytes?: number,
  ): AsyncGenerator<{ start: number; values: Float32Array<ArrayBuffer> }>;
}

/** What a file says of a tensor. */
export interface TensorDescription {
  /** Its name. */
  readonly name: string;
  /** What its elements are. */
  readonly dtype: SafetensorsDtype;
  /** The size of each axis. */
  readonly shape: Shape;
}

/** What an element of a tensor in a file is. */
export type SafetensorsDtype =
  | ("F64" | "F32" | "F16" | "BF16")
  | ("I64" | "I32" | "I16" | "I8")
  | ("U64" | "U32" | "U16" | "U8" | "BOOL");

/** An array of some element, as a view of bytes. */
interface ElementArray {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer, offset: number, length: number): ArrayLike<number | bigint>;
}

/** What views the elements of each dtype; of F16 and BF16, which not every engine has, the bits. */
const ARRAYS: Readonly<Record<SafetensorsDtype, ElementArray>> = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U64: BigUint64Array,
  U32: Uint32Array,
  U16: Uint16Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
};

/** The dtypes that a file can have. */
export const DTYPES = Object.keys(ARRAYS) as readonly SafetensorsDtype[];

/** How many bytes an element has. */
export function elementBytes(dtype: SafetensorsDtype): number {
  return ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/** Bytes as elements; of F16 and BF16 the bits. */
export function elementsOf(
  { buffer, byteOffset, length }: Uint8Array<ArrayBuffer>,
  dtype: SafetensorsDtype,
): ArrayLike<number | bigint> {
  return new ARRAYS[dtype](buffer, byteOffset, length / elementBytes(dtype));
}

/** Pieces of a file are of so many bytes where nothing else is asked for. */
export const PIECE_BYTES: number = 16 * 2 ** 20;

/**
 * A tensor's bytes, or some of them, as f32: F32, F16 and BF16 exactly, F64 rounded.
 *
 * @throws {RangeError} If an element is beyond f32.
 * @throws {TypeError} If its elements are no floats.
 */
export function toFloats(
  bytes: Uint8Array<ArrayBuffer>,
  { name, dtype }: TensorDescription,
  file: string,
): Float32Array<ArrayBuffer> {
  const elements = elementsOf(bytes, dtype);
  switch (dtype) {
    case "F32":
      return elements as Float32Array<ArrayBuffer>;
    case "F64": {
      const floats = new Float32Array(elements as Float64Array);
      const at = floats.findIndex((value, i) =>
        !Number.isFinite(value) && Number.isFinite(elements[i])
      );
      if (at < 0) return floats;
      throw new RangeError(
        `Cannot read ${titleOf(name)} of ${file} as f32: element ${at} is ${elements[at]}`,
      );
    }
    case "F16":
      return halvesToFloats(elements as Uint16Array);
    case "BF16":
      return bfloat16ToFloat32(elements as Uint16Array);
  }
  throw new TypeError(`Cannot read ${titleOf(name)} of ${file} as floats: it is ${dtype}`);
}

/** A name out of a file as errors show it: there may be anything in it, and any amount. */
export function titleOf(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}

/** bfloat16 from its bits: the upper halves of f32. */
function bfloat16ToFloat32(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < bits.length; i++) bits[i] = halves[i] << 16;
  return new Float32Array(bits.buffer);
}
