/**
 * `deno task classify IMAGE...`: the most likely classes of images.
 *
 * @module
 */

import { preprocess as prepare } from "../../clip/image.ts";
import { MODEL_FLAGS } from "./model_flags.ts";
import { openChosen } from "../models/chosen_model.ts";
import { openAdapted, type Remembered } from "../training/adapted_model.ts";
import { Classifier } from "../training/classifier.ts";
import { Console, percent } from "../system/console.ts";
import { decodeImage, ImageError } from "../data/decode.ts";
import { readBytes, reasonOf } from "../system/files.ts";
import { number, oneOf, text, UsageError } from "../system/flag.ts";
import { parseFlags } from "../system/flags.ts";
import { COMMON_FLAGS } from "./common_flags.ts";
import { userPath } from "../system/user_path.ts";
import { promptsFor } from "../training/prompts.ts";

/** The usage line and the description in the help text. */
export const ABOUT = {
  usage: "octograd classify IMAGE... (--adapter DIR | --classes NAME,NAME,...) [flags]",
  about: `Prints the likeliest classes of each image, with their probabilities: the classes that an
adapter was trained on, or any that are named.`,
};

/** The flags of `classify`. */
export const FLAGS = {
  adapter: text<string | undefined>("DIR", "the adapter to use; zero-shot if not given", undefined),
  classes: text<string | undefined>(
    "LIST",
    "class names, with commas between; the adapter's if not given",
    undefined,
  ),
  ...MODEL_FLAGS,
  template: text<string | undefined>(
    "TEXT",
    'the prompt; the adapter\'s, else "a photo of a {}."',
    undefined,
  ),
  top: number({ from: 1, integer: true }, "classes an image", 5),
  onError: oneOf(["fail", "skip"], "what a broken image does", "fail"),
  ...COMMON_FLAGS,
};

/** Runs the command and returns its exit code. */
export async function classify(args: readonly string[]): Promise<number> {
  const { values: flags, rest: paths } = parseFlags(args, FLAGS);
  if (paths.length === 0) {
    throw new UsageError("Cannot classify nothing: name at least one image, or see --help");
  }
  const console = new Console(flags.json);
  const adapterPath = flags.adapter === undefined ? undefined : userPath(flags.adapter);
  const named = flags.classes?.split(",").map((name) => name.trim()).filter(Boolean);
  if (adapterPath === undefined && !named?.length) {
    throw new UsageError("Cannot classify without classes: give --adapter or --classes");
  }
  const opened = adapterPath === undefined
    ? { ...await openChosen(flags, console), adapters: null, remembered: {} as Remembered }
    : await openAdapted(adapterPath, flags, console);
  const { model, preprocess, adapters, remembered } = opened;
  try {
    const classes = named ?? remembered.classes;
    if (!classes) {
      throw new UsageError(
        "Cannot classify: the adapter does not name its classes, give --classes",
      );
    }
    const template = flags.template ?? remembered.template ?? "a photo of a {}.";
    const prompts = promptsFor(opened, classes, template, console);
    const classifier = new Classifier(model, prompts, remembered.logitScale);
    const predictions = [];
    for (const path of paths) {
      try {
        const image = await decodeImage(await readImage(path), path);
        const [{ classes: likeliest, probabilities }] = await classifier.predict(
          prepare(image, preprocess),
          flags.top,
        );
        const top = likeliest.map((label, i) => ({
          label: classes[label],
          probability: probabilities[i],
        }));
        predictions.push({ path, top });
        console.say(path);
        for (const { label, probability } of top) {
          console.say(`  ${percent(probability).padStart(7)}  ${label}`);
        }
      } catch (error) {
        if (!(error instanceof ImageError) || flags.onError === "fail") throw error;
        console.note(`skipped: ${error.message}`);
      }
    }
    classifier.release();
    prompts.release();
    console.finish({ model: opened.name, adapterPath: adapterPath ?? null, template, predictions });
    return 0;
  } finally {
    adapters?.release();
    model.release();
  }
}

async function readImage(path: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await readBytes(userPath(path));
  } catch (error) {
    throw new ImageError(path, reasonOf(error));
  }
}
