/**
 * Finds and opens the model that a user names, or the embedded one, and records what is needed to
 * find it again.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import type { Model } from "../../clip/model.ts";
import type { PrecisionChoice } from "../../clip/weights.ts";
import { init } from "../../tensor/device.ts";
import { type Console, megabytes } from "../system/console.ts";
import { exists } from "../system/files.ts";
import { userPath } from "../system/user_path.ts";
import { EMBEDDED_MODEL, type OpenedModel, openModel } from "./open_model.ts";

/** The name of the embedded model. */
export const EMBEDDED_NAME = "emoji-clip-tiny";

/** The model that a user asks for. */
export interface ModelRequest {
  /** A path, or the id of a repository on the hub; undefined for the embedded model. */
  readonly model: string | undefined;
  /** A branch, a tag or a commit of the repository. */
  readonly revision: string | undefined;
  /** Whether only the local cache of the hub may be used. If false, `HF_HUB_OFFLINE` decides. */
  readonly offline: boolean;
  /** The directory of the tokenizer, if it is not in the model's directory. */
  readonly tokenizer: string | undefined;
  /** How the model's matrices are stored on the GPU. */
  readonly precision?: PrecisionChoice;
}

/**
 * What is needed to find a model again from any directory, and to check that it has not changed.
 */
export interface ModelOrigin {
  /** An absolute path, the id of a repository on the hub, or the embedded model's name. */
  readonly model: string;
  /** The commit of the repository. */
  readonly revision?: string;
  /** The commit of the pull request that the weights are from, if they are not from `revision`. */
  readonly weightsRevision?: string;
  /** The model's {@linkcode OpenedModel.fingerprint}. Version 0.1 did not record it. */
  readonly fingerprint?: string;
}

/** An opened model, with its name and origin. */
export interface ChosenModel extends OpenedModel {
  /** The name that the user or an adapter gives it. */
  readonly name: string;
  /** What the adapters of this model record about it. */
  readonly origin: ModelOrigin;
}

/** Where to look for a model. */
export interface ModelSource {
  /** The name that the user or an adapter gives it. */
  readonly name: string;
  /** A path, or the id of a repository. */
  readonly spec: string;
  /** Whether to look only on the hub, even if there is a path of that name. */
  readonly onlyHub?: boolean;
  /** The revision on the hub, unless the user asks for another. */
  readonly revision?: string;
  /** The revision of the weights, if they are from another one. */
  readonly weightsRevision?: string;
}

/** Initializes the GPU, and opens the requested model on it, or the embedded one. */
export async function openChosen(request: ModelRequest, console: Console): Promise<ChosenModel> {
  return await openAt(await sourceOf(request.model), request, console);
}

/**
 * Where to find the model that a path or an id names, or the embedded one if `named` is undefined.
 */
export async function sourceOf(named: string | undefined): Promise<ModelSource> {
  if (named === undefined) return { name: EMBEDDED_NAME, spec: fileURLToPath(EMBEDDED_MODEL) };
  const path = userPath(named);
  return { name: named, spec: await exists(path) ? path : named };
}

/** Initializes the GPU, and opens the model of a source on it. */
export async function openAt(
  { name, spec, onlyHub, revision, weightsRevision }: ModelSource,
  request: ModelRequest,
  console: Console,
): Promise<ChosenModel> {
  await init();
  const { tokenizer, precision, offline } = request;
  const opened = await openModel(spec, {
    onlyHub,
    revision: request.revision ?? revision,
    weightsRevision: request.revision === undefined ? weightsRevision : undefined,
    offline: offline || undefined,
    tokenizer: tokenizer === undefined ? undefined : userPath(tokenizer),
    precision,
    onNote: (note) => console.note(note),
    onProgress: ({ file, received, total }) =>
      console.progress(
        `fetching ${file}: ${megabytes(received)} of ${megabytes(total)}`,
        received === total,
      ),
  });
  const { hub, path, fingerprint } = opened;
  const isEmbedded = spec === fileURLToPath(EMBEDDED_MODEL);
  const origin: ModelOrigin = {
    model: isEmbedded ? EMBEDDED_NAME : hub?.id ?? path,
    ...(hub && { revision: hub.commit }),
    ...(hub?.weightsCommit && { weightsRevision: hub.weightsCommit }),
    fingerprint,
  };
  return { ...opened, name, origin };
}

/**
 * The model, with the name and revision that PEFT gets. The revision is the one whose weight files
 * were read here.
 */
export function namedIn(
  { model: name, revision, weightsRevision }: ModelOrigin,
  model: Model,
): { name: string; revision?: string; model: Model } {
  return { name, revision: weightsRevision ?? revision, model };
}
