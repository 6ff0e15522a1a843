/**
 * The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes
 * (github.com/huggingface/safetensors, README.md).
 *
 * @module
 */

import { numel, type Shape } from "./shape.ts";

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

/** What an element of a tensor in a file is. */
export type SafetensorsDtype =
  | ("F64" | "F32" | "F16" | "BF16")
  | ("I64" | "I32" | "I16" | "I8")
  | ("U64" | "U32" | "U16" | "U8" | "BOOL");

/** Bytes of an element of each dtype. */
const DTYPE_BYTES: Readonly<Record<SafetensorsDtype, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
};

/** Where a tensor is in its file. */
export interface TensorInfo {
  /** Its name. */
  readonly name: string;
  /** What its elements are. */
  readonly dtype: SafetensorsDtype;
  /** The size of each axis. */
  readonly shape: Shape;
  /** Its first byte, from the start of the file. */
  readonly offset: number;
  /** How many bytes it has. */
  readonly bytes: number;
}

const LENGTH_BYTES = 8;
const MAX_HEADER_BYTES = 100e6;
const PIECE_BYTES = 16 * 2 ** 20;

/** A safetensors file whose header has been read and checked. */
export class SafetensorsFile {
  /** The tensors, by name. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** What `__metadata__` says. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly #source: ByteSource;

  private constructor(
    source: ByteSource,
    tensors: Map<string, TensorInfo>,
    metadata: Record<string, string>,
  ) {
    this.#source = source;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /**
   * Reads the header, nothing else.
   *
   * @throws {RangeError} If the file is truncated, or its header is not one of a safetensors file.
   */
  static async open(source: ByteSource): Promise<SafetensorsFile> {
    const fail = (why: string) => new RangeError(`Cannot read ${source.name}: ${why}`);
    if (source.size < LENGTH_BYTES) {
      throw fail(`${source.size} bytes are too few for a safetensors file`);
    }
    const prefix = await source.read(0, LENGTH_BYTES);
    const length = Number(new DataView(prefix.buffer).getBigUint64(0, true));
    if (length > MAX_HEADER_BYTES) {
      throw fail(`its header claims ${length} bytes, it is no safetensors file`);
    }
    if (LENGTH_BYTES + length > source.size) {
      throw fail(
        `it is truncated, its header claims ${length} bytes and the file has ${source.size}`,
      );
    }
    let header: unknown;
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(
        await source.read(LENGTH_BYTES, length),
      );
      header = JSON.parse(text);
    } catch {
      throw fail("its header is not JSON");
    }
    if (typeof header !== "object" || header === null || Array.isArray(header)) {
      throw fail("its header is not a JSON object");
    }
    const { __metadata__: metadata = {}, ...entries } = header as Record<string, unknown>;
    const start = LENGTH_BYTES + length;
    const infos = Object.entries(entries).map(([name, entry]) =>
      describe(name, entry, start, fail)
    );
    let end = start;
    for (
      const { name, offset, bytes } of infos.toSorted((a, b) =>
        a.offset - b.offset || a.bytes - b.bytes
      )
    ) {
      if (offset < end) throw fail(`tensor "${name}" overlaps the one before it`);
      if (offset > end) {
        throw fail(`there is a hole of ${offset - end} bytes before tensor "${name}"`);
      }
      end = offset + bytes;
    }
    if (end > source.size) {
      throw fail(
        `it is truncated, its header promises ${end} bytes and the file has ${source.size}`,
      );
    }
    if (end < source.size) throw fail(`${source.size - end} bytes follow its last tensor`);
    return new SafetensorsFile(
      source,
      new Map(infos.map((info) => [info.name, info])),
      metadata as Record<string, string>,
    );
  }

  /**
   * A tensor's bytes.
   *
   * @throws {RangeError} If there is no such tensor.
   */
  bytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const { offset, bytes } = this.#info(name);
    return this.#source.read(offset, bytes);
  }

  /** A tensor's elements as f32: F32, F16, BF16 or F64. */
  async floats(name: string): Promise<Float32Array<ArrayBuffer>> {
    return toFloats(await this.bytes(name), this.#info(name), this.#source.name);
  }

  /** A tensor's elements as i32: whole numbers of any width, and BOOL. */
  async integers(name: string): Promise<Int32Array<ArrayBuffer>> {
    return toIntegers(await this.bytes(name), this.#info(name), this.#source.name);
  }

  /** A tensor's elements as f32 in pieces, with the number of each piece's first element. */
  async *pieces(
    name: string,
    pieceBytes: number = PIECE_BYTES,
  ): AsyncGenerator<{ start: number; values: Float32Array<ArrayBuffer> }> {
    const info = this.#info(name);
    const size = DTYPE_BYTES[info.dtype];
    const step = Math.max(1, Math.floor(pieceBytes / size)) * size;
    for (let at = 0; at < info.bytes; at += step) {
      const bytes = await this.#source.read(info.offset + at, Math.min(step, info.bytes - at));
      yield { start: at / size, values: toFloats(bytes, info, this.#source.name) };
    }
  }

  #info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (!info) throw new RangeError(`Cannot find "${name}" in ${this.#source.name}`);
    return info;
  }
}

function describe(
  name: string,
  entry: unknown,
  start: number,
  fail: (why: string) => Error,
): TensorInfo {
  const { dtype, shape, data_offsets } = (entry ?? {}) as Record<string, unknown>;
  const count = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    throw fail(`tensor "${name}" has dtype ${JSON.stringify(dtype)}, which is not known`);
  }
  if (!Array.isArray(shape) || !shape.every(count)) {
    throw fail(`tensor "${name}" has no proper shape`);
  }
  if (!Array.isArray(data_offsets) || data_offsets.length !== 2 || !data_offsets.every(count)) {
    throw fail(`tensor "${name}" has no proper data_offsets`);
  }
  const [from, to] = data_offsets;
  const bytes = numel(shape) * DTYPE_BYTES[dtype as SafetensorsDtype];
  if (to - from !== bytes) {
    throw fail(
      `tensor "${name}" is ${dtype} [${shape}], which takes ${bytes} bytes, and holds ${to - from}`,
    );
  }
  return { name, dtype: dtype as SafetensorsDtype, shape, offset: start + from, bytes };
}

function toFloats(
  bytes: Uint8Array<ArrayBuffer>,
  { name, dtype }: TensorInfo,
  file: string,
): Float32Array<ArrayBuffer> {
  switch (dtype) {
    case "F32":
      return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    case "F64":
      return Float32Array.from(new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8));
    case "F16":
      return halvesToFloats(new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2));
    case "BF16": {
      const bits = new Uint32Array(bytes.length / 2);
      new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2).forEach((half, i) =>
        bits[i] = half << 16
      );
      return new Float32Array(bits.buffer);
    }
  }
  throw new TypeError(`Cannot read "${name}" of ${file} as floats: it is ${dtype}`);
}

