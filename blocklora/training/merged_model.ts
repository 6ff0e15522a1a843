/**
 * The files of a model with its adapters merged, or of the adapters alone, for use by other
 * programs.
 *
 * @module
 */

import { join } from "node:path";
import type { Model } from "../../clip/model.ts";
import { encodeSafetensors } from "../../tensor/encode_safetensors.ts";
import { firstNonFinite } from "../../tensor/finite.ts";
import { saveAdapters } from "../methods/checkpoint.ts";
import { sites } from "../methods/sites.ts";
import { namedIn } from "../models/chosen_model.ts";
import { MODEL_FILES } from "../models/model_files.ts";
import { namesIn, readBytes, readText, reasonOf } from "../system/files.ts";
import type { AdaptedModel } from "./adapted_model.ts";
import { RUN_FILES } from "./run_directory.ts";

/** Files that are copied from the original model, besides those of the tokenizer. */
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

/** The contents of files, by file name. */
export type Files = Record<string, Uint8Array | string>;

/** The files of an adapter in PEFT's format. */
export async function peftFiles({ adapters, origin, model }: AdaptedModel): Promise<Files> {
  const { weights, config } = await saveAdapters(adapters, namedIn(origin, model), {
    format: "peft",
  });
  return { "adapter_model.safetensors": weights, "adapter_config.json": config };
}

/**
 * The files of a merged model in Hugging Face's layout, with everything that Python programs look
 * for beside the weights. Merges the adapters into the model, which stays merged.
 *
 * @param tokenizer The directory of the tokenizer, if it is not the model's directory.
 * @param dtype How the weights are stored.
 * @throws {Error} If the model has another layout, or its weights do not fit the dtype.
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
      const path = join(from, name);
      files[name] = await readBytes(path).catch((error) => {
        throw new Error(`Cannot copy ${path}: ${reasonOf(error)}`);
      });
    }
  }
  return files;
}

/**
 * The text of `config` with the dtype of the stored weights, under the key that transformers 5
 * reads and under the one that earlier versions read. The text is edited rather than parsed and
 * written again, because that would turn `1.0` into `1`, which transformers 5 rejects.
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
 * Throws if writing to the directory `output` would overwrite input files or, unasked, an earlier
 * model or adapter, or would mix the new files with those of another model, run or adapter.
 *
 * @param written The names of the files that will be written.
 * @param read The directories that are read.
 * @param overwrite Whether files of the same names may be replaced.
 */
export async function checkOutput(
  output: string,
  written: readonly string[],
  read: readonly string[],
  overwrite: boolean,
): Promise<void> {
  const real = (path: string) => Deno.realPath(path).catch(() => path);
  const directory = await real(output);
  if ((await Promise.all(read.map(real))).includes(directory)) {
    throw new Error(
      `Cannot write to ${output}: what is merged is read from there, name another --output`,
    );
  }
  const known = [...MODEL_FILES, ...RUN_FILES, ...PEFT_FILES];
  const names = await namesIn(output);
  const strangers = names.filter((name) => known.includes(name) && !written.includes(name));
  if (strangers.length > 0) {
    throw new Error(
      `Cannot write to ${output}: it has ${strangers.join(", ")} of something else, ` +
        "remove them, or name another --output",
    );
  }
  const earlier = names.filter((name) => written.includes(name));
  if (earlier.length === 0 || overwrite) return;
  throw new Error(
    `Cannot write to ${output}: it has ${earlier.join(", ")} already, ` +
      "replace that with --overwrite, or name another --output",
  );
}

/** The current weights of the model as one safetensors file with Hugging Face's names. */
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
    const data = await weight.data() as Float32Array<ArrayBuffer>;
    const at = firstNonFinite(data);
    if (at >= 0) {
      throw new RangeError(
        `Cannot save "${name}": it holds ${data[at]} with the adapter merged, ` +
          "the adapter or the model is broken",
      );
    }
    tensors[name] = { dtype, shape: weight.shape, data };
  }
  return encodeSafetensors(tensors, { format: "pt" });
}
