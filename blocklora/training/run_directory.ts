/**
 * The directory of a run. It holds the files of one run, never a mixture of two.
 *
 * @module
 */

import { join } from "node:path";
import { assertWritable, makeDirectory, namesIn } from "../system/files.ts";

/**
 * The files of a run, in the order in which those of an old run are removed; those of a new run are
 * moved there in reverse order. Since `result.json` is the first to go and the last to arrive, an
 * incomplete run is never taken for a finished one.
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
 * Whether a directory holds a run, finished or not. A directory with nothing but metrics does not
 * count, because metrics alone are of no use.
 */
export async function holdsRun(directory: string): Promise<boolean> {
  const names = await namesIn(directory);
  return RUN_FILES.some((name) => name !== "metrics.jsonl" && names.includes(name));
}

/**
 * A directory that is reserved for one run, in this process and in all other processes, until the
 * claim is disposed of.
 */
export interface Claim extends AsyncDisposable {
  /** The directory. */
  readonly path: string;
}

/**
 * Reserves the first of `DIRECTORY`, `DIRECTORY-2`, `DIRECTORY-3`, … that holds no run and that no
 * other run is writing to. Creates the directory if needed; disposing of the claim removes it again
 * if it was created here and is still empty.
 *
 * @throws {Error} If the directory cannot be created or written to, or its file system has no room
 * for `bytes` bytes.
 */
export async function claimDirectory(directory: string, bytes: number): Promise<Claim> {
  for (let number = 1;; number++) {
    const path = number === 1 ? directory : `${directory}-${number}`;
    if (await holdsRun(path)) continue;
    await using claims = new AsyncDisposableStack();
    const claim = claims.use(await tryClaim(path));
    // Another run may have finished here since the first check.
    if (!claim || await holdsRun(path)) continue;
    await assertWritable(path, bytes);
    claims.move();
    return claim;
  }
}

/**
 * Reserves a directory, or gives null if another run holds it. The lock is on the directory itself,
 * so a killed process leaves no lock file behind. Where directories cannot be locked, as on Windows
 * and on some network file systems, the directory is used without a lock.
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

/**
 * Replaces the run in directory `to` by the one in directory `from`. Files that do not belong to a
 * run are left alone.
 */
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
