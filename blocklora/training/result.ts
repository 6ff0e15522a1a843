/**
 * What a finished run says of itself.
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
 * What `result.json` says of a finished run: nothing that differs from one run of the same settings
 * to the next.
 */
export interface RunResult {
  /** The version of this format. */
  readonly format: 1;
  /** Of octograd. */
  readonly version: string;
  /** As the adapter calls itself. */
  readonly device: string;
  /** As the command line named it. */
  readonly model: string;
  /** The data set's name. */
  readonly data: string;
  /** The names of its classes. */
  readonly classes: readonly string[];
  /** What they were put into. */
  readonly template: string;
  /** The name of a method or of a baseline. */
  readonly method: string;
  /** The nominal rank, of a method that has one. */
  readonly rank: number | null;
  /** In how many blocks it is cut. */
  readonly blocks: number | null;
  /** Training images a class; 0 where nothing was trained. */
  readonly shots: number;
  /** Of the shots, the adapters, the crops and the dropout. */
  readonly seed: number | null;
  /** Training steps. */
  readonly iterations: number;
  /** How many numbers were trained. */
  readonly trainableParameters: number;
  /** Percent of the test images. */
  readonly accuracy: number;
  /** The same before training. */
  readonly zeroShotAccuracy: number | null;
  /** At most 100 pairs of a step and the mean loss of those around it. */
  readonly losses: readonly (readonly [step: number, loss: number])[];
  /** The most GPU bytes that were live at once while it trained. */
  readonly peakGpuBytes: number | null;
  /** What they were. */
  readonly peakBytesByOwner: BytesByCategory | null;
  /** The class of each test image. */
  readonly labels: readonly number[];
  /** What was predicted of it. */
  readonly predictions: readonly number[];
  /** Its path, below the data set's root. */
  readonly images: readonly string[];
  /**
   * Whatever else was asked for and decided the numbers: a run of other settings is another run.
   */
  readonly settings: Readonly<Record<string, unknown>>;
  /** What it read; 0.1 did not say. */
  readonly identity?: Identity;
}

/** What every run on a setting has in common, and what its score says. */
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

/** The result of a method that was trained. */
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

/** How many numbers train. */
export function parameterCount({ groups }: Learner): number {
  const parameters = groups.flatMap(({ parameters }) => parameters);
  return parameters.reduce((count, { size }) => count + size, 0);
}

/** How long a run took. */
export function timingOf(
  { seconds, secondsPerStep, imagesPerSecond }: Outcome,
): Pick<Outcome, "seconds" | "secondsPerStep" | "imagesPerSecond"> {
  return { seconds, secondsPerStep, imagesPerSecond };
}

/** Means of a curve over at most 100 equal windows, each with its middle step. */
export function thinned(losses: readonly number[]): [step: number, loss: number][] {
  const window = Math.ceil(losses.length / 100);
  return Array.from({ length: Math.ceil(losses.length / window) }, (_, i) => {
    const some = losses.slice(i * window, (i + 1) * window);
    const mean = some.reduce((total, loss) => total + loss, 0) / some.length;
    return [i * window + (some.length - 1) / 2, Number(mean.toPrecision(6))];
  });
}

/** Writes `result.json`, and beside it what may differ from run to run: `timing.json`. */
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
