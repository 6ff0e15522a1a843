/**
 * Models by name: a path, or the id of a repository on the Hugging Face hub, fetched once into the standard cache
 * (`models--OWNER--NAME` with `blobs/`, `snapshots/COMMIT/` and `refs/`), which Python's libraries share.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { dirname, join, relative } from "node:path";
import { exists, namesIn, readJson, reasonOf, writeAtomically } from "../system/files.ts";
import { isIndex, type Layout, layoutOf, shardsOf, SMALL_FILES } from "./model_files.ts";

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
  /** The commit that the weights are from, where it is not that of the revision. Default: looked for. */
  readonly weightsRevision?: string;
  /** Whether a path of the model's name is none. Default false. */
  readonly onlyHub?: boolean;
  /** Whether only the cache may be used. Default: what `HF_HUB_OFFLINE` says. */
  readonly offline?: boolean;
  /** Called as bytes arrive. */
  readonly onProgress?: (progress: DownloadProgress) => void;
}

/** Where a model is on this machine. */
export interface ModelLocation {
  /** Its file, or the directory of its configuration and its tokenizer. */
  readonly path: string;
  /** The directory of its weights: another one if the hub has them as safetensors in a pull request alone. */
  readonly weights: string;
  /** Where the hub has it; null for a path. */
  readonly hub: HubRevision | null;
}

/** A revision on the hub, by what never changes. */
export interface HubRevision {
  /** The repository, `OWNER/NAME`. */
  readonly id: string;
  /** The commit. */
  readonly commit: string;
  /** The commit of the pull request that the weights are from; null if they are from the same. */
  readonly weightsCommit: string | null;
}

/** Whether a text has the form of a repository's id, `OWNER/NAME`. */
export function isHubId(text: string): boolean {
  return /^\w[\w.-]*\/\w[\w.-]*$/.test(text);
}

/** The hub could not be asked, which is no reason to refuse what is in the cache. */
class UnreachableError extends Error {}

/** The hub has no such thing. */
class AbsentError extends Error {}

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
  readonly weightsRevision: string | undefined;
  readonly directory: string;
  readonly endpoint: string;
}

/**
 * Where the model `spec` is: itself if there is such a path, else the local copy of the hub's repository `spec`
 * (`OWNER/NAME`), which holds its configuration, tokenizer and weights. It is fetched once: a later call makes no request.
 * Weights that a revision has as a pickle alone are taken from the pull request in which the hub's bot has converted the
 * same file to safetensors, if there is one, as Transformers does. `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and
 * `HF_HUB_OFFLINE` mean what they mean to Python's `huggingface_hub`.
 *
 * @throws {Error} If there is no such path or repository, it is gated, it has no weights that can be read, or it is not in
 *   the cache and the hub cannot be reached.
 */
