/**
 * The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors'
 * bytes (github.com/huggingface/safetensors, README.md).
 *
 * @module
 */

import { beyondHalf, floatsToHalves, roundedShift } from "./half.ts";
import { numel, type Shape } from "./shape.ts";
import {
  type ByteSource,
  DTYPES,
  elementBytes,
  elementsOf,
  PIECE_BYTES,
  readExactly,
  type SafetensorsDtype,
  type TensorDescription,
  type TensorFile,
  toFloats,
} from "./tensor_file.ts";

/** A tensor, and where it is in its file. */
export interface TensorInfo extends TensorDescription {
  /** Its first byte, from the start of the file. */
  readonly offset: number;
  /** How many bytes it has. */
  readonly bytes: number;
}

const LENGTH_BYTES = 8;
const MAX_HEADER_BYTES = 100e6;

/** A safetensors file whose header has been read and checked. */
export class SafetensorsFile implements TensorFile {
  /** The tensors, by name. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** What `__metadata__` says. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly #source: ByteSource;

  private constructor(
    source: ByteSource,
    tensors: ReadonlyMap<string, TensorInfo>,
    metadata: Readonly<Record<string, string>>,
  ) {
    this.#source = source;
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /**
   * Reads the header, nothing else, and checks it as the reference implementation does: the tensors
   * fill the file, without holes and overlaps.
   *
   * @throws {RangeError} If the file is truncated, or is no proper safetensors file.
   */
  static async open(source: ByteSource): Promise<SafetensorsFile> {
    const fail = (why: string) => new RangeError(`Cannot read ${source.name}: ${why}`);
    if (source.size < LENGTH_BYTES) {
      throw fail(`${source.size} bytes are too few for a safetensors file`);
    }
    const prefix = await readExactly(source, 0, LENGTH_BYTES);
    const length = Number(new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true));
    if (length > MAX_HEADER_BYTES) {
      throw fail(`its header claims ${length} bytes, it is no safetensors file`);
    }
    const start = LENGTH_BYTES + length;
    if (start > source.size) {
      throw fail(
        `it is truncated, its header claims ${length} bytes and the file has ${source.size}`,
      );
    }
    const header = parseHeader(await readExactly(source, LENGTH_BYTES, length), fail);
    const { __metadata__: metadata, ...entries } = header;
    const infos = Object.entries(entries).map(([name, entry]) =>
      describe(name, entry, start, fail)
    );
    checkLayout(infos, start, source.size, fail);
    return new SafetensorsFile(
      source,
      new Map(infos.map((info) => [info.name, info])),
      checkMetadata(metadata ?? {}, fail),
    );
  }

  /** What errors call the file. */
  get name(): string {
    return this.#source.name;
  }

  /**
   * A tensor's bytes, little-endian as they are in the file.
   *
   * @throws {RangeError} If there is no such tensor.
   */
  async bytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    const { offset, bytes } = this.#info(name);
    return await readExactly(this.#source, offset, bytes);
  }

  /**
   * A tensor's elements as f32: F32, F16 and BF16 exactly, F64 rounded.
   *
   * @throws {RangeError} If there is no such tensor, or an element is beyond f32.
   * @throws {TypeError} If its elements are no floats.
   */
  async floats(name: string): Promise<Float32Array<ArrayBuffer>> {
    return toFloats(await this.bytes(name), this.#info(name), this.name);
  }

  /**
   * A tensor's elements as i32: whole numbers of any width, and BOOL.
   *
   * @throws {RangeError} If there is no such tensor, or an element is beyond i32.
   * @throws {TypeError} If its elements are floats.
   */
  async integers(name: string): Promise<Int32Array<ArrayBuffer>> {
    return toIntegers(await this.bytes(name), this.#info(name), this.name);
  }

  /**
   * What {@linkcode SafetensorsFile.floats} gives, in pieces of at most `pieceBytes` of the file,
   * 16 MiB by default, never the whole. `start` is the number of a piece's first element.
   *
   * @throws {RangeError} If there is no such tensor.
   * @throws {TypeError} If its elements are no floats.
   */
  async *pieces(
    name: string,
    pieceBytes: number = PIECE_BYTES,
  ): AsyncGenerator<{ start: number; values: Float32Array<ArrayBuffer> }> {
    const info = this.#info(name);
    const size = elementBytes(info.dtype);
    const step = Math.max(1, Math.floor(pieceBytes / size)) * size;
    for (let at = 0; at < info.bytes; at += step) {
      const length = Math.min(step, info.bytes - at);
      const bytes = await readExactly(this.#source, info.offset + at, length);
      yield { start: at / size, values: toFloats(bytes, info, this.name) };
    }
  }

  #info(name: string): TensorInfo {
    const info = this.tensors.get(name);
    if (!info) throw new RangeError(`Cannot find "${name}" in ${this.name}`);
    return info;
  }
}

type Fail = (why: string) => RangeError;

function parseHeader(bytes: Uint8Array<ArrayBuffer>, fail: Fail): Record<string, unknown> {
  let text: string, header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch {
    throw fail("its header is not JSON");
  }
  if (!isObject(header)) throw fail("its header is not a JSON object");
  const twice = repeatedKey(text);
  if (twice !== undefined) throw fail(`its header has the key ${twice} twice`);
  return header;
}

/** A key that one object of a JSON text has twice, as written: `JSON.parse` just takes the last. */
function repeatedKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  for (const [token, key] of json.matchAll(KEYS_AND_BRACES)) {
    if (token === "{") open.push(new Set());
    else if (token === "}") open.pop();
    else if (key !== undefined) {
      const name = JSON.parse(key);
      if (open.at(-1)!.has(name)) return key;
      open.at(-1)!.add(name);
    }
  }
}

