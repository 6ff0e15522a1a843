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

/** A source of an array's bytes. */
export function bytesSource(bytes: Uint8Array<ArrayBuffer>, name = "safetensors"): ByteSource {
  return {
    name,
    size: bytes.length,
    read: (offset, length) => Promise.resolve(bytes.slice(offset, offset + length)),
  };
}

/**
 * The `length` bytes of a source from `offset` on. They begin at a multiple of 8 bytes in their
 * buffer, so that elements of any size can be viewed there.
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

/** A file of named tensors. All of it but the tensors' elements has been read and checked. */
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
   * The elements that `floats` gives, in pieces of at most `pieceBytes` bytes of the file. `start`
   * is the index of a piece's first element.
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
  /** The type of its elements. */
  readonly dtype: SafetensorsDtype;
  /** The size of each axis. */
  readonly shape: Shape;
}

/** The type of an element in a file. */
export type SafetensorsDtype =
  | ("F64" | "F32" | "F16" | "BF16")
  | ("I64" | "I32" | "I16" | "I8")
  | ("U64" | "U32" | "U16" | "U8" | "BOOL");

/** A typed array's constructor, which views bytes as elements. */
interface ElementArray {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer, offset: number, length: number): ArrayLike<number | bigint>;
}

/**
 * The typed array that views the elements of each dtype. F16 and BF16 are viewed as their bits: not
 * every JavaScript engine has an array for them.
 */
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

/** Views bytes as elements; F16 and BF16 as their bits. */
export function elementsOf(
  { buffer, byteOffset, length }: Uint8Array<ArrayBuffer>,
  dtype: SafetensorsDtype,
): ArrayLike<number | bigint> {
  return new ARRAYS[dtype](buffer, byteOffset, length / elementBytes(dtype));
}

/** Bytes of a piece of a file by default. */
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

/**
 * A name from a file as errors show it: in quotes and cut short, since a file may hold any name.
 */
export function titleOf(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}

/** bfloat16 from its bits: the upper halves of f32. */
function bfloat16ToFloat32(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(halves.length);
  for (let i = 0; i < bits.length; i++) bits[i] = halves[i] << 16;
  return new Float32Array(bits.buffer);
}
