/**
 * Reads files at any offset, and writes them completely or not at all.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import type { ByteSource } from "../../tensor/tensor_file.ts";

/**
 * Why a file could not be used: the message of the operating system, without its error number and
 * the path.
 */
export function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file or directory";
  const message = error instanceof Error ? error.message : String(error);
  return message.replace(/ \(os error \d+\).*$/s, "").replace(
    /^[A-Z](?=[a-z])/,
    (letter) => letter.toLowerCase(),
  );
}

/** Whether a path exists. */
export async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

/** The names of all entries of a directory; empty if there is no such directory. */
export async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(directory))).map(({ name }) => name);
  } catch (error) {
    const { NotFound, NotADirectory } = Deno.errors;
    if (error instanceof NotFound || error instanceof NotADirectory) return [];
    throw new Error(`Cannot read ${directory}: ${reasonOf(error)}`);
  }
}

/**
 * The content of a file.
 *
 * @throws {Error} If it cannot be read, or is a directory, a pipe, a socket or a device: reading
 * those may never end.
 */
export async function readBytes(path: string): Promise<Uint8Array<ArrayBuffer>> {
  await assertFile(path);
  return await Deno.readFile(path);
}

async function assertFile(path: string): Promise<void> {
  if (!(await Deno.stat(path)).isFile) throw new Error("it is not a file");
}

/**
 * The content of a text file, or null if there is no such file. A byte order mark, which some
 * Windows editors write, is removed.
 *
 * @throws {Error} If it cannot be read, or is not UTF-8.
 */
export async function readText(...segments: string[]): Promise<string | null> {
  const path = join(...segments);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await readBytes(path));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    const reason = error instanceof TypeError
      ? "it is not UTF-8, save it as that"
      : reasonOf(error);
    throw new Error(`Cannot read ${path}: ${reason}`);
  }
}

/**
 * The content of a JSON file, or null if there is no such file.
 *
 * @throws {Error} If it cannot be read, or is not JSON.
 */
export async function readJson(...segments: string[]): Promise<unknown> {
  const content = await readText(...segments);
  if (content === null) return null;
  try {
    return JSON.parse(content);
  } catch (error) {
    throw new Error(
      `Cannot read ${join(...segments)}: it is not JSON (${(error as Error).message})`,
    );
  }
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
    // Seek and read are synchronous, so that no other call can come between them when calls
    // overlap.
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
 * Opens a file for reading. The caller closes it: `using file = await openFile(path)`.
 *
 * @throws {Error} If there is no such file, or it cannot be read.
 */
export async function openFile(path: string): Promise<ByteSource & Disposable> {
  try {
    await assertFile(path); // opening a pipe would wait for somebody to write to it
    const file = await Deno.open(path);
    return new FileSource(path, (await file.stat()).size, file);
  } catch (error) {
    throw new Error(`Cannot open ${path}: ${reasonOf(error)}`, { cause: error });
  }
}

/**
 * Writes a file so that a half-written file is never seen at `path`. It is written under another
 * name in the same directory, and renamed once all bytes have reached the disk. If this fails, an
 * existing file at `path` stays.
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
 * Writes several files of a directory that belong together. Existing files are replaced only once
 * all new ones have reached the disk, and stay if that fails. Old and new files are never mixed,
 * even if the process is killed.
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
    if (pairs.length > 1) {
      // If the process is killed among the renames, files are missing, but old ones are never
      // beside new ones.
      for (const { path } of pairs) {
        await Deno.remove(current = path).catch((error) => {
          if (!(error instanceof Deno.errors.NotFound)) throw error;
        });
      }
    }
    for (const { path, temporary } of pairs) await Deno.rename(temporary, current = path);
  } catch (error) {
    for (const { temporary } of pairs) await Deno.remove(temporary).catch(() => {});
    throw new Error(`Cannot write ${current}: ${reasonOf(error)}`, { cause: error });
  }
}

/**
 * Checks that `bytes` bytes can be written to a directory, before work begins whose results would
 * otherwise be lost. Writes a file of that size, and removes it again.
 *
 * @throws {Error} If the directory cannot be written to, or its file system is full.
 */
export async function assertWritable(directory: string, bytes: number): Promise<void> {
  const trial = join(directory, `.trial-${crypto.randomUUID().slice(0, 8)}`);
  try {
    using file = await Deno.open(trial, { write: true, createNew: true });
    let left = Math.ceil(bytes);
    const zeros = new Uint8Array(Math.min(left, 1 << 24));
    while (left > 0) left -= await file.write(zeros.subarray(0, left));
  } catch (error) {
    throw unwritable(directory, error);
  } finally {
    await Deno.remove(trial).catch(() => {});
  }
}

/**
 * Creates a directory and its missing parents. Disposing of the result removes the created
 * directories again, unless they are no longer empty.
 *
 * @throws {Error} If the directory cannot be created.
 */
export async function makeDirectory(directory: string): Promise<AsyncDisposable> {
  const missing: string[] = [];
  // What may not be looked at is not missing. The root of an unknown drive is, and has no parent.
  for (let at = directory; at !== dirname(at) && await isMissing(at); at = dirname(at)) {
    missing.push(at);
  }
  const made = {
    // Not recursive, because another run may have written files there in the meantime.
    async [Symbol.asyncDispose]() {
      for (const path of missing) await Deno.remove(path).catch(() => {});
    },
  };
  try {
    await Deno.mkdir(directory, { recursive: true });
    return made;
  } catch (error) {
    await made[Symbol.asyncDispose]();
    throw unwritable(directory, error);
  }
}

async function isMissing(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => false, (error) => error instanceof Deno.errors.NotFound);
}

function unwritable(directory: string, error: unknown): Error {
  return new Error(
    `Cannot write to ${directory}: ${reasonOf(error)}, name another directory with --output`,
  );
}
