/**
 * `deno task merge`: a whole model with its adapters folded in, or the adapter in PEFT's format.
 *
 * @module
 */

import { basename, join } from "node:path";
import { encodeSafetensors } from "../tensor/safetensors.ts";
import type { Clip } from "../clip/clip.ts";
import { sites } from "./attach.ts";
import { saveAdapters } from "./checkpoint.ts";
import { MODEL_FLAGS, namedIn, openAdapted } from "./chosen_model.ts";
import { Console } from "./console.ts";
import { writeAtomically } from "./file_source.ts";
import { choice, parseOnlyFlags, text, UsageError } from "./flags.ts";
import { exists } from "./model_files.ts";
import { assertWritable, COMMON_FLAGS, userPath } from "./workspace.ts";

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
  format: choice(["model", "peft"], "the whole model, or the adapter for PEFT", "model"),
  dtype: choice(["F32", "F16", "BF16"], "how the model's weights are stored", "F32"),
  ...modelFlags,
  ...COMMON_FLAGS,
};

/** Files of a model that a merged one shares, besides its tokenizer's. */
const MODEL_FILES = ["config.json", "preprocessor_config.json"];
const TOKENIZER_FILES = [
  "vocab.json",
  "merges.txt",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
];

/** Runs the command and returns its exit code. */
export async function merge(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  if (flags.adapter === undefined || flags.output === undefined) {
    throw new UsageError("Cannot merge: give --adapter and --output, or see --help");
  }
  const console = new Console(flags.json);
  const [adapterPath, output] = [userPath(flags.adapter), userPath(flags.output)];
  const opened = await openAdapted(adapterPath, { ...flags, precision: "f32" }, console);
  const { clip, adapters, path } = opened;
  try {
    const files: Record<string, Uint8Array | string> = {};
    if (flags.format === "peft") {
      const model = namedIn(opened.origin, clip);
      const { weights, config } = await saveAdapters(adapters, model, { format: "peft" });
      files["adapter_model.safetensors"] = weights;
      files["adapter_config.json"] = config;
    } else {
      if (!await exists(join(path, "config.json"))) {
        throw new Error(
          `Cannot write ${opened.name} in Hugging Face's layout: it has no config.json, --format peft exports the adapter alone`,
        );
      }
      adapters.merge();
      files["model.safetensors"] = await encodeModel(clip, flags.dtype);
      const tokenizer = flags.tokenizer === undefined ? path : userPath(flags.tokenizer);
      for (
        const source of [
          ...MODEL_FILES.map((name) => join(path, name)),
          ...TOKENIZER_FILES.map((name) => join(tokenizer, name)),
        ]
      ) {
        if (await exists(source)) files[basename(source)] = await Deno.readFile(source);
      }
    }
    const bytes = Object.values(files).reduce((sum, { length }) => sum + length, 0);
    await assertWritable(output, bytes);
    await Deno.mkdir(output, { recursive: true });
    for (const [name, content] of Object.entries(files)) {
      await writeAtomically(join(output, name), content);
    }
    console.say(`${flags.format === "peft" ? "PEFT adapter" : "merged model"}: ${output}`);
    console.finish({ model: opened.name, adapterPath, output, format: flags.format });
    return 0;
  } finally {
    adapters.release();
    clip.release();
  }
}

/** The model as it is now as one safetensors file, with Hugging Face's names. */
async function encodeModel(
  clip: Clip,
  dtype: "F32" | "F16" | "BF16",
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
