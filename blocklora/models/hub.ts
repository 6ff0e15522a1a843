/**
 * Finds models by path or by the id of a repository on the Hugging Face hub. A repository is
 * fetched only once.
 *
 * @module
 */

import { dirname } from "node:path";
import { exists, readJson, reasonOf } from "../system/files.ts";
import type { Repository } from "./hub_api.ts";
import { findSnapshot, type ModelLocation } from "./hub_cache.ts";
import { download, type DownloadProgress } from "./hub_download.ts";
import { cacheDirectory, endpointOf, isOn } from "./hub_environment.ts";
import { AbsentError, requester, UnreachableError, warnOfPlainText } from "./hub_request.ts";

/** Options of {@linkcode resolveModel}. */
export interface ResolveOptions {
  /** A branch, a tag or a commit. Default `"main"`. */
  readonly revision?: string;
  /** The commit that the weights are from. By default, the weights are searched for. */
  readonly weightsRevision?: string;
  /** Whether to look only on the hub, even if there is a path of that name. Default false. */
  readonly onlyHub?: boolean;
  /** Whether only the local cache may be used. By default, `HF_HUB_OFFLINE` decides. */
  readonly offline?: boolean;
  /** Called as bytes arrive. */
  readonly onProgress?: (progress: DownloadProgress) => void;
}

/** Whether a string has the form of a repository id, `OWNER/NAME`. */
export function isHubId(text: string): boolean {
  return /^\w[\w.-]*\/\w[\w.-]*$/.test(text);
}

/**
 * Where to find the model `spec`: the path `spec` if it exists, else the local copy of the hub
 * repository `spec` (`OWNER/NAME`) with its configuration, tokenizer and weights. The repository is
 * fetched only once; later calls make no request. If a revision has its weights only as a pickle,
 * they are taken from the pull request in which the hub's bot has converted the same file to
 * safetensors, if there is one. Transformers does the same. `HF_HUB_CACHE`, `HF_HOME`,
 * `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` have the same meaning as for Python's
 * `huggingface_hub`.
 *
 * @throws {Error} If there is no such path or repository, the repository is gated or has no
 * readable weights, or it is not in the cache and the hub cannot be reached.
 */
export async function resolveModel(
  spec: string,
  options: ResolveOptions = {},
): Promise<ModelLocation> {
  if (!options.onlyHub && await exists(spec)) {
    const { isFile } = await Deno.stat(spec);
    return { path: spec, weights: isFile ? dirname(spec) : spec, hub: null };
  }
  const repository = repositoryOf(spec, options.revision, options.weightsRevision);
  const cached = await findSnapshot(repository);
  if (cached.complete) return cached.location;
  if (isOffline(options)) {
    if (cached.usable) return cached.location;
    const [damaged] = cached.damaged;
    const lack = damaged === undefined
      ? `revision ${repository.revision} is not in ${repository.directory}`
      : `${damaged} in ${cached.location.path} is damaged`;
    throw new Error(
      `Cannot use "${spec}" offline: ${lack}, fetch it once without HF_HUB_OFFLINE`,
    );
  }
  await warnOfPlainText(repository.endpoint);
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
 * The content of a JSON file in a hub repository, from the cache if possible; null if there is no
 * such file or repository.
 *
 * @throws {Error} If the repository is gated, the file is not JSON, or the hub cannot be reached.
 */
export async function fetchJson(
  id: string,
  name: string,
  options: Pick<ResolveOptions, "revision" | "offline"> = {},
): Promise<unknown> {
  const repository = repositoryOf(id, options.revision);
  const { location, usable, complete } = await findSnapshot(repository);
  if (complete || (usable && isOffline(options))) return await readJson(location.path, name);
  const [revision, path] = [repository.revision, name].map(encodeURIComponent);
  const url = `${repository.endpoint}/${id}/resolve/${revision}/${path}`;
  await warnOfPlainText(repository.endpoint);
  try {
    return await (await requester(repository)(url)).json();
  } catch (error) {
    if (error instanceof AbsentError) return null;
    throw error instanceof SyntaxError ? new Error(`Cannot read ${url}: it is not JSON`) : error;
  }
}

function isOffline({ offline }: Pick<ResolveOptions, "offline">): boolean {
  return offline ?? isOn("HF_HUB_OFFLINE");
}

function repositoryOf(id: string, revision = "main", weightsRevision?: string): Repository {
  if (!isHubId(id)) {
    throw new Error(
      `Cannot find the model "${id}": there is no such path, ` +
        "and the id of a repository is OWNER/NAME",
    );
  }
  if (!/^\w[\w./-]*$/.test(revision) || revision.includes("..")) {
    throw new Error(
      `Cannot fetch "${id}": "${revision}" is no revision, name a branch, tag or commit`,
    );
  }
  return {
    id,
    revision,
    weightsRevision,
    directory: cacheDirectory(id),
    endpoint: endpointOf(),
  };
}
