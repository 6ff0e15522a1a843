/**
 * `deno task evaluate`: the accuracy of a model, with or without adapters, on a data set.
 *
 * @module
 */

import { MODEL_FLAGS } from "./model_flags.ts";
import { openChosen } from "../models/chosen_model.ts";
import { openAdapted, type Remembered } from "../training/adapted_model.ts";
import { Classifier } from "../training/classifier.ts";
import { Console, percent } from "../system/console.ts";
import { text, toggle } from "../system/flag.ts";
import { parseOnlyFlags } from "../system/flags.ts";
import { ImageLoader } from "../data/loader.ts";
import { COMMON_FLAGS, IMAGE_FLAGS } from "./common_flags.ts";
import { openData } from "../data/open_data.ts";
import { userPath } from "../system/user_path.ts";
import { promptsFor } from "../training/prompts.ts";
import { score } from "../training/score.ts";

/** The usage line and the description in the help text. */
export const ABOUT = {
  usage: "octograd evaluate [--adapter DIR] [--data DIR] [flags]",
  about:
    `Prints the accuracy on a data set's test images, of the adapters in a directory that \`train\`
wrote (or PEFT), or zero-shot without --adapter.`,
};

/** The flags of `evaluate`. */
export const FLAGS = {
  adapter: text<string | undefined>(
    "DIR",
    "the adapter to evaluate; zero-shot if not given",
    undefined,
  ),
  ...MODEL_FLAGS,
  data: text<string | undefined>(
    "DIR",
    "as for train; the embedded images if not given",
    undefined,
  ),
  split: text<string | undefined>("FILE", "a split file, as train wrote it or CoOp's", undefined),
  template: text<string | undefined>(
    "TEXT",
    "the prompt; the adapter's, else the data set's",
    undefined,
  ),
  merge: toggle("fold the adapters into the weights first"),
  ...IMAGE_FLAGS,
  ...COMMON_FLAGS,
};

/** Runs the command and returns its exit code. */
export async function evaluate(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  const { dataset, given } = await openData(flags, console);
  const adapterPath = flags.adapter === undefined ? undefined : userPath(flags.adapter);
  const opened = adapterPath === undefined
    ? { ...await openChosen(flags, console), adapters: null, remembered: {} as Remembered }
    : await openAdapted(adapterPath, flags, console);
  const { model, preprocess, adapters, remembered } = opened;
  const loader = new ImageLoader(preprocess, { workers: flags.workers, onError: flags.onError });
  try {
    if (flags.merge) adapters?.merge();
    const template = flags.template ?? remembered.template ?? dataset.template ??
      "a photo of a {}.";
    const prompts = promptsFor(opened, dataset.classes, template, console);
    const classifier = new Classifier(model, prompts, remembered.logitScale);
    const result = await score(
      classifier,
      loader,
      dataset.test,
      dataset.classes,
      flags.batchSize,
      console,
    );
    classifier.release();
    prompts.release();
    for (const { name, images, correct } of result.classes) {
      if (images > 0) {
        console.say(
          `  ${percent(correct / images).padStart(7)}  ${name} (${correct} of ${images})`,
        );
      }
    }
    console.say(`accuracy: ${percent(result.accuracy)} (${result.correct} of ${result.images})`);
    console.finish({
      model: opened.name,
      data: given,
      template,
      adapterPath: adapterPath ?? null,
      accuracy: 100 * result.accuracy,
      correct: result.correct,
      images: result.images,
      classes: result.classes,
    });
    return 0;
  } finally {
    loader.close();
    adapters?.release();
    model.release();
  }
}
