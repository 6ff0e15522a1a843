/**
 * Fetches the files of a model from the hub into the cache.
 *
 * @module
 */

import { join } from "node:path";
import { readJson } from "../system/files.ts";
import {
  type Commit,
  commitOf,
  type Conversion,
  findConversion,
  isCommit,
  type Repository,
} from "./hub_api.ts";
import { requester } from "./hub_request.ts";
import { cache, conversionRef, type ModelLocation, writeRef } from "./hub_cache.ts";
import { isIndex, type Layout, layoutOf, shardsOf, SMALL_FILES } from "./model_files.ts";

/** The progress of a download, over all files. */
export interface DownloadProgress {
  /** The file being fetched. */
  readonly file: string;
  /** Bytes received so far. */
  readonly received: number;
  /** Total bytes of all files that are known so far. */
  readonly total: number;
}

/**
 * Downloads the files of a model into the cache. The weights come last, so that a cache that has
 * the weights has everything.
 *
 * @throws {Error} If the hub cannot be reached, or has no readable weights.
 */
export async function download(
  repository: Repository,
  onProgress: (progress: DownloadProgress) => void,
): Promise<ModelLocation> {
  const { id, revision, weightsRevision, directory, endpoint } = repository;
  const fetch = requester(repository);
  const progress = { received: 0, total: 0 };
  const get = async ({ sha, entries, snapshot }: Commit, names: readonly string[]) => {
    const wanted = names.map((name) => {
      const entry = entries.get(name);
      if (entry) return entry;
      throw new Error(`Cannot fetch "${id}": its index names ${name}, which it lacks`);
    });
    for (const { size } of wanted) progress.total += size;
    for (const entry of wanted) {
      const url = `${endpoint}/${id}/resolve/${sha}/${encodeURIComponent(entry.path)}`;
      const request = (from: number) =>
        fetch(url, from > 0 ? { headers: { range: `bytes=${from}-` } } : {});
      await cache(entry, { directory, snapshot }, request, (bytes) => {
        progress.received += bytes;
        onProgress({ file: entry.path, ...progress });
      });
    }
  };
  const named = await commitOf(repository, revision);
  await get(named, SMALL_FILES.filter((name) => named.entries.has(name)));
  const config = await readJson(named.snapshot, "config.json");
  let [from, layout]: [Commit, Layout | null] = [named, layoutOf(named.entries.keys(), config)];
  let converted: Conversion | null = null;
  if (weightsRevision !== undefined) {
    converted = { ...await commitOf(repository, weightsRevision), revision: weightsRevision };
  } else if (layout && /^pytorch_model\./.test(layout.weights)) {
    converted = await findConversion(repository, named);
  }
  if (converted) [from, layout] = [converted, layoutOf(converted.entries.keys(), config)];
  if (!layout) {
    const unreadable = [...named.entries.keys()]
      .filter((name) => /\.(bin|pt|pth|h5|msgpack|safetensors)$/.test(name));
    const only = unreadable.length > 0 ? `, only ${unreadable.join(", ")}` : "";
    throw new Error(
      `Cannot use "${id}": it has no model.safetensors${only}; ` +
        "convert it, or choose a repository that has one",
    );
  }
  await get(from, [layout.weights]);
  if (isIndex(layout.weights)) await get(from, await shardsOf(from.snapshot, layout.weights));

  const absent = join(directory, ".no_exist", named.sha);
  await Deno.mkdir(absent, { recursive: true });
  for (const name of SMALL_FILES) {
    if (!named.entries.has(name)) await Deno.writeTextFile(join(absent, name), "");
  }
  if (converted) {
    if (!isCommit(converted.revision)) {
      await writeRef(directory, converted.revision, converted.sha);
    }
    await writeRef(directory, conversionRef(named.sha), converted.sha);
  }
  if (revision !== named.sha) await writeRef(directory, revision, named.sha);
  const hub = { id, commit: named.sha, weightsCommit: converted?.sha ?? null };
  return { path: named.snapshot, weights: from.snapshot, hub };
}
