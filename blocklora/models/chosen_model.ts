/**
 * The model that a command line names, opened on the GPU.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import type { PrecisionChoice } from "../../clip/weights.ts";
import { init } from "../../tensor/device.ts";
import { type Console, megabytes } from "../system/console.ts";
import { exists } from "../system/files.ts";
import { userPath } from "../system/user_path.ts";
import { EMBEDDED_MODEL, type OpenedModel, openModel } from "./open_model.ts";

/** What the embedded model is called. */
export const EMBEDDED_NAME = "emoji-clip-tiny";

/** How a model is named. */
export interface NamedBy {
  readonly model: string | undefined;
  readonly revision: string | undefined;
  readonly offline: boolean;
  readonly tokenizer: string | undefined;
  readonly precision?: PrecisionChoice;
}

/** A model, and what it is called. */
export interface ChosenModel extends OpenedModel {
  /** As the user named it. */
  readonly name: string;
  /** What an adapter of it remembers, so that it is found again from anywhere. */
  readonly origin: Origin;
}

/** Where a model is from. */
export interface Origin {
  /** An absolute path, the id of a repository on the hub, or the embedded one's name. */
  readonly model: string;
  /** The commit of the repository. */
  readonly revision?: string;
  /** The commit of the pull request that the weights are from, if they are not from the same. */
  readonly weightsRevision?: string;
  /** The model's {@linkcode OpenedModel.fingerprint}. */
  readonly fingerprint?: string;
}

/** Where a model is looked for. */
export interface ModelLocation {
  /** As the user named it, or an adapter. */
  readonly name: string;
  /** A path, or the id of a repository. */
  readonly spec: string;
  /** Whether only the hub may have it, whatever path there is of that name. */
  readonly onlyHub?: boolean;
  /** The revision of the hub. */
  readonly revision?: string;
  /** And that of the weights, if it is another. */
  readonly weightsRevision?: string;
}

/** Makes the GPU ready and opens a model on it: the one chosen, else the embedded one. */
export async function openChosen(chosen: NamedBy, console: Console): Promise<ChosenModel> {
  return await openAt(await locationOf(chosen.model), chosen, console);
}

/** Where a model is that a path or an id names; the embedded one, if nothing does. */
export async function locationOf(named: string | undefined): Promise<ModelLocation> {
  if (named === undefined) return { name: EMBEDDED_NAME, spec: fileURLToPath(EMBEDDED_MODEL) };
  const path = userPath(named);
  return { name: named, spec: await exists(path) ? path : named };
}

/** Opens a model where it is. */
export async function openAt(
  { name, spec, onlyHub, revision, weightsRevision }: ModelLocation,
  chosen: NamedBy,
  console: Console,
): Promise<ChosenModel> {
  await init();
  const { tokenizer, precision, offline } = chosen;
  const opened = await openModel(spec, {
    onlyHub,
    revision: chosen.revision ?? revision,
    weightsRevision: chosen.revision === undefined ? weightsRevision : undefined,
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
  const origin: Origin = {
    model: isEmbedded ? EMBEDDED_NAME : hub?.id ?? path,
    ...(hub && { revision: hub.commit }),
    ...(hub?.weightsCommit && { weightsRevision: hub.weightsCommit }),
    fingerprint,
  };
  return { ...opened, name, origin };
}
