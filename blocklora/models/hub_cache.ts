/**
 * The local cache of hub files: `models--OWNER--NAME` with `blobs/`, `snapshots/COMMIT/` and
 * `refs/`. It is shared with Python's libraries.
 *
 * @module
 */

import { dirname, join, relative } from "node:path";
import { exists, namesIn, readJson, writeAtomically } from "../system/files.ts";
import { type Entry, isCommit, type Repository } from "./hub_api.ts";
import { isSound, receive } from "./hub_blob.ts";
import { isIndex, layoutOf, shardsOf, SMALL_FILES } from "./model_files.ts";

/** Where a model is on this machine. */
export interface ModelLocation {
  /** The model's file, or the directory of its configuration and tokenizer. */
  readonly path: string;
  /**
   * The directory of the weights. It differs from `path` if the hub has the weights as safetensors
   * only in a pull request.
   */
  readonly weights: string;
  /** The revision on the hub; null for a model that was named by its path. */
  readonly hub: HubRevision | null;
}

/** A revision on the hub, identified by commits, which never change. */
export interface HubRevision {
  /** The repository, `OWNER/NAME`. */
  readonly id: string;
  /** The commit. */
  readonly commit: string;
  /** The commit of the pull request that the weights are from; null if they are from `commit`. */
  readonly weightsCommit: string | null;
}

/** The cached files of a commit, and those of the commit that holds its converted weights. */
export interface Snapshot {
  /** The directories of the files. */
  readonly location: ModelLocation;
  /** Whether the cache has the configuration and the weights. */
  readonly usable: boolean;
  /**
   * Whether the cache also has every other file of the model that the hub has, so that no request
   * is needed.
   */
  readonly complete: boolean;
  /** The files that are no longer what was fetched. They are fetched again. */
  readonly damaged: readonly string[];
}

/** Looks up a revision in the cache. */
export async function findSnapshot(repository: Repository): Promise<Snapshot> {
  const { id, directory, revision, weightsRevision } = repository;
  const commit = isCommit(revision) ? revision : await readRef(directory, revision);
  const path = join(directory, "snapshots", commit);
  const at = (weights: string, weightsCommit: string | null): ModelLocation => ({
    path,
    weights,
    hub: { id, commit, weightsCommit },
  });
  const nothing = { location: at(path, null), usable: false, complete: false };
  if (!commit) return { ...nothing, damaged: [] };
  const names = await namesIn(path);
  const damaged = await damagedIn(path, SMALL_FILES.filter((name) => names.includes(name)));
  if (damaged.length > 0) return { ...nothing, damaged };
  const absent = await namesIn(join(directory, ".no_exist", commit));
  const complete = SMALL_FILES.every((name) => names.includes(name) || absent.includes(name));
  if (weightsRevision === undefined && await hasWeights(path, names, path)) {
    return { location: at(path, null), usable: true, complete, damaged };
  }
  const converted = weightsRevision ?? await readRef(directory, conversionRef(commit));
  const weights = join(directory, "snapshots", converted);
  const usable = converted !== "" && await hasWeights(weights, await namesIn(weights), path);
  return {
    location: at(usable ? weights : path, usable ? converted : null),
    usable,
    complete: usable && complete,
    damaged,
  };
}

/** Which files of a directory are damaged, or have lost their blob. */
async function damagedIn(directory: string, names: readonly string[]): Promise<string[]> {
  const sound = await Promise.all(
    names.map((name) => isSound(join(directory, name)).catch(() => false)),
  );
  return names.filter((_, i) => !sound[i]);
}

/**
 * Whether `directory`, which contains `names`, has all weights of the model whose configuration is
 * in the directory `configured`.
 */
async function hasWeights(
  directory: string,
  names: readonly string[],
  configured: string,
): Promise<boolean> {
  const small = await namesIn(configured);
  const config = small.includes("config.json") ? await readJson(configured, "config.json") : null;
  if (config === null && !small.includes("open_clip_config.json")) return false;
  const layout = layoutOf([...names, ...small], config);
  if (!layout) return false;
  if (!isIndex(layout.weights)) return true;
  return (await shardsOf(directory, layout.weights)).every((name) => names.includes(name));
}

/**
 * The name under `refs/` for the commit with the converted weights of `commit`. Python's tools take
 * it for a branch.
 */
export function conversionRef(commit: string): string {
  return `octograd/${commit}`;
}

async function readRef(directory: string, name: string): Promise<string> {
  const commit = await Deno.readTextFile(join(directory, "refs", name)).catch(() => "");
  return isCommit(commit.trim()) ? commit.trim() : "";
}

/** Records in `refs/` which commit a name stands for. */
export async function writeRef(directory: string, name: string, commit: string): Promise<void> {
  const ref = join(directory, "refs", name);
  await Deno.mkdir(dirname(ref), { recursive: true });
  await writeAtomically(ref, commit);
}

/**
 * Puts one file into the cache: a blob named by its hash, and a link to the blob in the snapshot. A
 * file that is already there and sound is not requested again.
 *
 * @param request Requests the file from a byte on.
 * @throws {Error} If the received file does not have the listed size and hash, or the hub lists no
 * hash.
 */
export async function cache(
  entry: Entry,
  { directory, snapshot }: { directory: string; snapshot: string },
  request: (from: number) => Promise<Response>,
  onBytes: (count: number) => void,
): Promise<void> {
  const { path, size, oid, lfs } = entry;
  const hash = lfs?.oid ?? oid;
  if (!hash || !/^[0-9a-f]{40,64}$/.test(hash)) {
    throw new Error(`Cannot fetch ${path}: the hub names no hash of it`);
  }
  const pointer = join(snapshot, path);
  if (await exists(pointer) && await isSound(pointer)) return onBytes(size);
  const blob = join(directory, "blobs", hash);
  await Deno.mkdir(dirname(blob), { recursive: true });
  await Deno.mkdir(snapshot, { recursive: true });

  // The lock is held until this function returns, so that a second process waits, and then finds
  // the blob.
  const incomplete = `${blob}.octograd.incomplete`;
  using file = await Deno.open(incomplete, { read: true, write: true, create: true });
  await file.lock(true);
  if (await exists(blob) && await isSound(blob)) {
    onBytes(size);
    await Deno.remove(incomplete).catch(() => {}); // fails if another process has just renamed it
  } else {
    await receive(entry, file, request, onBytes);
    await file.sync();
    await Deno.rename(incomplete, blob);
  }
  await link(blob, pointer);
}

async function link(blob: string, pointer: string): Promise<void> {
  try {
    await Deno.symlink(relative(dirname(pointer), blob), pointer);
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return; // another process has made it
    await Deno.link(blob, pointer); // on Windows, only some users may create symbolic links
  }
}
