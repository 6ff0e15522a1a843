/** The embedded model in other files, as other programs would have saved it. */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { EMBEDDED_MODEL, type OpenedModel, openModel } from "../blocklora/models/open_model.ts";
import { classPrompts } from "../blocklora/training/classifier.ts";
import { type ClipConfig, parseConfig } from "../clip/config.ts";
import { tensor } from "../tensor/create.ts";
import { encodeSafetensors, type TensorToSave } from "../tensor/encode_safetensors.ts";
import { scope } from "../tensor/scope.ts";
import { copyModel, withDirectory } from "./cli.ts";
import { encodeTorch } from "./encode_torch.ts";
import { openSafetensors, readJson } from "./reference.ts";

/** The directory of the embedded model. */
export const EMBEDDED = fileURLToPath(EMBEDDED_MODEL);
/** Its sizes. */
export const CONFIG: ClipConfig = parseConfig(
  await readJson(new URL("config.json", EMBEDDED_MODEL)),
);

/** Tensors by their names. */
export type Weights = Record<string, TensorToSave>;

async function embeddedWeights(): Promise<Weights> {
  const file = await openSafetensors(new URL("model.safetensors", EMBEDDED_MODEL));
  const entries = [...file.tensors].map(async ([name, { shape }]) =>
    [name, { dtype: "F16" as const, shape, data: await file.floats(name) }] as const
  );
  return Object.fromEntries(await Promise.all(entries));
}

/** Its weights. */
export const WEIGHTS = await embeddedWeights();
/** Another model of these sizes: every weight but the logit scale has the opposite sign. */
export const OTHERS: Weights = Object.fromEntries(
  Object.entries(WEIGHTS).map(([name, saved]) => [
    name,
    name === "logit_scale" ? saved : { ...saved, data: Float32Array.from(saved.data, (x) => -x) },
  ]),
);

/** A directory with the embedded model's small files, and the given ones. */
export async function modelIn(
  directory: string,
  files: Readonly<Record<string, unknown>>,
  without: readonly string[] = ["model.safetensors"],
): Promise<string> {
  await copyModel(directory);
  for (const name of without) await Deno.remove(join(directory, name));
  for (const [name, content] of Object.entries(files)) {
    const bytes = content instanceof Uint8Array
      ? content
      : new TextEncoder().encode(typeof content === "string" ? content : JSON.stringify(content));
    await Deno.writeFile(join(directory, name), bytes);
  }
  return directory;
}

/** Two images of its size. */
export const PIXELS = Float32Array.from(
  { length: 2 * 3 * 48 * 48 },
  (_, i) => ((i * 37) % 101 - 50) / 32,
);

/** Logits of an opened model, which is released. */
export async function logitsOf({ model: clip, tokenizer }: OpenedModel): Promise<number[]> {
  const prompts = classPrompts(clip, tokenizer, ["cat", "dog", "a café"], "a photo of a {}.");
  const logits = scope(() =>
    clip.logits(clip.imageFeatures(tensor(PIXELS, [2, 3, 48, 48])), clip.textFeatures(prompts))
  );
  const values = Array.from(await logits.data());
  for (const each of [logits, prompts, clip]) each.release();
  return values;
}

/** Opens a directory of the embedded model with other files, or one of the files there. */
export type Open = (
  files: Readonly<Record<string, unknown>>,
  without?: readonly string[],
  name?: string,
) => Promise<OpenedModel>;

/** Runs `body` with a directory for models. */
export function withModels(body: (open: Open, path: string) => Promise<void>): Promise<void> {
  return withDirectory(async (directory) => {
    const path = join(directory, "model");
    await body(async (files, without, name = "") => {
      await Deno.remove(path, { recursive: true }).catch(() => {});
      return await openModel(join(await modelIn(path, files, without), name));
    }, path);
  });
}

/** Two files of weights and what tells which tensor is in which. */
export function sharded(weights: Weights, format: "safetensors" | "bin"): Record<string, unknown> {
  const names = Object.keys(weights);
  const halves = [names.slice(0, 50), names.slice(50)];
  const encode = format === "bin" ? encodeTorch : encodeSafetensors;
  const stem = format === "bin" ? "pytorch_model" : "model";
  const files = halves.map((half, i): [string, Uint8Array] => [
    `${stem}-0000${i + 1}-of-00002.${format}`,
    encode(Object.fromEntries(half.map((name) => [name, weights[name]]))),
  ]);
  const map = halves.flatMap((half, i) => half.map((name) => [name, files[i][0]]));
  return {
    ...Object.fromEntries(files),
    [`${stem}.${format}.index.json`]: { metadata: {}, weight_map: Object.fromEntries(map) },
  };
}

/** Its `preprocessor_config.json`. */
export const PROCESSOR = await readJson(new URL("preprocessor_config.json", EMBEDDED_MODEL));
