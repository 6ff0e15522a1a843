/**
 * Models by name: a path, or the id of a repository on the Hugging Face hub, fetched once into the standard cache
 * (`models--OWNER--NAME` with `blobs/`, `snapshots/COMMIT/` and `refs/`), which Python's libraries share.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { dirname, join, relative } from "node:path";
import { reasonOf, writeAtomically } from "./file_source.ts";

/** Where a download stands, over all files that it fetches. */
export interface DownloadProgress {
  /** The file being fetched. */
  readonly file: string;
  /** Bytes received. */
  readonly received: number;
  /** Bytes of all the files known so far. */
  readonly total: number;
}

/** How {@linkcode resolveModel} looks a model up. */
export interface ResolveOptions {
  /** A branch, a tag or a commit. Default `"main"`. */
  readonly revision?: string;
  /** Whether only the cache may be used. Default: what `HF_HUB_OFFLINE` says. */
  readonly offline?: boolean;
  /** Called as bytes arrive. */
  readonly onProgress?: (progress: DownloadProgress) => void;
}

/** Files that come with the weights, of which a repository may lack some. */
const SMALL_FILES = [
  "config.json",
  "preprocessor_config.json",
  "tokenizer.json",
  "vocab.json",
  "merges.txt",
];
const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** The hub could not be asked, which is no reason to refuse what is in the cache. */
class UnreachableError extends Error {}

/** A file of a repository, as the hub lists it. */
interface Entry {
  readonly path: string;
  readonly size: number;
  readonly oid?: string;
  readonly lfs?: { readonly oid: string };
}

/** A repository at a revision, and where it is cached. */
interface Repository {
  readonly id: string;
  readonly revision: string;
  readonly directory: string;
  readonly endpoint: string;
}

/**
 * The file or directory of a model: `spec` itself if that exists, else the local copy of the hub's repository `spec`
 * (`OWNER/NAME`), which holds its configuration, tokenizer and safetensors weights. It is fetched once: a later call
 * makes no request. `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` mean what they mean to
 * Python's `huggingface_hub`.
 *
 * @throws {Error} If there is no such path or repository, it is gated, it has no safetensors weights, or it is not in
 *   the cache and the hub cannot be reached.
 */