function toIntegers(
  bytes: Uint8Array<ArrayBuffer>,
  { name, dtype }: TensorInfo,
  file: string,
): Int32Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const readers: Partial<Record<SafetensorsDtype, (at: number) => number>> = {
    I64: (at) => Number(view.getBigInt64(at, true)),
    U64: (at) => Number(view.getBigUint64(at, true)),
    I32: (at) => view.getInt32(at, true),
    U32: (at) => view.getUint32(at, true),
    I16: (at) => view.getInt16(at, true),
    U16: (at) => view.getUint16(at, true),
    I8: (at) => view.getInt8(at),
    U8: (at) => view.getUint8(at),
    BOOL: (at) => view.getUint8(at),
  };
  const read = readers[dtype];
  if (!read) throw new TypeError(`Cannot read "${name}" of ${file} as integers: it is ${dtype}`);
  const size = DTYPE_BYTES[dtype];
  return Int32Array.from({ length: bytes.length / size }, (_, i) => {
    const value = read(i * size);
    if (value === (value | 0)) return value;
    throw new RangeError(`Cannot read "${name}" of ${file} as i32: element ${i} is ${value}`);
  });
}

/** Half-precision numbers as f32, exactly: a table of all of them, made at the first use. */
function halvesToFloats(halves: Uint16Array): Float32Array<ArrayBuffer> {
  halfTable ??= Float32Array.from({ length: 65536 }, (_, bits) => {
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, bits >> 10 & 31, bits & 1023];
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
  });
  const floats = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) floats[i] = halfTable[halves[i]];
  return floats;
}
let halfTable: Float32Array | undefined;