/** A string with a colon after it, a key; another, so that no brace within it counts; a brace. */
const KEYS_AND_BRACES = /("[^"\\]*(?:\\.[^"\\]*)*")\s*:|"[^"\\]*(?:\\.[^"\\]*)*"|[{}]/g;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkMetadata(metadata: unknown, fail: Fail): Readonly<Record<string, string>> {
  if (isObject(metadata) && Object.values(metadata).every((value) => typeof value === "string")) {
    return metadata as Record<string, string>;
  }
  throw fail("its __metadata__ is not an object of strings");
}

function describe(name: string, entry: unknown, start: number, fail: Fail): TensorInfo {
  const title = `tensor ${JSON.stringify(name)}`;
  if (!isObject(entry)) throw fail(`${title} is not described by a JSON object`);
  const { dtype, shape, data_offsets } = entry;
  const missing = ["dtype", "shape", "data_offsets"].find((key) => entry[key] === undefined);
  if (missing) throw fail(`${title} has no ${missing}`);
  if (!DTYPES.includes(dtype as SafetensorsDtype)) {
    throw fail(`${title} has dtype ${JSON.stringify(dtype)}, which is not known`);
  }
  if (!areCounts(shape)) {
    throw fail(`${title} has shape ${JSON.stringify(shape)}, sizes are whole numbers from 0 on`);
  }
  if (!areCounts(data_offsets) || data_offsets.length !== 2 || data_offsets[0] > data_offsets[1]) {
    throw fail(
      `${title} has data_offsets ${JSON.stringify(data_offsets)}, not a begin and an end from 0 on`,
    );
  }
  const [from, to] = data_offsets;
  const bytes = numel(shape) * elementBytes(dtype as SafetensorsDtype);
  if (to - from !== bytes) {
    throw fail(
      `${title} is ${dtype} [${shape}], which takes ${bytes} bytes, and holds ${to - from}`,
    );
  }
  return { name, dtype: dtype as SafetensorsDtype, shape, offset: start + from, bytes };
}

function areCounts(values: unknown): values is number[] {
  return Array.isArray(values) &&
    values.every((value) => Number.isSafeInteger(value) && value >= 0);
}

/** Throws unless the tensors, one after the other, fill the file from `start` to its end. */
function checkLayout(
  infos: readonly TensorInfo[],
  start: number,
  size: number,
  fail: Fail,
): void {
  let end = start;
  for (
    const { name, offset, bytes } of infos.toSorted((a, b) =>
      a.offset - b.offset || a.bytes - b.bytes
    )
  ) {
    const title = `tensor ${JSON.stringify(name)}`;
    if (offset < end) throw fail(`${title} overlaps the one before it`);
    if (offset > end) throw fail(`there is a hole of ${offset - end} bytes before ${title}`);
    end = offset + bytes;
  }
  if (end > size) {
    throw fail(`it is truncated, its header promises ${end} bytes and the file has ${size}`);
  }
  if (end < size) throw fail(`${size - end} bytes follow its last tensor`);
}

function toIntegers(
  bytes: Uint8Array<ArrayBuffer>,
  { name, dtype }: TensorInfo,
  file: string,
): Int32Array<ArrayBuffer> {
  if (/^B?F/.test(dtype)) {
    throw new TypeError(`Cannot read "${name}" of ${file} as integers: it is ${dtype}`);
  }
  const elements = elementsOf(bytes, dtype);
  const integers = new Int32Array(elements.length);
  for (let i = 0; i < integers.length; i++) {
    integers[i] = Number(elements[i]);
    if (integers[i] !== Number(elements[i])) {
      throw new RangeError(
        `Cannot read "${name}" of ${file} as i32: element ${i} is ${elements[i]}`,
      );
    }
  }
  return integers;
}

/** The bits of the bfloat16 nearest to the f32 of the given bits, ties to even. */
function toBfloat16(bits: number): number {
  const isNan = (bits & 0x7fffffff) > 0x7f800000;
  return isNan ? bits >>> 16 | 0x40 : roundedShift(bits, 16);
}

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
 * A safetensors file of the given tensors, the same bytes for the same content: names sorted, wider
 * elements first in the file, as the reference implementation lays them out, so that each tensor
 * begins at a multiple of its element.
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

const wholeWithin = (least: number, most: number) => (value: number) =>
  Number.isInteger(value) && value >= least && value <= most;

/** Whether a finite number stays one where the nearest of the bits above the lowest 16 of f32 is taken. */
const isBfloat16 = (value: number) => Math.abs(Math.fround(value)) < (2 - 2 ** -8) * 2 ** 127;

/** What elements may be: integers within their range, of I64 what a number holds exactly; floats that stay finite. */
const FITS: Readonly<Record<TensorToSave["dtype"], (value: number) => boolean>> = {
  F32: (value) => Number.isFinite(Math.fround(value)) || !Number.isFinite(value),
  F16: (value) => !beyondHalf(value),
  BF16: (value) => isBfloat16(value) || !Number.isFinite(value),
  I64: wholeWithin(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  I32: wholeWithin(-(2 ** 31), 2 ** 31 - 1),
  U8: wholeWithin(0, 255),
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
