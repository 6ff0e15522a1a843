/**
 * The directory of a ZIP file, which may exceed 4 GiB, and where the bytes of its entries begin
 * (PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3). Only entries that are stored as they are can be
 * read, not compressed or encrypted ones.
 *
 * @module
 */

import { type ByteSource, readExactly, titleOf } from "./tensor_file.ts";

/** What a ZIP file has under one name. */
export interface ZipEntry {
  /** Its name, with the folders that it is in. */
  readonly name: string;
  /** How many bytes it has. */
  readonly size: number;
  /** How its bytes are stored; only those stored as they are can be read. */
  readonly form: "stored" | "compressed" | "encrypted";
  /** Offset of its local header, which comes before its bytes. */
  readonly header: number;
  /** Offset at which it must have ended: that of the next header, or of the directory. */
  readonly limit: number;
}

const END = { signature: 0x06054b50, bytes: 22 };
const LOCATOR = { signature: 0x07064b50, bytes: 20 };
const END64 = { signature: 0x06064b50, bytes: 56 };
const LISTED = { signature: 0x02014b50, bytes: 46 };
const OWN = { signature: 0x04034b50, bytes: 30 };
const MAX_COMMENT_BYTES = 0xffff;
const MAX_DIRECTORY_BYTES = 64 * 2 ** 20;
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** A ZIP file whose directory has been read and checked. */
export class ZipFile {
  /** The entries, by name. */
  readonly entries: ReadonlyMap<string, ZipEntry>;
  readonly #source: ByteSource;

  private constructor(source: ByteSource, entries: ReadonlyMap<string, ZipEntry>) {
    this.#source = source;
    this.entries = entries;
  }

  /**
   * Opens a file: reads its directory, and nothing else.
   *
   * @throws {RangeError} If the file is truncated, or its directory is damaged: entries overlap or
   * lie beyond the file, or a name occurs twice.
   */
  static async open(source: ByteSource): Promise<ZipFile> {
    const { count, size, start, end } = await findDirectory(source);
    if (start + size > end || size > MAX_DIRECTORY_BYTES || count * LISTED.bytes > size) {
      throw damaged(source, `it claims ${count} entries in ${size} bytes from ${start} on`);
    }
    const listed = listEntries(await readFields(source, start, size), count);
    if (listed.length < count) {
      throw damaged(source, `entry ${listed.length} of ${count} cannot be read`);
    }
    listed.sort((a, b) => a.header - b.header);
    const entries = new Map<string, ZipEntry>();
    for (const [i, entry] of listed.entries()) {
      const [title, limit] = [titleOf(entry.name), listed[i + 1]?.header ?? start];
      if (entry.header + OWN.bytes + entry.size > limit) {
        throw damaged(source, `${title} overlaps what comes after it`);
      }
      if (entries.has(entry.name)) throw damaged(source, `it has ${title} twice`);
      entries.set(entry.name, { ...entry, limit });
    }
    return new ZipFile(source, entries);
  }

  /**
   * The entry of a name.
   *
   * @throws {RangeError} If there is none, or it cannot be read.
   */
  entry(name: string): ZipEntry {
    const [entry, title] = [this.entries.get(name), titleOf(name)];
    if (!entry) throw new RangeError(`Cannot find ${title} in ${this.#source.name}`);
    if (entry.form === "stored") return entry;
    throw new RangeError(
      `Cannot read ${this.#source.name}: its ${title} is ${entry.form}, ` +
        "and must be stored as it is",
    );
  }

