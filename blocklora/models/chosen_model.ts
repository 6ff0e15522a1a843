/**
 * The model that a user names, or the embedded one: where it is looked for, and what is written
 * down of it so that it is found again.
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

/** What the embedded model is called. */
export const EMBEDDED_NAME = "emoji-clip-tiny";

/** What a user says of a model. */
export interface ModelRequest {
  /** A path, or the id of a repository on the hub; the embedded model if not given. */
  readonly model: string | undefined;
  /** A branch, a tag or a commit of the repository. */
  readonly revision: string | undefined;
  /** Whether only the hub's cache may be used; if not, `HF_HUB_OFFLINE` decides. */
  readonly offline: boolean;
  /** The directory of the tokenizer, if it is not beside the model. */
  readonly tokenizer: string | undefined;
  /** How the model's matrices are stored on the GPU. */
  readonly precision?: PrecisionChoice;
}

/** What finds a model again from anywhere, and tells whether it is still the same. */
export interface ModelOrigin {
  /** An absolute path, the id of a repository on the hub, or the embedded model's name. */
  readonly model: string;
  /** The commit of the repository. */
  readonly revision?: string;
  /** The commit of the pull request that the weights are from, if they are not from the same. */
  readonly weightsRevision?: string;
  /** The model's {@linkcode OpenedModel.fingerprint}; 0.1 did not write it down. */
  readonly fingerprint?: string;
}

/** A model, and what it is called. */
export interface ChosenModel extends OpenedModel {
  /** As the user named it. */
  readonly name: string;
  /** What an adapter of it remembers. */
  readonly origin: ModelOrigin;
}

/** Where a model is looked for. */
export interface ModelSource {
  /** What the user or an adapter calls it. */
  readonly name: string;
  /** A path, or the id of a repository. */
  readonly spec: string;
  /** Whether only the hub may have it, whatever path there is of that name. */
  readonly onlyHub?: boolean;
  /** The revision on the hub, if the user asks for no other. */
  readonly revision?: string;
  /** The revision of its weights, if they are from another. */
  readonly weightsRevision?: string;
}

/**
 * Makes the GPU ready and opens a model on it: the one that is asked for, else the embedded one.
 */
export async function openChosen(request: ModelRequest, console: Console): Promise<ChosenModel> {
  return await openAt(await sourceOf(request.model), request, console);
}

/** Where a model is that a path or an id names; the embedded one, if nothing is named. */
export async function sourceOf(named: string | undefined): Promise<ModelSource> {
  if (named === undefined) return { name: EMBEDDED_NAME, spec: fileURLToPath(EMBEDDED_MODEL) };
  const path = userPath(named);
  return { name: named, spec: await exists(path) ? path : named };
}

/** Makes the GPU ready and opens the model that a source has. */
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
 * What PEFT is told of a model. Of its revisions PEFT gets the one whose weights are in the form
 * that was read.
 */
export function namedIn(
  { model: name, revision, weightsRevision }: ModelOrigin,
  model: Model,
): { name: string; revision?: string; model: Model } {
  return { name, revision: weightsRevision ?? revision, model };
}