export async function resolveModel(
  spec: string,
  options: ResolveOptions = {},
): Promise<ModelLocation> {
  if (!options.onlyHub && await exists(spec)) {
    const { isFile } = await Deno.stat(spec);
    return { path: spec, weights: isFile ? dirname(spec) : spec, hub: null };
  }
  const repository = await repositoryOf(spec, options.revision, options.weightsRevision);
  const cached = await findSnapshot(repository);
  if (cached.complete) return cached.location;
  if (isOffline(options)) {
    if (cached.usable) return cached.location;
    throw new Error(
      `Cannot use "${spec}" offline: revision ${repository.revision} is not in ${repository.directory}, ` +
        "fetch it once without HF_HUB_OFFLINE",
    );
  }
  try {
    return await download(repository, options.onProgress ?? (() => {}));
  } catch (error) {
    if (error instanceof UnreachableError && cached.usable) return cached.location;
    if (error instanceof Error && error.message.startsWith("Cannot")) throw error;
    throw new Error(`Cannot fetch "${spec}" into ${repository.directory}: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

/**
 * A JSON file of a repository of the hub, or null if there is no such file or repository: the cached one, else what the
 * hub has.
 *
 * @throws {Error} If it is gated, it is no JSON, or the hub cannot be reached.
 */
export async function fetchJson(
  id: string,
  name: string,
  options: Pick<ResolveOptions, "revision" | "offline"> = {},
): Promise<unknown> {
  const repository = await repositoryOf(id, options.revision);
  const { location, usable, complete } = await findSnapshot(repository);
  if (complete || (usable && isOffline(options))) return await readJson(location.path, name);
  const [revision, path] = [repository.revision, name].map(encodeURIComponent);
  const url = `${repository.endpoint}/${id}/resolve/${revision}/${path}`;
  try {
    return await (await requester(repository)(url)).json();
  } catch (error) {
    if (error instanceof AbsentError) return null;
    throw error instanceof SyntaxError ? new Error(`Cannot read ${url}: it is not JSON`) : error;
  }
}

function isOffline({ offline }: Pick<ResolveOptions, "offline">): boolean {
  return offline ?? /^(1|on|yes|true)$/i.test(Deno.env.get("HF_HUB_OFFLINE") ?? "");
}

async function repositoryOf(
  id: string,
  revision = "main",
  weightsRevision?: string,
): Promise<Repository> {
  if (!isHubId(id)) {
    throw new Error(
      `Cannot find the model "${id}": there is no such path, and the id of a repository is OWNER/NAME`,
    );
  }
  if (!/^\w[\w./-]*$/.test(revision) || revision.includes("..")) {
    throw new Error(
      `Cannot fetch "${id}": "${revision}" is no revision, name a branch, tag or commit`,
    );
  }
  const { getHFHubCachePath, getRepoFolderName } = await import("@huggingface/hub");
  return {
    id,
    revision,
    weightsRevision,
    directory: join(getHFHubCachePath(), getRepoFolderName({ type: "model", name: id })),
    endpoint: (Deno.env.get("HF_ENDPOINT") || "https://huggingface.co").replace(/\/+$/, ""),
  };
}

/** Where a cached commit is, and where the commit of the weights that were converted for it. */
interface Snapshot {
  readonly location: ModelLocation;
  /** Whether it has configuration and weights. */
  readonly usable: boolean;
  /** Whether nothing else that a model may have can be on the hub. */
  readonly complete: boolean;
}

async function findSnapshot(repository: Repository): Promise<Snapshot> {
  const { id, directory, revision, weightsRevision } = repository;
  const commit = isCommit(revision) ? revision : await readRef(directory, revision);
  const path = join(directory, "snapshots", commit);
  const at = (weights: string, weightsCommit: string | null): ModelLocation => ({
    path,
    weights,
    hub: { id, commit, weightsCommit },
  });
  if (!commit) return { location: at(path, null), usable: false, complete: false };
  const names = await namesIn(path);
  const absent = await namesIn(join(directory, ".no_exist", commit));
  const complete = SMALL_FILES.every((name) => names.includes(name) || absent.includes(name));
  if (weightsRevision === undefined && await hasWeights(path, names, path)) {
    return { location: at(path, null), usable: true, complete };
  }
  const converted = weightsRevision ?? await readRef(directory, conversionRef(commit));
  const weights = join(directory, "snapshots", converted);
  const usable = converted !== "" && await hasWeights(weights, await namesIn(weights), path);
  return {
    location: at(usable ? weights : path, usable ? converted : null),
    usable,
    complete: usable && complete,
  };
}

/** Whether a directory has all weights of the model whose configuration is in another. */
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

function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/** The ref of ours that says which commit has the weights of another converted: Python's tools take it for a branch. */
function conversionRef(commit: string): string {
  return `octograd/${commit}`;
}

async function readRef(directory: string, name: string): Promise<string> {
  const commit = await Deno.readTextFile(join(directory, "refs", name)).catch(() => "");
  return isCommit(commit.trim()) ? commit.trim() : "";
}

async function writeRef(directory: string, name: string, commit: string): Promise<void> {
  const ref = join(directory, "refs", name);
  await Deno.mkdir(dirname(ref), { recursive: true });
  await writeAtomically(ref, commit);
}

/** A commit of a repository, and what it has. */
interface Commit {
  readonly sha: string;
  readonly entries: ReadonlyMap<string, Entry>;
  readonly snapshot: string;
}

async function download(
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
      await cache(entry, directory, snapshot, () => fetch(url), (bytes) => {
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
    const others = [...named.entries.keys()].filter((name) =>
      /\.(bin|pt|pth|h5|msgpack|safetensors)$/.test(name)
    );
    throw new Error(
      `Cannot use "${id}": it has no model.safetensors${
        others.length > 0 ? `, only ${others.join(", ")}` : ""
      }; ` +
        "convert it, or choose a repository that has one",
    );
  }
  // Weights come last, so that where they are everything is.
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

/** What a revision is now, and what it has. */
async function commitOf(repository: Repository, revision: string): Promise<Commit> {
  const { listFiles, modelInfo } = await import("@huggingface/hub");
  const { id, directory, endpoint: hubUrl } = repository;
  const fetch = requester(repository);
  const { sha } = await modelInfo({ name: id, revision, additionalFields: ["sha"], hubUrl, fetch });
  if (!isCommit(sha)) throw new Error(`Cannot fetch "${id}": the hub names no commit`);
  const entries = new Map<string, Entry>();
  const repo = { type: "model", name: id } as const;
  for await (const entry of listFiles({ repo, revision: sha, hubUrl, fetch })) {
    if (entry.type === "file") entries.set(entry.path, entry);
  }
  return { sha, entries, snapshot: join(directory, "snapshots", sha) };
}

/** The hub's bot that converts weights, and what it calls its pull requests. */
const CONVERTER = "SFconvertbot";
const CONVERSION_TITLE = "Adding `safetensors` variant of this model";

/** A pull request with the weights of a commit as safetensors. */
type Conversion = Commit & { readonly revision: string };

/**
 * The open pull request of the hub's bot, whom alone Transformers trusts with this, that has the same pickle as a commit
 * and beside it what it was converted to; null if there is none, or the hub does not say.
 */
async function findConversion(
  repository: Repository,
  { entries }: Commit,
): Promise<Conversion | null> {
  const { id, endpoint } = repository;
  const fetch = requester(repository);
  const pickles = [...entries.values()].filter(({ path }) => /^pytorch_model\b/.test(path));
  const hashOf = (entry: Entry | undefined) => entry?.lfs?.oid ?? entry?.oid;
  try {
    for (let page = 0, seen = 0;; page++) {
      const response = await fetch(`${endpoint}/api/models/${id}/discussions?p=${page}`);
      const { count, discussions } = await response.json();
      for (const { title, status, isPullRequest, author, num } of discussions) {
        const isConversion = isPullRequest === true && title === CONVERSION_TITLE &&
          status === "open" && author?.name === CONVERTER && Number.isInteger(num);
        if (!isConversion) continue;
        const revision = `refs/pr/${num}`;
        const found = await commitOf(repository, revision);
        const isSame = pickles.every((entry) =>
          hashOf(found.entries.get(entry.path)) === hashOf(entry)
        );
        const isThere = found.entries.has("model.safetensors") ||
          found.entries.has("model.safetensors.index.json");
        if (isSame && isThere) return { ...found, revision };
      }
      seen += discussions.length;
      if (discussions.length === 0 || !(seen < count)) return null;
    }
  } catch {
    return null; // the pickle is there
  }
}

/** A `fetch` that sends the token, and throws what a user can act on. */
function requester({ id, revision, endpoint }: Repository): typeof fetch {
  const token = Deno.env.get("HF_TOKEN");
  return async (input, init) => {
    const headers = new Headers(init?.headers);
    // It is for the hub alone: `fetch` takes it off where it is sent on to another host.
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
      throw new AbsentError(
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
  if (!hash || !/^[0-9a-f]{40,64}$/.test(hash)) {
    throw new Error(`Cannot fetch ${path}: the hub names no hash of it`);
  }
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
    // The hash of a small file is git's, that of a large one SHA-256.
    const digest = lfs ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
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
    if (received !== size || digest.digest("hex") !== hash) {
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
