/**
 * Measures the accuracy of a classifier on labelled images.
 *
 * @module
 */

import type { Sample } from "../data/dataset.ts";
import { checkClasses } from "../data/shots.ts";
import type { ImageLoader } from "../data/loader.ts";
import type { Console } from "../system/console.ts";
import type { Classifier, Prediction } from "./classifier.ts";

/** The accuracy of a classifier on labelled images. */
export interface Score {
  /** How many images were classified. */
  readonly images: number;
  /** How many of them were classified correctly (top 1). */
  readonly correct: number;
  /** `correct / images`. */
  readonly accuracy: number;
  /** The counts for each class. */
  readonly classes: readonly {
    readonly name: string;
    readonly images: number;
    readonly correct: number;
  }[];
  /** The true class of each image. */
  readonly labels: readonly number[];
  /** The predicted class of each image. */
  readonly predictions: readonly number[];
  /** The file of each image. */
  readonly paths: readonly string[];
}

/**
 * Classifies every sample, and compares the prediction to its label.
 *
 * @throws {Error} If no image of a class can be read, or `signal` is aborted.
 */
export async function score(
  classifier: Classifier,
  loader: ImageLoader,
  samples: readonly Sample[],
  names: readonly string[],
  batchSize: number,
  console: Console,
  signal?: AbortSignal,
): Promise<Score> {
  const classes = names.map((name) => ({ name, images: 0, correct: 0 }));
  const [truth, guesses]: [number[], number[]] = [[], []];
  const missed = new Set<string>();
  let [images, correct] = [0, 0];
  for await (const { pixels, labels, skipped } of loader.evaluation(samples, batchSize)) {
    signal?.throwIfAborted();
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
  checkClasses(names, samples, missed);
  const paths = samples.map(({ path }) => path).filter((path) => !missed.has(path));
  const accuracy = correct / images;
  return { images, correct, accuracy, classes, labels: truth, predictions: guesses, paths };
}
