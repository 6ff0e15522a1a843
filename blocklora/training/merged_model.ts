/**
 * The files of a model with its adapters folded in, or of the adapters alone, for other programs.
 *
 * @module
 */

import { join } from "node:path";
import type { Model } from "../../clip/model.ts";
import { encodeSafetensors } from "../../tensor/encode_safetensors.ts";
import { saveAdapters } from "../methods/checkpoint.ts";
import { sites } from "../methods/sites.ts";
import { namedIn } from "../models/chosen_model.ts";
import { MODEL_FILES } from "../models/model_files.ts";
import { namesIn, readText } from "../system/files.ts";
import type { AdaptedModel } from "./adapted_model.ts";
import { RUN_FILES } from "./run_directory.ts";

/** Files that a merged model shares with the model, besides its tokenizer's. */
const SHARED_FILES = ["preprocessor_config.json", "processor_config.json"];
const TOKENIZER_FILES = [
  "vocab.json",
  "merges.txt",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
];
const PEFT_FILES = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"];

const TORCH_DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

/** How the weights of a merged model can be stored. */
export type StoredDtype = keyof typeof TORCH_DTYPES;

/** Contents of files by their names. */
export type Files = Record<string, Uint8Array | string>;

/** An adapter as PEFT reads it. */
export async function peftFiles({ adapters, origin, model }: AdaptedModel): Promise<Files> {
  const { weights, config } = await saveAdapters(adapters, namedIn(origin, model), {
    format: "peft",
  });
  return { "adapter_model.safetensors": weights, "adapter_config.json": config };
}

/**
 * A merged model in Hugging Face's layout, with all that Python's programs look for beside the
 * weights. Its adapters are merged afterwards.
 *
 * @param tokenizer The directory of its tokenizer, if it is not the model's.
 * @param dtype How its weights are stored.
 * @throws {Error} If the model has another layout, or its weights do not fit into the dtype.
 */
export async function mergedFiles(
  { name, kind, directory, model, adapters }: AdaptedModel,
  tokenizer: string | undefined,
  dtype: StoredDtype,
): Promise<Files> {
  const config = kind === "transformers" ? await readText(directory, "config.json") : null;
  if (config === null) {
    throw new Error(
      `Cannot write ${name} in Hugging Face's layout: it has no config.json, ` +
        "--format peft exports the adapter alone",
    );
  }
  adapters.merge();
  const files: Files = {
    "model.safetensors": await encodeModel(model, dtype),
    "config.json": storedIn(config, dtype),
  };
  for (
    const [from, names] of [
      [directory, SHARED_FILES],
      [tokenizer ?? directory, TOKENIZER_FILES],
    ] as const
  ) {
    const held = await namesIn(from);
    for (const name of names.filter((name) => held.includes(name))) {
      files[name] = await Deno.readFile(join(from, name));
    }
  }
  return files;
}

/**
 * A configuration that says how the weights beside it are stored, by the key of transformers 5 and
 * by that of earlier ones. Its text is edited, not written anew from what it says: `1.0` would
 * become `1`, which transformers 5 refuses.
 */
function storedIn(config: string, dtype: StoredDtype): string {
  const name = JSON.stringify(TORCH_DTYPES[dtype]);
  const renamed = config.replace(
    /("(?:torch_)?dtype"\s*:\s*)(?:"[^"]*"|null)/g,
    (_, key) => `${key}${name}`,
  );
  const missing = ["torch_dtype", "dtype"].filter((key) => !(key in JSON.parse(renamed)))
    .map((key) => `\n  "${key}": ${name},`);
  return renamed.replace("{", `{${missing.join("")}`);
}

/**
 * Throws if writing to a directory would change what is read, or leave files of another model, run
 * or adapter beside what is written.
 *
 * @param written The names of the files to be written.
 * @param read The directories that are read.
 */
export async function checkOutput(
  output: string,
  written: readonly string[],
  read: readonly string[],
): Promise<void> {
  const real = (path: string) => Deno.realPath(path).catch(() => path);
  const directory = await real(output);
  if ((await Promise.all(read.map(real))).includes(directory)) {
    throw new Error(
      `Cannot write to ${output}: what is merged is read from there, name another --output`,
    );
  }
  const known = [...MODEL_FILES, ...RUN_FILES, ...PEFT_FILES];
  const strangers = (await namesIn(output))
    .filter((name) => known.includes(name) && !written.includes(name));
  if (strangers.length === 0) return;
  throw new Error(
    `Cannot write to ${output}: it has ${strangers.join(", ")} of something else, ` +
      "remove them, or name another --output",
  );
}

/** The weights of the model as they are now, as one safetensors file with Hugging Face's names. */
async function encodeModel(
  model: Model,
  dtype: StoredDtype,
): Promise<Uint8Array<ArrayBuffer>> {
  const merged = new Map(
    sites(model).map(({ module, linear }) => [`${module}.weight`, linear.weight]),
  );
  const tensors: Record<
    string,
    { dtype: StoredDtype; shape: readonly number[]; data: Float32Array<ArrayBuffer> }
  > = {};
  for (const name of model.weights.names) {
    const weight = merged.get(name) ?? model.weights.get(name);
    tensors[name] = {
      dtype,
      shape: weight.shape,
      data: await weight.data() as Float32Array<ArrayBuffer>,
    };
  }
  return encodeSafetensors(tensors, { format: "pt" });
}
