/**
 * The directory of a run: it holds one run, never parts of two.
 *
 * @module
 */

import { join } from "node:path";
import { assertWritable, makeDirectory, namesIn } from "../system/files.ts";

/**
 * What a run leaves, in the order in which an old one must go: nothing may be taken for a run that
 * is none.
 */
export const RUN_FILES: readonly string[] = [
  "result.json",
  "report.html",
  "timing.json",
  "adapter_config.json",
  "adapter_model.safetensors",
  "split.json",
  "metrics.jsonl",
];

/**
 * Whether a directory holds a run, finished or not. Metrics alone are nothing that anybody could
 * use.
 */
export async function holdsRun(directory: string): Promise<boolean> {
  const names = await namesIn(directory);
  return RUN_FILES.some((name) => name !== "metrics.jsonl" && names.includes(name));
}

/**
 * A directory that is taken for one run, in this process and every other, until it is disposed of.
 */
export interface Claim extends AsyncDisposable {
  /** The directory. */
  readonly path: string;
}

/**
 * Takes the first of `DIRECTORY`, `DIRECTORY-2`, `DIRECTORY-3`, … that holds no run and that no
 * other is writing to. It is there then; disposed of, it goes again unless something has been
 * written to it.
 *
 * @throws {Error} If the directory cannot be made or written to, or its file system has no room for
 * so many bytes.
 */
export async function claimDirectory(directory: string, bytes: number): Promise<Claim> {
  for (let number = 1;; number++) {
    const path = number === 1 ? directory : `${directory}-${number}`;
    if (await holdsRun(path)) continue;
    await using claims = new AsyncDisposableStack();
    const claim = claims.use(await tryClaim(path));
    // The run that was being written may have ended since.
    if (!claim || await holdsRun(path)) continue;
    await assertWritable(path, bytes);
    claims.move();
    return claim;
  }
}

/**
 * Takes a directory unless it is taken, by a lock on the directory itself: a process that is killed
 * leaves nothing. Where there is no such lock, as on Windows and some network file systems, it is
 * taken without.
 */
async function tryClaim(path: string): Promise<Claim | null> {
  const made = await makeDirectory(path);
  const directory = await Deno.open(path).catch(() => null);
  if (await directory?.tryLock(true).catch(() => true) === false) {
    directory!.close();
    return null;
  }
  return {
    path,
    async [Symbol.asyncDispose]() {
      directory?.close();
      await made[Symbol.asyncDispose]();
    },
  };
}

/** Moves a run into a directory, for the one that is there; other files stay where they are. */
export async function replaceRun(from: string, to: string): Promise<void> {
  const old = await namesIn(to);
  for (const name of RUN_FILES.filter((name) => old.includes(name))) {
    await Deno.remove(join(to, name));
  }
  const names = await namesIn(from);
  for (const name of RUN_FILES.toReversed().filter((name) => names.includes(name))) {
    await Deno.rename(join(from, name), join(to, name));
  }
  await Deno.remove(from).catch(() => {}); // if nothing else is in it
}
