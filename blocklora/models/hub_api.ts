/**
 * Asks the Hugging Face hub for the commits of a repository and their files.
 *
 * @module
 */

import { join } from "node:path";
import { requester, type Subject } from "./hub_request.ts";

/** A file of a repository, as the hub lists it. */
export interface Entry {
  /** Its path in the repository. */
  readonly path: string;
  /** Its size in bytes. */
  readonly size: number;
  /** The Git hash of the file. */
  readonly oid?: string;
  /** The SHA-256 hash of a large file, of which Git holds only a pointer. */
  readonly lfs?: { readonly oid: string };
}

/** A repository at a revision, and where it is cached. */
export interface Repository extends Subject {
  /** The revision of the weights, if it is known to be another one. */
  readonly weightsRevision: string | undefined;
  /** Its directory in the cache. */
  readonly directory: string;
}

/** A commit of a repository, and its files. */
export interface Commit {
  /** Its hash. */
  readonly sha: string;
  /** Its files by path. */
  readonly entries: ReadonlyMap<string, Entry>;
  /** Its directory in the cache. */
  readonly snapshot: string;
}

/** Whether a revision is the hash of a commit. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/** The commit that a revision currently points to. */
export async function commitOf(repository: Repository, revision: string): Promise<Commit> {
  const { id, directory, endpoint } = repository;
  const fetch = requester(repository);
  const api = `${endpoint}/api/models/${id}`;
  const { sha } = await (await fetch(`${api}/revision/${encodeURIComponent(revision)}`)).json();
  if (typeof sha !== "string" || !isCommit(sha)) {
    throw new Error(`Cannot fetch "${id}": the hub names no commit`);
  }
  const entries = new Map<string, Entry>();
  let page: string | undefined = `${api}/tree/${sha}`;
  while (page !== undefined) {
    const response: Response = await fetch(page);
    for (const entry of await response.json()) {
      if (entry.type === "file") entries.set(entry.path, entry);
    }
    page = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get("link") ?? "")?.[1];
  }
  return { sha, entries, snapshot: join(directory, "snapshots", sha) };
}

/** The bot of the hub that converts weights, and the title of its pull requests. */
const CONVERTER = "SFconvertbot";
const CONVERSION_TITLE = "Adding `safetensors` variant of this model";

/** The head commit of a pull request that has the weights of another commit as safetensors. */
export type Conversion = Commit & { readonly revision: string };

/**
 * The open pull request in which the hub's bot has converted the weights of a commit. It contains
 * the same pickle, with the converted weights beside it. Transformers accepts conversions only from
 * this bot. Null if there is none, or if the hub does not answer.
 */
export async function findConversion(
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
    return null; // the pickle is used instead
  }
}