export async function resolveModel(spec: string, options: ResolveOptions = {}): Promise<string> {
  if (await exists(spec)) return spec;
  if (!/^\w[\w.-]*\/\w[\w.-]*$/.test(spec)) {
    throw new Error(
      `Cannot find the model "${spec}": there is no such path, and the id of a repository is OWNER/NAME`,
    );
  }
  const revision = options.revision ?? "main";
  if (!/^\w[\w./-]*$/.test(revision) || revision.includes("..")) {
    throw new Error(
      `Cannot fetch "${spec}": "${revision}" is no revision, name a branch, tag or commit`,
    );
  }
  const { getHFHubCachePath, getRepoFolderName } = await import("@huggingface/hub");
  const repository: Repository = {
    id: spec,
    revision,
    directory: join(getHFHubCachePath(), getRepoFolderName({ type: "model", name: spec })),
    endpoint: (Deno.env.get("HF_ENDPOINT") || "https://huggingface.co").replace(/\/+$/, ""),
  };
  const cached = await findSnapshot(repository);
  if (cached.complete) return cached.path;
  if (options.offline ?? /^(1|on|yes|true)$/i.test(Deno.env.get("HF_HUB_OFFLINE") ?? "")) {
    if (cached.usable) return cached.path;
    throw new Error(
      `Cannot use "${spec}" offline: revision ${revision} is not in ${repository.directory}, ` +
        "fetch it once without HF_HUB_OFFLINE",
    );
  }
  try {
    return await download(repository, options.onProgress ?? (() => {}));
  } catch (error) {
    if (error instanceof UnreachableError && cached.usable) return cached.path;
    if (error instanceof Error && error.message.startsWith("Cannot")) throw error;
    throw new Error(`Cannot fetch "${spec}" into ${repository.directory}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

/** Where the cache has the revision; `usable` with configuration and weights, `complete` with all a model may have. */
async function findSnapshot(
  { directory, revision }: Repository,
): Promise<{ path: string; usable: boolean; complete: boolean }> {
  const commit = /^[0-9a-f]{40}$/.test(revision)
    ? revision
    : await Deno.readTextFile(join(directory, "refs", revision)).catch(() => "");
  const path = join(directory, "snapshots", commit.trim());
  const has = (name: string) => exists(join(path, name));
  if (!commit || !await has("config.json")) return { path, usable: false, complete: false };
  const usable = await has(WEIGHTS) ||
    (await has(INDEX) &&
      (await Promise.all((await shardsOf(join(path, INDEX))).map(has))).every(Boolean));
  const tokens = await has("tokenizer.json") ||
    (await has("vocab.json") && await has("merges.txt"));
  return { path, usable, complete: usable && tokens && await has("preprocessor_config.json") };
}

async function shardsOf(index: string): Promise<string[]> {
  let shards: string[];
  try {
    shards = [
      ...new Set(Object.values<string>(JSON.parse(await Deno.readTextFile(index)).weight_map)),
    ];
  } catch (error) {
    throw new Error(`Cannot read ${index}: ${reasonOf(error)}`, { cause: error });
  }
  // They become paths: a name that leaves the directory is none.
  if (shards.length > 0 && shards.every((name) => /^[\w-][\w.-]*\.safetensors$/.test(name))) {
    return shards;
  }
  throw new Error(`Cannot read ${index}: its weight_map must name safetensors files beside it`);
}

async function download(
  repository: Repository,
  onProgress: (progress: DownloadProgress) => void,
): Promise<string> {
  const { listFiles, modelInfo } = await import("@huggingface/hub");
  const { id, revision, directory, endpoint: hubUrl } = repository;
  const fetch = requester(repository);
  const { sha } = await modelInfo({ name: id, revision, additionalFields: ["sha"], hubUrl, fetch });
  const entries = new Map<string, Entry>();
  const repo = { type: "model", name: id } as const;
  for await (const entry of listFiles({ repo, revision: sha, hubUrl, fetch })) {
    if (entry.type === "file") entries.set(entry.path, entry);
  }
  const weights = [WEIGHTS, INDEX].find((name) => entries.has(name));
  if (!weights) {
    const others = [...entries.keys()].filter((name) =>
      /\.(bin|pt|h5|msgpack|safetensors)$/.test(name)
    );
    throw new Error(
      `Cannot use "${id}": it has no ${WEIGHTS}${
        others.length > 0 ? `, only ${others.join(", ")}` : ""
      }; ` +
        "convert it, or choose a repository that has one",
    );
  }

  const snapshot = join(directory, "snapshots", sha);
  const progress = { received: 0, total: 0 };
  const get = async (names: readonly string[]) => {
    const wanted = names.map((name) => {
      const entry = entries.get(name);
      if (entry) return entry;
      throw new Error(`Cannot fetch "${id}": its ${INDEX} names ${name}, which it lacks`);
    });
    for (const { size } of wanted) progress.total += size;
    for (const entry of wanted) {
      const url = `${hubUrl}/${id}/resolve/${sha}/${entry.path}`;
      await cache(entry, directory, snapshot, () => fetch(url), (bytes) => {
        progress.received += bytes;
        onProgress({ file: entry.path, ...progress });
      });
    }
  };
  // Weights come last, so that where they are everything is.
  await get(SMALL_FILES.filter((name) => entries.has(name)));
  if (weights === INDEX) await get([INDEX]);
  await get(weights === INDEX ? await shardsOf(join(snapshot, INDEX)) : [WEIGHTS]);
  if (revision !== sha) {
    const ref = join(directory, "refs", revision);
    await Deno.mkdir(dirname(ref), { recursive: true });
    await writeAtomically(ref, sha);
  }
  return snapshot;
}

/** A `fetch` that sends the token, and throws what a user can act on. */
function requester({ id, revision, endpoint }: Repository): typeof fetch {
  const token = Deno.env.get("HF_TOKEN");
  return async (input, init) => {
    const headers = new Headers(init?.headers);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    let response: Response;
    try {
      response = await fetch(input, { ...init, headers });
    } catch (cause) {
      throw new UnreachableError(
        `Cannot fetch "${id}": ${endpoint} cannot be reached, check the network, or pass a local directory`,
        { cause },
      );
    }
    if (response.ok) return response;
    await response.body?.cancel();
    const { status } = response;
    if (status === 401 || status === 403) {
      throw new Error(
        `Cannot fetch "${id}": ${endpoint} refuses access (${status}), check the name; if it is gated or private, ` +
          `accept its terms there and ${token ? "check HF_TOKEN" : "set HF_TOKEN"}`,
      );
    }
    if (status === 404) {
      throw new Error(
        `Cannot fetch "${id}": there is no such path here, and ${endpoint} has no such model with revision ${revision}`,
      );
    }
    throw new UnreachableError(
      `Cannot fetch "${id}": ${endpoint} answers ${status}, try again later`,
    );
  };
}

/** Puts one file into the cache: a blob named by its hash, and a link to it in the snapshot. */
async function cache(
  { path, size, oid, lfs }: Entry,
  directory: string,
  snapshot: string,
  request: () => Promise<Response>,
  onBytes: (count: number) => void,
): Promise<void> {
  const hash = lfs?.oid ?? oid;
  if (!hash || !/^\w+$/.test(hash)) throw new Error(`Cannot fetch ${path}: the hub names no hash`);
  const pointer = join(snapshot, path);
  if (await exists(pointer)) return onBytes(size);
  const blob = join(directory, "blobs", hash);
  await Deno.mkdir(dirname(blob), { recursive: true });
  await Deno.mkdir(snapshot, { recursive: true });

  // The lock is held to the end, so that a second process waits, and then finds the blob.
  const incomplete = `${blob}.octograd.incomplete`;
  using file = await Deno.open(incomplete, { write: true, create: true });
  await file.lock(true);
  if (await exists(blob)) {
    onBytes(size);
    await Deno.remove(incomplete).catch(() => {}); // renamed, if another process has just finished
  } else {
    await file.truncate();
    const digest = createHash("sha256");
    let received = 0;
    try {
      for await (const chunk of (await request()).body ?? []) {
        for (let at = 0; at < chunk.length;) at += await file.write(chunk.subarray(at));
        digest.update(chunk);
        received += chunk.length;
        onBytes(chunk.length);
      }
    } catch (error) {
      if (error instanceof TypeError) {
        throw new UnreachableError(`Cannot fetch ${path}: the connection broke`);
      }
      throw error;
    }
    // The hash of a small file is git's, that of a large one SHA-256.
    if (received !== size || (lfs && digest.digest("hex") !== hash)) {
      throw new Error(`Cannot fetch ${path}: what arrived is not what the hub lists, try again`);
    }
    await file.sync();
    await Deno.rename(incomplete, blob);
  }
  await link(blob, pointer);
}

async function link(blob: string, pointer: string): Promise<void> {
  try {
    await Deno.symlink(relative(dirname(pointer), blob), pointer);
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return; // by another process
    await Deno.link(blob, pointer); // Windows lets only some users make symbolic links
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