  /**
   * Offset of an entry's bytes. They begin after its local header, whose length is not in the
   * directory.
   *
   * @throws {RangeError} If it cannot be read, or its header is not what the directory says.
   */
  async start(name: string): Promise<number> {
    const { header, size, limit } = this.entry(name);
    const fields = await readFields(this.#source, header, OWN.bytes);
    const nameBytes = fields.getUint16(26, true);
    const start = header + OWN.bytes + nameBytes + fields.getUint16(28, true);
    if (
      fields.getUint32(0, true) === OWN.signature && start + size <= limit &&
      decoder.decode(await readExactly(this.#source, header + OWN.bytes, nameBytes)) === name
    ) return start;
    throw damaged(this.#source, `${titleOf(name)} is not where it says`);
  }
}

async function readFields(source: ByteSource, offset: number, length: number): Promise<DataView> {
  const { buffer, byteOffset } = await readExactly(source, offset, length);
  return new DataView(buffer, byteOffset, length);
}

function damaged(source: ByteSource, why: string): RangeError {
  return new RangeError(`Cannot read ${source.name}: its ZIP directory is damaged, ${why}`);
}

/** An integer of 8 bytes. Beyond 2⁵³ it is not exact, but it is beyond any file then. */
function uint64(fields: DataView, at: number): number {
  return Number(fields.getBigUint64(at, true));
}

/** Where the directory is, and where it must have ended: before the record that closes the file. */
async function findDirectory(
  source: ByteSource,
): Promise<{ count: number; size: number; start: number; end: number }> {
  const length = Math.min(source.size, END.bytes + MAX_COMMENT_BYTES);
  const fields = await readFields(source, source.size - length, length);
  const isEnd = (at: number) =>
    fields.getUint32(at, true) === END.signature &&
    at + END.bytes + fields.getUint16(at + 20, true) === length;
  let at = length - END.bytes;
  while (at >= 0 && !isEnd(at)) at--;
  if (at < 0) {
    throw new RangeError(
      `Cannot read ${source.name}: it is truncated, a ZIP file ends with a directory`,
    );
  }
  const [end, locator] = [source.size - length + at, at - LOCATOR.bytes];
  if (locator < 0 || fields.getUint32(locator, true) !== LOCATOR.signature) {
    const [size, start] = [fields.getUint32(at + 12, true), fields.getUint32(at + 16, true)];
    return { count: fields.getUint16(at + 10, true), size, start, end };
  }
  const end64 = uint64(fields, locator + 8);
  if (end64 + END64.bytes > end) throw damaged(source, `it ends at ${end64}`);
  const wide = await readFields(source, end64, END64.bytes);
  if (wide.getUint32(0, true) !== END64.signature) {
    throw damaged(source, "its end is not where it says");
  }
  return { count: uint64(wide, 32), size: uint64(wide, 40), start: uint64(wide, 48), end: end64 };
}

/** The entries of a directory, up to the first that cannot be read. */
function listEntries(fields: DataView, count: number): Omit<ZipEntry, "limit">[] {
  const entries: Omit<ZipEntry, "limit">[] = [];
  for (let at = 0; entries.length < count;) {
    if (at + LISTED.bytes > fields.byteLength) break;
    const [bits, method] = [fields.getUint16(at + 8, true), fields.getUint16(at + 10, true)];
    const name = at + LISTED.bytes;
    const extra = name + fields.getUint16(at + 28, true);
    const comment = extra + fields.getUint16(at + 30, true);
    const next = comment + fields.getUint16(at + 32, true);
    if (fields.getUint32(at, true) !== LISTED.signature || next > fields.byteLength) break;
    const numbers = [24, 20, 42].map((field) => fields.getUint32(at + field, true));
    if (!widen(numbers, fields, extra, comment)) break;
    const [unpacked, size, header] = numbers;
    if (method === 0 && unpacked !== size) break;
    entries.push({
      name: decoder.decode(new Uint8Array(fields.buffer, fields.byteOffset + name, extra - name)),
      size,
      form: bits & 1 ? "encrypted" : method ? "compressed" : "stored",
      header,
    });
    at = next;
  }
  return entries;
}

/**
 * Replaces numbers that do not fit 32 bits by those in the first extra field of kind 1, and returns
 * whether it has enough of them.
 */
function widen(numbers: number[], fields: DataView, at: number, end: number): boolean {
  while (at + 4 <= end && fields.getUint16(at, true) !== 1) {
    at += 4 + fields.getUint16(at + 2, true);
  }
  at += 4;
  for (const [i, number] of numbers.entries()) {
    if (number !== 0xffffffff) continue;
    if (at + 8 > end) return false;
    numbers[i] = uint64(fields, at);
    at += 8;
  }
  return true;
}
