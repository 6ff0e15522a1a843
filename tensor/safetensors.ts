/**
 * The safetensors format: 8 bytes of little-endian header length, a JSON header, then the tensors'
 * bytes (github.com/huggingface/safetensors, README.md).
 *
 * @module
 */

import { numel } from "./shape.ts";
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

/** Bytes of the number at the start of the file, which is the length of the header. */
export const LENGTH_BYTES = 8;
const MAX_HEADER_BYTES = 100e6;

/** A safetensors file whose header has been read and checked. */
export class SafetensorsFile implements TensorFile {
  /** The tensors, by name. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The content of `__metadata__`. */
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
   * Opens a file: reads its header and nothing else, and checks it as the reference implementation
   * does. The tensors must fill the file, without holes and overlaps.
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
   * A tensor's elements as i32: integers of any width, and BOOL.
   *
   * @throws {RangeError} If there is no such tensor, or an element is beyond i32.
   * @throws {TypeError} If its elements are floats.
   */
  async integers(name: string): Promise<Int32Array<ArrayBuffer>> {
    return toIntegers(await this.bytes(name), this.#info(name), this.name);
  }

  /**
   * The elements that {@linkcode SafetensorsFile.floats} gives, in pieces of at most `pieceBytes`
   * bytes of the file, 16 MiB by default. `start` is the index of a piece's first element.
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

/** A key that one object of a JSON text has twice, as written: `JSON.parse` would take the last. */
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

/**
 * Matches a key, which is a string with a colon after it; any other string, so that braces in it do
 * not count; and braces.
 */
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
    throw fail(`${title} has shape ${JSON.stringify(shape)}, sizes are integers from 0 on`);
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
