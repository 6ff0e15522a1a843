/**
 * `deno task merge`: writes a model with its adapters merged, or the adapter in PEFT's format.
 *
 * @module
 */

import { Console } from "../system/console.ts";
import { assertWritable, makeDirectory, writeTogether } from "../system/files.ts";
import { oneOf, text, toggle, UsageError } from "../system/flag.ts";
import { parseOnlyFlags } from "../system/flags.ts";
import { userPath } from "../system/user_path.ts";
import { openAdapted } from "../training/adapted_model.ts";
import { checkOutput, mergedFiles, peftFiles } from "../training/merged_model.ts";
import { COMMON_FLAGS } from "./common_flags.ts";
import { MODEL_FLAGS } from "./model_flags.ts";

/** The usage line and the description in the help text. */
export const ABOUT = {
  usage: "octograd merge --adapter DIR --output DIR [--format model|peft] [flags]",
  about:
    `Writes a model with an adapter folded into its weights, in Hugging Face's layout, ready for any
program that reads CLIP; or, with --format peft, the adapter alone as PEFT reads it (Block-LoRA as
the rank r/n LoRA that it equals).`,
};

// The model is always read in f32, so that its weights are not rounded before they are written.
const { precision: _, ...modelFlags } = MODEL_FLAGS;

/** The flags of `merge`. */
export const FLAGS = {
  adapter: text<string | undefined>("DIR", "the adapter", undefined),
  output: text<string | undefined>("DIR", "where to write", undefined),
  overwrite: toggle("replace the model or adapter that --output holds"),
  format: oneOf(["model", "peft"], "the merged model, or the adapter for PEFT", "model"),
  dtype: oneOf(["F32", "F16", "BF16"], "how the model's weights are stored", "F32"),
  ...modelFlags,
  ...COMMON_FLAGS,
};

/** Runs the command and returns its exit code. */
export async function merge(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  if (flags.adapter === undefined || flags.output === undefined) {
    throw new UsageError("Cannot merge: give --adapter and --output, or see --help");
  }
  const console = new Console(flags.json);
  const [adapterPath, output] = [userPath(flags.adapter), userPath(flags.output)];
  const opened = await openAdapted(adapterPath, { ...flags, precision: "f32" }, console);
  const { model, adapters } = opened;
  try {
    const isPeft = flags.format === "peft";
    const tokenizer = flags.tokenizer === undefined ? undefined : userPath(flags.tokenizer);
    const files = isPeft
      ? await peftFiles(opened)
      : await mergedFiles(opened, tokenizer, flags.dtype);
    const inputs = [adapterPath, opened.directory];
    await checkOutput(output, Object.keys(files), inputs, flags.overwrite);
    const bytes = Object.values(files).reduce((sum, { length }) => sum + length, 0);
    await using _made = await makeDirectory(output);
    await assertWritable(output, bytes);
    await writeTogether(output, files);
    console.say(`${flags.format === "peft" ? "PEFT adapter" : "merged model"}: ${output}`);
    console.finish({ model: opened.name, adapterPath, output, format: flags.format });
    return 0;
  } finally {
    adapters.release();
    model.release();
  }
}
