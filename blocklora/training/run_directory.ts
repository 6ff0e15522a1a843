/**
 * The directory of a run. The run is made in a directory beside it, and moved into place when it is
 * complete. So a run's directory holds one finished run or nothing, however the process ended.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import { assertWritable, exists, makeDirectory, namesIn, reasonOf } from "../system/files.ts";

/** The files of a finished run. */
export const RUN_FILES: readonly string[] = [
  "result.json",
  "report.html",
  "timing.json",
  "adapter_config.json",
  "adapter_model.safetensors",
  "split.json",
  "metrics.jsonl",
];

/** The file that an unfinished run goes on from. A run whose directory has none is finished. */
export const CHECKPOINT = "checkpoint.safetensors";

/** The file of the losses. It is open as long as the run is made, and carries its lock. */
const LOCKED = "metrics.jsonl";

/** What a process that was killed leaves behind of a file that it was writing. */
const TEMPORARY = /^\..*\.tmp$/;

/** What the name of the directory ends with where a run is made. */
export const UNFINISHED = ".unfinished";

/** Where the run of a directory is made. */
export function unfinishedOf(output: string): string {
  return output + UNFINISHED;
}

/** The directory of a run, given it or {@linkcode unfinishedOf} it. */
export function outputOf(directory: string): string {
  return directory.endsWith(UNFINISHED) ? directory.slice(0, -UNFINISHED.length) : directory;
}

/**
 * Whether a directory holds a run, finished or not. A directory with nothing but metrics does not
 * count, because metrics alone are of no use.
 */
export async function holdsRun(directory: string): Promise<boolean> {
  const names = await namesIn(directory);
  return RUN_FILES.some((name) => name !== LOCKED && names.includes(name));
}

/** A directory cannot be used for a run, and another one would do. */
export class TakenError extends Error {
  /** `"TakenError"`. */
  override name = "TakenError";

  /** Says what is wrong with the directory `where`, as what follows its name, and what would do. */
  constructor(readonly where: string, readonly reason: string, remedy: string) {
    super(`Cannot write to ${where}: it ${reason}, ${remedy}`);
  }
}

/**
 * Checks that a run can be moved to a directory, which may be missing.
 *
 * @throws {TakenError} If there is a file, a mount point, a run that is not to be replaced, or a
 * directory of anything but runs.
 */
export async function checkOutput(output: string, overwrite: boolean): Promise<void> {
  const refuse = (reason: string, remedy = "name another directory with --output"): never => {
    throw new TakenError(output, reason, remedy);
  };
  const target = await followed(output);
  const found = await Deno.stat(target).catch(() => null);
  if (!found) {
    const isLink = await Deno.lstat(target).then(() => true, () => false);
    return isLink ? refuse("is a link that leads nowhere") : undefined;
  }
  if (!found.isDirectory) refuse("is not a directory");
  const parent = await Deno.stat(dirname(target));
  if (found.dev !== parent.dev) refuse("is a mount point", "name a directory in it");
  if (await holdsRun(output)) {
    if (overwrite) return;
    refuse("holds a run", "replace that with --overwrite, or name another --output");
  }
  const others = (await namesIn(output)).filter((name) => name !== LOCKED);
  if (others.length > 0) refuse(`holds ${others.slice(0, 3).join(", ")} and no run`);
}

/** The directory that a link leads to; any other path as it is. */
async function followed(path: string): Promise<string> {
  const found = await Deno.lstat(path).catch(() => null);
  return found?.isSymlink ? await Deno.realPath(path).catch(() => path) : path;
}

/**
 * The directory of a run that is being made. No other process makes one there until the claim is
 * disposed of.
 */
export interface Claim extends AsyncDisposable {
  /** The directory where the run will be. */
  readonly output: string;
  /** The directory where it is made. */
  readonly path: string;
  /** Its `metrics.jsonl`, open for reading and writing. */
  readonly metrics: Deno.FsFile;
  /** Moves the finished run into place, and replaces the run that is there. */
  publish(): Promise<void>;
  /** Removes what an earlier process has made, so that the run begins anew. */
  clear(): Promise<void>;
}

/**
 * Claims the directory of a run, or gives null if another process has it. First it tidies up what a
 * killed process left there: a finished run is moved to its directory, an unfinished one stays.
 * Disposing of the claim removes what was made if there is no checkpoint to go on from and no
 * finished run.
 *
 * @throws {Error} If the directory cannot be created or written to, or its file system has no room
 * for `bytes` bytes.
 */
