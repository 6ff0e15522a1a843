/**
 * Loads the adapters of a directory into a model: the model that they were trained on, or another
 * that the user names.
 *
 * @module
 */

import { basename, join } from "node:path";
import { isObject } from "../../clip/json.ts";
import { NoAdapterError } from "../../tensor/errors.ts";
import type { Adapters } from "../methods/adapters.ts";
import { loadAdapters } from "../methods/lookup.ts";
import {
  type ChosenModel,
  EMBEDDED_NAME,
  type ModelOrigin,
  type ModelRequest,
  type ModelSource,
  openAt,
  sourceOf,
} from "../models/chosen_model.ts";
import { isHubId } from "../models/hub.ts";
import { openTensors } from "../models/tensor_files.ts";
import type { Console } from "../system/console.ts";
import { exists, namesIn, openFile, readJson } from "../system/files.ts";
import { userPath } from "../system/user_path.ts";

/**
 * What an adapter directory records about its training, besides the adapters. Version 0.1 recorded
 * paths as they were typed.
 */
export interface Remembered extends Partial<ModelOrigin> {
  /** The class names, in the order of the labels. */
  readonly classes?: readonly string[];
  /** The prompt template, with `{}` for the class name. */
  readonly template?: string;
  /** The factor that scales the cosine similarities. */
  readonly logitScale?: number;
}

/** A model with adapters loaded into it. */
export interface AdaptedModel extends ChosenModel {
  /** The adapters. */
  readonly adapters: Adapters;
  /** What their directory records about their training. */
  readonly remembered: Remembered;
}

/**
 * Opens the model that an adapter directory was made for, and loads its adapters into it. If the
 * user names no model, the model that the adapter names must be unchanged since training. A model
 * that the user names must have the same sizes and, where the adapter records a hash of them, the
 * same weights.
 *
 * @throws {Error} If there is no adapter, or its model is missing or has changed.
 * @throws {RangeError} If the adapter does not fit the model.
 */
export async function openAdapted(
  directory: string,
  request: ModelRequest,
  console: Console,
): Promise<AdaptedModel> {
  const config = await readJson(directory, "adapter_config.json");
  const names = await namesIn(directory);
  const weights = ["adapter_model.safetensors", "adapter_model.bin"]
    .find((name) => names.includes(name));
  if (config === null || !weights) {
    throw new Error(
      `Cannot find an adapter in ${directory}: ` +
        "it needs adapter_config.json and adapter_model.safetensors",
    );
  }
  const base = baseOf(config);
  const source = request.model === undefined
    ? await sourceOfBase(base, directory)
    : await sourceOf(request.model);
  const opened = await openAt(source, request, console).catch((error) => {
    if (request.model !== undefined || error instanceof NoAdapterError) throw error;
    throw new Error(
      `${error.message}; the adapter was trained on it, say with --model where it is`,
    );
  });
  try {
    if (request.model !== undefined) await checkNamed(opened, base, directory, console);
    else if (request.revision === undefined) checkSame(opened, base, directory);
    using file = await openFile(join(directory, weights));
    const { adapters, extra } = await loadAdapters(opened.model, await openTensors(file), config);
    return { ...opened, adapters, remembered: extra };
  } catch (error) {
    opened.model.release();
    if (!(error instanceof RangeError) || base.model === undefined) throw error;
    throw new RangeError(`${error.message}; it was trained on ${base.model}`);
  }
}

/** The model that an adapter's files name, and the program that wrote the files. */
type Base = Partial<ModelOrigin> & { readonly by: "octograd" | "PEFT" };

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

/** Where to find the model that an adapter names. */
async function sourceOfBase(base: Base, directory: string): Promise<ModelSource> {
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
  if (model === EMBEDDED_NAME) return await sourceOf(undefined);
  // Version 0.1 of octograd recorded paths as they were typed. Such a path may look like a hub id,
  // and the hub may have a different model under that id.
  if (by === "PEFT" && isHubId(model)) return onHub;
  throw new Error(
    `Cannot use the adapter in ${directory}: the model that it was trained on, ${model}, ` +
      "is not there, say with --model where it is",
  );
}

/** Throws if the model that an adapter names has changed since the adapter was trained. */
function checkSame({ fingerprint, origin }: ChosenModel, base: Base, directory: string): void {
  if (base.fingerprint === undefined || base.fingerprint === fingerprint) return;
  if (origin.model === EMBEDDED_NAME) return; // loadAdapters() compares its weights
  throw new Error(
    `Cannot use the adapter in ${directory}: ${base.model} is not the model any more that it was ` +
      "trained on (other weights, tokenizer or settings), say with --model where that is",
  );
}

/**
 * Throws if the model that the user names cannot be the one that a PEFT adapter names, and prints a
 * note if that is uncertain. Adapters from octograd need no such check: they identify their model
 * by its weights, which are compared when the adapter is loaded.
 */
async function checkNamed(
  { name, path, hub, origin }: ChosenModel,
  { by, model }: Base,
  directory: string,
  console: Console,
): Promise<void> {
  if (by === "octograd" || model === undefined) return;
  const config = await readJson(path, "config.json").catch(() => null);
  const stated = isObject(config) ? config._name_or_path : undefined;
  const last = (name: unknown) => basename(String(name)).toLowerCase();
  const names = [name, path, hub?.id, origin.model, stated];
  if (names.some((name) => last(name) === last(model))) return;
  const message = `the adapter in ${directory} was made for ${model}, and --model is ${name}`;
  if (!isHubId(model) && !await exists(userPath(model))) return console.note(message);
  throw new Error(
    `Cannot use ${name}: ${message}; ` +
      "if they are the same, name it as base_model_name_or_path in adapter_config.json",
  );
}
