/**
 * Files: read in pieces, written whole or not at all.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import type { ByteSource } from "../tensor/tensor_file.ts";

/** What went wrong with a file, in a few words: the operating system's reason, without its number and the path. */
export function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file or directory";
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/ \(os error \d+\).*$/s, "").replace(
    /^[A-Z](?=[a-z])/,
    (letter) => letter.toLowerCase(),
  );
}

class FileSource implements ByteSource, Disposable {
  readonly name: string;
  readonly size: number;
  readonly #file: Deno.FsFile;

  constructor(name: string, size: number, file: Deno.FsFile) {
    this.name = name;
    this.size = size;
    this.#file = file;
  }

  // deno-lint-ignore require-await
  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new RangeError(
        `Cannot read bytes ${offset} to ${offset + length} of ${this.name}: it has ${this.size}`,
      );
    }
    const bytes = new Uint8Array(length);
    // Nothing may come between seek and read, so that calls can overlap: both are synchronous.
    this.#file.seekSync(offset, Deno.SeekMode.Start);
    for (let at = 0; at < length;) {
      const count = this.#file.readSync(bytes.subarray(at));
      if (!count) {
        throw new Error(`Cannot read ${this.name}: it became shorter while it was read`);
      }
      at += count;
    }
    return bytes;
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/**
 * Opens a file for reading at any place. The caller closes it: `using file = await openFile(path)`.
 *
 * @throws {Error} If there is no such file, or it cannot be read.
 */
export async function openFile(path: string): Promise<ByteSource & Disposable> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch (error) {
    throw new Error(`Cannot open ${path}: ${reasonOf(error)}`, { cause: error });
  }
  const { isFile, size } = await file.stat();
  if (isFile) return new FileSource(path, size, file);
  file.close();
  throw new Error(`Cannot open ${path}: it is not a file`);
}

/**
 * Writes a file so that nobody ever finds it half written: under another name in the same directory, which is renamed
 * once everything has reached the disk. What was at `path` before stays if this fails.
 *
 * @throws {Error} If the directory is missing, read-only or full.
 */
export async function writeAtomically(
  path: string,
  content: Uint8Array | string,
): Promise<void> {
  await writeTogether(dirname(path), { [basename(path)]: content });
}

/**
 * Writes files of a directory that belong together: what was there before is replaced once all of them have reached the
 * disk, and stays if that fails.
 *
 * @throws {Error} If the directory is missing, read-only or full.
 */
export async function writeTogether(
  directory: string,
  files: Readonly<Record<string, Uint8Array | string>>,
): Promise<void> {
  const mark = crypto.randomUUID().slice(0, 8);
  const pairs = Object.keys(files).map((name) => ({
    name,
    path: join(directory, name),
    temporary: join(directory, `.${name}.${mark}.tmp`),
  }));
  let current = directory;
  try {
    for (const { name, path, temporary } of pairs) {
      current = path;
      const content = files[name];
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      using file = await Deno.open(temporary, { write: true, createNew: true });
      for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
      await file.sync();
    }
    for (const { path, temporary } of pairs) await Deno.rename(temporary, current = path);
  } catch (error) {
    // Some may not even have been created.
    for (const { temporary } of pairs) await Deno.remove(temporary).catch(() => {});
    throw new Error(`Cannot write ${current}: ${reasonOf(error)}`, { cause: error });
  }
}