export async function claimRun(output: string, bytes: number): Promise<Claim | null> {
  const target = await followed(output);
  while (true) {
    const claim = await tryClaim(target);
    if (claim === "gone") continue;
    if (!claim) return null;
    await using claims = new AsyncDisposableStack();
    claims.use(claim);
    await settle(target);
    const names = await namesIn(claim.path);
    if (names.includes(CHECKPOINT)) {
      await removeAll(claim.path, names.filter((name) => TEMPORARY.test(name)));
    } else if (names.includes("result.json")) {
      await claim.publish();
      continue;
    } else await claim.clear();
    await assertWritable(claim.path, bytes);
    claims.move();
    return claim;
  }
}

/**
 * Locks the directory where a run is made. The lock is on an open file, so that a killed process
 * leaves none behind. Where files cannot be locked, as on some network file systems, the directory
 * is used without a lock. Gives null if another process holds it, `"gone"` if that process has just
 * moved it away.
 */
async function tryClaim(output: string): Promise<Claim | null | "gone"> {
  const path = unfinishedOf(output);
  await using stack = new AsyncDisposableStack();
  const made = stack.use(await makeDirectory(path));
  const file = join(path, LOCKED);
  const metrics = await Deno.open(file, { read: true, write: true, create: true })
    .catch((error) => {
      if (error instanceof Deno.errors.NotFound) return null;
      throw new Error(`Cannot write ${file}: ${reasonOf(error)}`);
    });
  if (!metrics) return "gone";
  const locked = await metrics.tryLock(true).catch(() => true);
  const [here, there] = [await metrics.stat(), await Deno.stat(file).catch(() => null)];
  if (!locked || !there || here.ino !== there.ino) {
    metrics.close();
    return locked ? "gone" : null;
  }
  let open = true;
  const close = () => {
    if (open) metrics.close();
    open = false;
  };
  const clear = async () => await removeAll(path, (await namesIn(path)).filter(isOurs));
  stack.move();
  return {
    output,
    path,
    metrics,
    clear,
    async publish() {
      await removeAll(path, [CHECKPOINT]); // from here on the run is finished
      await removeAll(path, (await namesIn(path)).filter((name) => TEMPORARY.test(name)));
      if ((await metrics.stat()).size === 0) await removeAll(path, [LOCKED]);
      if (Deno.build.os === "windows") close(); // else the directory cannot be moved
      await replace(output, path);
      close();
    },
    async [Symbol.asyncDispose]() {
      if (!open) return;
      const names = await namesIn(path);
      // A finished run that could not be moved stays too.
      if (!names.includes(CHECKPOINT) && !names.includes("result.json")) {
        await clear().catch(() => {});
        await Deno.remove(file).catch(() => {});
        await Deno.remove(path).catch(() => {});
      }
      close();
      await made[Symbol.asyncDispose]();
    },
  };
}

const isOurs = (name: string) =>
  name !== LOCKED && (name === CHECKPOINT || RUN_FILES.includes(name) || TEMPORARY.test(name));

async function removeAll(directory: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    await Deno.remove(join(directory, name)).catch((error) => {
      if (error instanceof Deno.errors.NotFound) return;
      throw new Error(`Cannot remove ${join(directory, name)}: ${reasonOf(error)}`);
    });
  }
}

/** Where the old run is put while the new one is moved there. */
const asideOf = (output: string) => join(dirname(output), `.${basename(output)}.replaced`);

/** Moves the directory `made` to `output`. */
async function replace(output: string, made: string): Promise<void> {
  try {
    const aside = asideOf(output);
    const found = await Deno.stat(output).catch(() => null);
    if (found && !found.isDirectory) throw new Error("there is a file");
    if (found && !await exists(aside)) await Deno.rename(output, aside);
    await Deno.rename(made, output);
  } catch (error) {
    // Another process has found the finished run, and moved it.
    if (error instanceof Deno.errors.NotFound && await holdsRun(output)) return;
    throw new Error(`Cannot move ${made} to ${output}: ${reasonOf(error)}`);
  }
  await settle(output);
}

/**
 * Ends a replacement that a killed process has begun. Files in the old directory that are not of a
 * run are the user's, and go to the new one.
 */
async function settle(output: string): Promise<void> {
  const aside = asideOf(output);
  if (!await exists(aside)) return;
  if (!await exists(output)) {
    // The new run is not there. If it is complete, it comes next; if not, the old one stays.
    const made = await namesIn(unfinishedOf(output));
    if (made.includes("result.json") && !made.includes(CHECKPOINT)) return;
    return await Deno.rename(aside, output);
  }
  for (const name of await namesIn(aside)) {
    if (RUN_FILES.includes(name) || await exists(join(output, name))) continue;
    await Deno.rename(join(aside, name), join(output, name));
  }
  await Deno.remove(aside, { recursive: true });
}
