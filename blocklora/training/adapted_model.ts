/**
 * The model that an adapter was trained on, with the adapter in it.
 *
 * @module
 */

import { basename, join } from "node:path";
import type { Clip } from "../../clip/clip.ts";
import { isObject } from "../../clip/json.ts";
import { NoAdapterError } from "../../tensor/errors.ts";
import type { Adapters } from "../methods/adapters.ts";
import { loadAdapters } from "../methods/lookup.ts";
import {
  type ChosenModel,
  EMBEDDED_NAME,
  locationOf,
  type ModelLocation,
  type NamedBy,
  openAt,
  type Origin,
} from "../models/chosen_model.ts";
import { isHubId } from "../models/hub.ts";
import { openTensors } from "../models/open_model.ts";
import type { Console } from "../system/console.ts";
import { exists, namesIn, openFile, readJson } from "../system/files.ts";
import { userPath } from "../system/user_path.ts";

/** What an adapter directory remembers of its training, beside the adapters. */
export interface Remembered {
  /** The model: an absolute path, the id of a repository on the hub, or the embedded one's name. */
  readonly model?: string;
  /** The commit of the repository. */
  readonly revision?: string;
  /** The commit of the pull request that the weights are from, if they are not from the same. */
  readonly weightsRevision?: string;
  /** The model's {@linkcode OpenedModel.fingerprint}; 0.1 did not keep it, nor whole paths. */
  readonly fingerprint?: string;
  /** The class names, in the order of the labels. */
  readonly classes?: readonly string[];
  /** What the names were put into. */
  readonly template?: string;
  /** The factor of the cosines. */
  readonly logitScale?: number;
}

/** What PEFT is told of a model: of its revisions, the one that has the weights in the form that is read. */
export function namedIn(
  { model, revision, weightsRevision }: Origin,
  clip: Clip,
): { name: string; revision?: string; clip: Clip } {
  return { name: model, revision: weightsRevision ?? revision, clip };
}

/**
 * Opens the model that an adapter directory was made for, and puts its adapters into it. A model that the adapter itself
 * names must be the one that it was trained on; one that the user names, one of that kind.
 */
export async function openAdapted(
  directory: string,
  chosen: NamedBy,
  console: Console,
): Promise<ChosenModel & { adapters: Adapters; remembered: Remembered }> {
  const config = await readJson(directory, "adapter_config.json");
  const names = await namesIn(directory);
  const weights = ["adapter_model.safetensors", "adapter_model.bin"]
    .find((name) => names.includes(name));
  if (config === null || !weights) {
    throw new Error(
      `Cannot find an adapter in ${directory}: it needs adapter_config.json and adapter_model.safetensors`,
    );
  }
  const base = baseOf(config);
  const location = chosen.model === undefined
    ? await locationOfBase(base, directory)
    : await locationOf(chosen.model);
  const opened = await openAt(location, chosen, console).catch((error) => {
    if (chosen.model !== undefined || error instanceof NoAdapterError) throw error;
    throw new Error(
      `${error.message}; the adapter was trained on it, say with --model where it is`,
    );
  });
  try {
    if (chosen.model !== undefined) await checkNamed(opened, base, directory, console);
    else if (chosen.revision === undefined) checkSame(opened, base, directory);
    using source = await openFile(join(directory, weights));
    const { adapters, extra } = await loadAdapters(opened.clip, await openTensors(source), config);
    return { ...opened, adapters, remembered: extra };
  } catch (error) {
    opened.clip.release();
    if (!(error instanceof RangeError) || base.model === undefined) throw error;
    throw new RangeError(`${error.message}; it was trained on ${base.model}`);
  }
}

/** The model that an adapter's files name, and whose files they are. */
type Base =
  & Pick<Remembered, "model" | "revision" | "weightsRevision" | "fingerprint">
  & { readonly by: "octograd" | "PEFT" };

function baseOf(config: unknown): Base {
  const { octograd, base_model_name_or_path, revision } = isObject(config) ? config : {};
  const text = (value: unknown) => typeof value === "string" && value !== "" ? value : undefined;
  const named = text(base_model_name_or_path);
  if (!isObject(octograd)) return { by: "PEFT", model: named, revision: text(revision) };
  return {
    by: "octograd",
    model: text(octograd.model) ?? named,
    revision: text(octograd.revision),
    weightsRevision: text(octograd.weightsRevision),
    fingerprint: text(octograd.fingerprint),
  };
}

/** Where the model is that an adapter names. */
async function locationOfBase(base: Base, directory: string): Promise<ModelLocation> {
  const { by, model, revision, weightsRevision, fingerprint } = base;
  if (model === undefined) {
    throw new Error(
      `Cannot use the adapter in ${directory}: it does not name its model, give --model`,
    );
  }
  const onHub = { name: model, spec: model, onlyHub: true, revision, weightsRevision };
  if (fingerprint !== undefined && isHubId(model)) return onHub;
  const path = userPath(model);
  if (await exists(path)) return { name: model, spec: path };
  if (model === EMBEDDED_NAME) return await locationOf(undefined);
  // What 0.1 kept may be a path as it was typed in some directory: the hub has other models of such names.
  if (by === "PEFT" && isHubId(model)) return onHub;
  throw new Error(
    `Cannot use the adapter in ${directory}: the model that it was trained on, ${model}, is not there, ` +
      "say with --model where it is",
  );
}

/** Throws unless the model that an adapter names is still what it was. */
function checkSame({ fingerprint, origin }: ChosenModel, base: Base, directory: string): void {
  if (base.fingerprint === undefined || base.fingerprint === fingerprint) return;
  if (origin.model === EMBEDDED_NAME) return; // its weights are compared, as with a model that is named
  throw new Error(
    `Cannot use the adapter in ${directory}: ${base.model} is not the model any more that it was trained on ` +
      "(other weights, tokenizer or settings), say with --model where that is",
  );
}

/**
 * Throws if the model that the user names cannot be the one that a PEFT adapter names; where neither is certain, says so.
 * In ours, weights are compared.
 */
async function checkNamed(
  { name, path, hub, origin }: ChosenModel,
  { by, model }: Base,
  directory: string,
  console: Console,
): Promise<void> {
  if (by === "octograd" || model === undefined) return;
  const own = await readJson(path, "config.json").catch(() => null);
  const other = isObject(own) ? own._name_or_path : undefined;
  const last = (name: unknown) => basename(String(name)).toLowerCase();
  const names = [name, path, hub?.id, origin.model, other];
  if (names.some((name) => last(name) === last(model))) return;
  const message = `the adapter in ${directory} was made for ${model}, and --model is ${name}`;
  if (!isHubId(model) && !await exists(userPath(model))) return console.note(message);
  throw new Error(
    `Cannot use ${name}: ${message}; if they are the same, name it as base_model_name_or_path in adapter_config.json`,
  );
}