/** The bits of the nearest half-precision number, of two equally near ones the even. */
function toHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  // Steps of the numbers around this one: a power of two, from 2⁻²⁴ on.
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const steps = size / 2 ** (exponent - 10);
  const whole = Math.floor(steps);
  const rest = steps - whole;
  const rounded = whole + (rest > 0.5 || (rest === 0.5 && whole % 2 === 1) ? 1 : 0);
  return sign | (exponent + 14) * 1024 + rounded;
}

const bitsOf = new Uint32Array(1);
const floatOf = new Float32Array(bitsOf.buffer);

/** The bits of the nearest bfloat16 number, of two equally near ones the even. */
function toBrain(value: number): number {
  floatOf[0] = value;
  const bits = bitsOf[0];
  if (Number.isNaN(value)) return 0x7fc0;
  return (bits + 0x7fff + (bits >>> 16 & 1)) >>> 16;
}

/** A tensor to be written. */
export interface TensorToSave {
  /** How its elements are stored; floats are rounded to F16 and BF16. */
  readonly dtype: "F32" | "F16" | "BF16" | "I64" | "I32" | "U8";
  /** The size of each axis. */
  readonly shape: Shape;
  /** Its elements, row-major. */
  readonly data: ArrayLike<number>;
}

/**
 * A safetensors file of the given tensors, in the order of their names, the same bytes for the same content.
 *
 * @throws {RangeError} If the elements of a tensor do not fill its shape.
 */
export function encodeSafetensors(
  tensors: Readonly<Record<string, TensorToSave>>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  const names = Object.keys(tensors).sort();
  const header: Record<string, unknown> = Object.keys(metadata).length
    ? { __metadata__: metadata }
    : {};
  let end = 0;
  for (const name of names) {
    const { dtype, shape, data } = tensors[name];
    if (data.length !== numel(shape)) {
      throw new RangeError(
        `Cannot save "${name}" of shape [${shape}]: it has ${data.length} elements`,
      );
    }
    const start = end;
    end += data.length * DTYPE_BYTES[dtype];
    header[name] = { dtype, shape, data_offsets: [start, end] };
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  // Spaces after the header, so that the tensors begin at a multiple of 8.
  const length = Math.ceil(json.length / 8) * 8;
  const file = new Uint8Array(LENGTH_BYTES + length + end).fill(
    0x20,
    LENGTH_BYTES,
    LENGTH_BYTES + length,
  );
  new DataView(file.buffer).setBigUint64(0, BigInt(length), true);
  file.set(json, LENGTH_BYTES);
  let at = LENGTH_BYTES + length;
  for (const name of names) {
    const stored = store(tensors[name]);
    file.set(stored, at);
    at += stored.length;
  }
  return file;
}

function store({ dtype, data }: TensorToSave): Uint8Array<ArrayBuffer> {
  const numbers = Array.isArray(data) || ArrayBuffer.isView(data) ? data : Array.from(data);
  const values = numbers as number[];
  const array = dtype === "F32"
    ? Float32Array.from(values)
    : dtype === "F16"
    ? Uint16Array.from(values, toHalf)
    : dtype === "BF16"
    ? Uint16Array.from(values, toBrain)
    : dtype === "I64"
    ? BigInt64Array.from(Array.from(values, BigInt))
    : dtype === "I32"
    ? Int32Array.from(values)
    : Uint8Array.from(values);
  return new Uint8Array(array.buffer);
}
