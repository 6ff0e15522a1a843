/**
 * What the commands share: where paths begin, the data set that was chosen, how well a classifier does on it.
 *
 * @module
 */

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Prompts } from "../../clip/text.ts";
import {
  type Classifier,
  classPrompts,
  type Prediction,
  sameClasses,
} from "../training/classifier.ts";
import type { Console } from "../system/console.ts";
import { type Dataset, openDataset, type Sample } from "../data/dataset.ts";
import { choice, number, toggle } from "../system/flags.ts";
import type { ImageLoader } from "../data/loader.ts";
import type { OpenedModel } from "../models/open_model.ts";

/** The data set that comes with the project. */
export const EMBEDDED_DATA: URL = new URL("../fashion_mnist/", import.meta.url);

/** Flags of every command that reads images. */
export const IMAGE_FLAGS = {
  batchSize: number({ from: 1, whole: true }, "images a batch", 32),
  workers: number<number | undefined>(
    { from: 1, whole: true },
    "threads that decode images",
    undefined,
  ),
  onError: choice(["fail", "skip"], "what a broken image does", "fail"),
};

/** Flags of every command. */
export const COMMON_FLAGS = {
  json: toggle("print one JSON document on stdout, everything else on stderr"),
  help: toggle("print this help"),
};

/** The path that the user meant: relative ones begin where the command was typed, not where its task runs. */
export function userPath(path: string): string {
  return resolve(Deno.env.get("INIT_CWD") ?? ".", path);
}

/** Opens the data set that was chosen, by the split that was, else the embedded one; `given` is what the user called it. */
export async function openData(
  { data, split }: { readonly data: string | undefined; readonly split: string | undefined },
): Promise<{ dataset: Dataset; given: string }> {
  const root = data === undefined ? fileURLToPath(EMBEDDED_DATA) : userPath(data);
  const dataset = await openDataset(root, {
    split: split === undefined ? undefined : userPath(split),
  });
  return { dataset, given: data ?? "fashion_mnist" };
}

/** The prompts of classes, with a remark if two of them are the same. */
export function promptsFor(
  { clip, tokenizer }: Pick<OpenedModel, "clip" | "tokenizer">,
  classes: readonly string[],
  template: string,
  console: Console,
): Prompts {
  const same = sameClasses(classes, template);
  if (same) {
    console.note(
      `the classes ${
        same.map((name) => JSON.stringify(name)).join(" and ")
      } have the same prompt: ` +
        "no image can be told to be of one and not of the other",
    );
  }
  return classPrompts(clip, tokenizer, classes, template);
}

/** How a classifier does on labelled images. */
export interface Score {
  /** Images classified. */
  readonly images: number;
  /** Images whose first prediction is their label. */
  readonly correct: number;
  /** `correct / images`. */
  readonly accuracy: number;
  /** The same for each class. */
  readonly classes: readonly {
    readonly name: string;
    readonly images: number;
    readonly correct: number;
  }[];
  /** The class of each image. */
  readonly labels: readonly number[];
  /** What was predicted of it. */
  readonly predictions: readonly number[];
  /** Its file. */
  readonly paths: readonly string[];
}

/** Classifies every sample and compares with its label. */
export async function score(
  classifier: Classifier,
  loader: ImageLoader,
  samples: readonly Sample[],
  names: readonly string[],
  batchSize: number,
  console: Console,
): Promise<Score> {
  const classes = names.map((name) => ({ name, images: 0, correct: 0 }));
  const [truth, guesses]: [number[], number[]] = [[], []];
  const missed = new Set<string>();
  let [images, correct] = [0, 0];
  for await (const { pixels, labels, skipped } of loader.evaluation(samples, batchSize)) {
    for (const path of skipped) {
      missed.add(path);
      console.note(`skipped ${path}`);
    }
    if (labels.length === 0) continue;
    const predictions: Prediction[] = await classifier.predict(pixels);
    for (const [i, label] of labels.entries()) {
      const [guess] = predictions[i].classes;
      const hit = guess === label ? 1 : 0;
      truth.push(label);
      guesses.push(guess);
      classes[label].images++;
      classes[label].correct += hit;
      images++;
      correct += hit;
    }
    console.progress(`evaluating ${images} of ${samples.length} images`, false);
  }
  if (images === 0) throw new Error("Cannot evaluate: not one image could be read");
  const paths = samples.map(({ path }) => path).filter((path) => !missed.has(path));
  const accuracy = correct / images;
  return { images, correct, accuracy, classes, labels: truth, predictions: guesses, paths };
}
