/**
 * `deno task merge`: a whole model with its adapters folded in, or the adapter in PEFT's format.
 *
 * @module
 */

import { join } from "node:path";
import type { Clip } from "../../clip/clip.ts";
import { encodeSafetensors } from "../../tensor/encode_safetensors.ts";
import { sites } from "../methods/sites.ts";
import { saveAdapters } from "../methods/checkpoint.ts";
import { MODEL_FLAGS } from "./model_flags.ts";
import { namedIn } from "../models/chosen_model.ts";
import { openAdapted } from "../training/adapted_model.ts";
import { Console } from "../system/console.ts";
import {
  assertWritable,
  makeDirectory,
  namesIn,
  readText,
  writeTogether,
} from "../system/files.ts";
import { oneOf, text, UsageError } from "../system/flag.ts";
import { parseOnlyFlags } from "../system/flags.ts";
import { MODEL_FILES } from "../models/model_files.ts";
import { RUN_FILES } from "../training/run_directory.ts";
import { COMMON_FLAGS } from "./common_flags.ts";
import { userPath } from "../system/user_path.ts";

/** The usage line and the paragraph of the help. */
export const ABOUT = {
  usage: "octograd merge --adapter DIR --output DIR [--format model|peft] [flags]",
  about:
    `Writes a model with an adapter folded into its weights, in Hugging Face's layout, ready for any program that reads
CLIP; or, with --format peft, the adapter alone as PEFT reads it (Block-LoRA as the rank r/n LoRA that it equals).`,
};

// What is written must not have been rounded on the way: a merged model is always read in f32.
const { precision: _, ...modelFlags } = MODEL_FLAGS;

/** The flags of `merge`. */
export const FLAGS = {
  adapter: text<string | undefined>("DIR", "the adapter", undefined),
  output: text<string | undefined>("DIR", "where to write", undefined),
  format: oneOf(["model", "peft"], "the whole model, or the adapter for PEFT", "model"),
  dtype: oneOf(["F32", "F16", "BF16"], "how the model's weights are stored", "F32"),
  ...modelFlags,
  ...COMMON_FLAGS,
};

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

/** Runs the command and returns its exit code. */
export async function merge(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  if (flags.adapter === undefined || flags.output === undefined) {
    throw new UsageError("Cannot merge: give --adapter and --output, or see --help");
  }
  const console = new Console(flags.json);
  const [adapterPath, output] = [userPath(flags.adapter), userPath(flags.output)];
  const opened = await openAdapted(adapterPath, { ...flags, precision: "f32" }, console);
  const { clip, adapters } = opened;
  try {
    const isPeft = flags.format === "peft";
    const tokenizer = flags.tokenizer === undefined ? undefined : userPath(flags.tokenizer);
    const files = isPeft
      ? await peftFiles(opened)
      : await modelFiles(opened, tokenizer, flags.dtype);
    await checkOutput(output, Object.keys(files), [adapterPath, opened.directory]);
    const bytes = Object.values(files).reduce((sum, { length }) => sum + length, 0);
    await using _made = await makeDirectory(output);
    await assertWritable(output, bytes);
    await writeTogether(output, files);
    console.say(`${flags.format === "peft" ? "PEFT adapter" : "merged model"}: ${output}`);
    console.finish({ model: opened.name, adapterPath, output, format: flags.format });
    return 0;
  } finally {
    adapters.release();
    clip.release();
  }
}

type Adapted = Awaited<ReturnType<typeof openAdapted>>;
type Files = Record<string, Uint8Array | string>;

async function peftFiles({ adapters, origin, clip }: Adapted): Promise<Files> {
  const { weights, config } = await saveAdapters(adapters, namedIn(origin, clip), {
    format: "peft",
  });
  return { "adapter_model.safetensors": weights, "adapter_config.json": config };
}

/** A merged model in Hugging Face's layout, with all that Python's programs look for beside the weights. */
async function modelFiles(
  { name, kind, directory, clip, adapters }: Adapted,
  tokenizer: string | undefined,
  dtype: keyof typeof TORCH_DTYPES,
): Promise<Files> {
  const config = kind === "transformers" ? await readText(directory, "config.json") : null;
  if (config === null) {
    throw new Error(
      `Cannot write ${name} in Hugging Face's layout: it has no config.json, --format peft exports the adapter alone`,
    );
  }
  adapters.merge();
  const files: Files = {
    "model.safetensors": await encodeModel(clip, dtype),
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

const TORCH_DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

/**
 * A configuration that says how the weights beside it are stored, as transformers 5 calls it and as those before did. Its
 * text is changed and not made anew: `1.0` would become `1`, which transformers 5 refuses.
 */
function storedIn(config: string, dtype: keyof typeof TORCH_DTYPES): string {
  const name = JSON.stringify(TORCH_DTYPES[dtype]);
  const renamed = config.replace(
    /("(?:torch_)?dtype"\s*:\s*)(?:"[^"]*"|null)/g,
    (_, key) => `${key}${name}`,
  );
  const missing = ["torch_dtype", "dtype"].filter((key) => !(key in JSON.parse(renamed)))
    .map((key) => `\n  "${key}": ${name},`);
  return renamed.replace("{", `{${missing.join("")}`);
}

/** Throws if writing to a directory would change what is read, or leave parts of something else beside what is written. */
async function checkOutput(
  output: string,
  written: readonly string[],
  read: readonly string[],
): Promise<void> {
  const real = (path: string) => Deno.realPath(path).catch(() => path);
  const own = await real(output);
  if ((await Promise.all(read.map(real))).includes(own)) {
    throw new Error(
      `Cannot write to ${output}: what is merged is read from there, name another --output`,
    );
  }
  const known = [...MODEL_FILES, ...RUN_FILES, ...PEFT_FILES];
  const others = (await namesIn(output))
    .filter((name) => known.includes(name) && !written.includes(name));
  if (others.length === 0) return;
  throw new Error(
    `Cannot write to ${output}: it has ${others.join(", ")} of something else, ` +
      "remove them, or name another --output",
  );
}

/** The model as it is now as one safetensors file, with Hugging Face's names. */
async function encodeModel(
  clip: Clip,
  dtype: keyof typeof TORCH_DTYPES,
): Promise<Uint8Array<ArrayBuffer>> {
  const merged = new Map(
    sites(clip).map(({ module, linear }) => [`${module}.weight`, linear.weight]),
  );
  const tensors: Record<
    string,
    { dtype: typeof dtype; shape: readonly number[]; data: Float32Array<ArrayBuffer> }
  > = {};
  for (const name of clip.weights.names) {
    const weight = merged.get(name) ?? clip.weights.get(name);
    tensors[name] = {
      dtype,
      shape: weight.shape,
      data: await weight.data() as Float32Array<ArrayBuffer>,
    };
  }
  return encodeSafetensors(tensors, { format: "pt" });
}
