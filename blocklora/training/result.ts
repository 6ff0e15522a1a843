/**
 * The result files of a finished run.
 *
 * @module
 */

import { join, relative } from "node:path";
import manifest from "../../deno.json" with { type: "json" };
import { gpuName } from "../../tensor/device.ts";
import type { BytesByCategory } from "../../tensor/memory.ts";
import type { Score } from "./score.ts";
import type { Learner } from "../methods/method.ts";
import { writeAtomically } from "../system/files.ts";
import type { Identity } from "./identity.ts";
import type { Outcome } from "./loop.ts";
import { type RunConfig, type RunContext, settingsOf } from "./run_config.ts";

/**
 * The content of `result.json`. It holds nothing that could differ between two runs of the same
 * configuration.
 */
export interface RunResult {
  /** The version of this format. */
  readonly format: 1;
  /** The version of octograd. */
  readonly version: string;
  /** The name of the GPU, as it reports it. */
  readonly device: string;
  /** The model, as the command line named it. */
  readonly model: string;
  /** The data set's name. */
  readonly data: string;
  /** The names of its classes. */
  readonly classes: readonly string[];
  /** The prompt template. */
  readonly template: string;
  /** The name of a method or of a baseline. */
  readonly method: string;
  /** The nominal rank; null if the method has none. */
  readonly rank: number | null;
  /** The number of blocks that the rank is split into; null if the method has none. */
  readonly blocks: number | null;
  /** Training images per class; 0 if nothing was trained. */
  readonly shots: number;
  /** The seed of the shots, the adapters, the crops and the dropout. */
  readonly seed: number | null;
  /** Number of training steps. */
  readonly iterations: number;
  /** Number of trained parameters. */
  readonly trainableParameters: number;
  /** Accuracy on the test images, in percent. */
  readonly accuracy: number;
  /** Accuracy before training, in percent. */
  readonly zeroShotAccuracy: number | null;
  /** The loss curve: at most 100 pairs of a step and the mean loss of the steps around it. */
  readonly losses: readonly (readonly [step: number, loss: number])[];
  /** The most GPU bytes that were live at once during training. */
  readonly peakGpuBytes: number | null;
  /** The same bytes by memory category. */
  readonly peakBytesByOwner: BytesByCategory | null;
  /** The true class of each test image. */
  readonly labels: readonly number[];
  /** The predicted class of each test image. */
  readonly predictions: readonly number[];
  /** The path of each test image, relative to the data set's root. */
  readonly images: readonly string[];
  /**
   * Everything else in the configuration that determines the numbers. Runs that differ in it are
   * different runs.
   */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Hashes of what the run read; missing in results of version 0.1. */
  readonly identity?: Identity;
}

/** The fields of a result that come from the context of the run and from its score. */
export function resultOf(
  { opened, dataset, template }: RunContext,
  { accuracy, labels, predictions, paths }: Pick<
    Score,
    "accuracy" | "labels" | "predictions" | "paths"
  >,
):
  & Pick<RunResult, "format" | "version" | "device" | "model" | "data" | "classes" | "template">
  & Pick<RunResult, "accuracy" | "labels" | "predictions" | "images"> {
  return {
    format: 1,
    version: manifest.version,
    device: gpuName(),
    model: opened.name,
    data: dataset.name,
    classes: dataset.classes,
    template,
    accuracy: 100 * accuracy,
    labels,
    predictions,
    images: paths.map((path) => relative(dataset.root, path)),
  };
}

/** The result of a trained method. */
export function trainedResult(
  context: RunContext,
  asked: RunConfig,
  outcome: Outcome,
  score: Score,
  { learner, zeroShotAccuracy, identity }: {
    learner: Learner;
    zeroShotAccuracy: number | null;
    identity: Identity;
  },
): RunResult {
  const { method: { method, rank, blocks }, shots, seed } = asked;
  return {
    ...resultOf(context, score),
    method,
    rank: rank ?? null,
    blocks: blocks ?? null,
    shots,
    seed,
    iterations: outcome.iterations,
    trainableParameters: parameterCount(learner),
    zeroShotAccuracy,
    losses: thinned(outcome.losses),
    peakGpuBytes: outcome.peakBytes,
    peakBytesByOwner: outcome.peakByCategory,
    settings: settingsOf(context, asked),
    identity,
  };
}

/** The number of trainable parameters. */
export function parameterCount({ groups }: Learner): number {
  const parameters = groups.flatMap(({ parameters }) => parameters);
  return parameters.reduce((count, { size }) => count + size, 0);
}

/** The timing of a run. */
export function timingOf(
  { seconds, secondsPerStep, imagesPerSecond }: Outcome,
): Pick<Outcome, "seconds" | "secondsPerStep" | "imagesPerSecond"> {
  return { seconds, secondsPerStep, imagesPerSecond };
}

/**
 * The means of a loss curve over at most 100 windows of equal size (the last may be smaller), each
 * with its middle step.
 */
export function thinned(losses: readonly number[]): [step: number, loss: number][] {
  const window = Math.ceil(losses.length / 100);
  return Array.from({ length: Math.ceil(losses.length / window) }, (_, i) => {
    const some = losses.slice(i * window, (i + 1) * window);
    const mean = some.reduce((total, loss) => total + loss, 0) / some.length;
    return [i * window + (some.length - 1) / 2, Number(mean.toPrecision(6))];
  });
}

/**
 * Writes `result.json`, and `timing.json` with what may differ between runs of the same
 * configuration.
 */
export async function writeResult(
  directory: string,
  result: RunResult,
  timing: Readonly<Record<string, unknown>>,
): Promise<void> {
  const json = (value: unknown) => `${JSON.stringify(value, null, 1)}\n`;
  const finished = { ...timing, finished: new Date().toISOString() };
  await writeAtomically(join(directory, "timing.json"), json(finished));
  await writeAtomically(join(directory, "result.json"), json(result));
}
