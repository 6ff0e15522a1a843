/**
 * The runs of a sweep: one method, number of shots, seed and data set each, in its
 * directory.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import type { Score } from "./score.ts";
import type { Sample } from "../data/dataset.ts";
import { drawShots } from "../data/shots.ts";
import type { Baseline } from "../methods/baseline.ts";
import { methodNamed } from "../methods/lookup.ts";
import { exists } from "../system/files.ts";
import { featuresOf, type NamedFeatures } from "./cached_features.ts";
import { type Identity, ImageHashes } from "./identity.ts";
import {
  resultOf,
  type RunResult,
  thinned,
  timingOf,
  trainedResult,
  writeResult,
} from "./result.ts";
import { evaluateOn, trainLearner } from "./run.ts";
import { type RunConfig, type RunContext, settingsOf, taskOf } from "./run_config.ts";

/** One run of a sweep. */
export interface SweepRun {
  /** What is run, as the command line named it. */
  readonly name: string;
  /** A baseline, or null where a method is trained. */
  readonly baseline: Baseline | null;
  /** What is asked for; of a baseline only the shots, the seed and the logit scale count. */
  readonly config: RunConfig;
}

/** The name of a run's directory. */
export function directoryOf({ name, baseline, config: { shots, seed } }: SweepRun): string {
  return baseline && !baseline.learns ? name : `${name}-${shots}shots-seed${seed}`;
}

/** The runs on one data set, and what they share. */
export class DatasetRuns {
  readonly #context: RunContext;
  readonly #images: ImageHashes;
  #zeroShot: Score | null = null;
  #testFeatures: NamedFeatures | null = null;

  /** Computes nothing yet. */
  constructor(context: RunContext) {
    this.#context = context;
    this.#images = new ImageHashes(context.dataset);
  }

  /** What decides the numbers of a run beside its name. */
  settings({ baseline, config }: SweepRun): Record<string, unknown> {
    if (!baseline) return settingsOf(this.#context, config);
    const { opened: { name, model }, template } = this.#context;
    const { logitScale } = config.recipe;
    return {
      model: name,
      precision: model.precision,
      ...baseline.settings({ template, logitScale }),
    };
  }

  /** What a run reads. */
  async identity({ baseline, config: { shots, seed } }: SweepRun): Promise<Identity> {
    const { dataset, opened, console } = this.#context;
    console.progress(`reading the images of ${dataset.name}`);
    const reads = !baseline || baseline.learns;
    const [test, train] = await Promise.all([
      this.#images.of(dataset.test),
      reads ? this.#images.of(drawShots(dataset, shots, seed)) : null,
    ]);
    return { model: opened.fingerprint, train, test };
  }

  /** Runs one, and writes its directory at once; null if Ctrl-C ended it. */
  async run(run: SweepRun, directory: string): Promise<RunResult | null> {
    const parent = dirname(directory);
    const mark = `.${basename(directory)}.`;
    await Deno.mkdir(parent, { recursive: true });
    // What a process left that was killed in this run: two shares never have the same one.
    for await (const { name } of Deno.readDir(parent)) {
      if (name.startsWith(mark)) await Deno.remove(join(parent, name), { recursive: true });
    }
    const unfinished = join(parent, mark + crypto.randomUUID().slice(0, 8));
    await Deno.mkdir(unfinished);
    const result = run.baseline
      ? await this.#runBaseline(run.baseline, run, unfinished)
      : await this.#runMethod(run, unfinished);
    if (!result) {
      await Deno.remove(unfinished, { recursive: true });
      return null;
    }
    // One of other images or another model goes at once.
    const old = join(parent, `${mark}old`);
    if (await exists(directory)) await Deno.rename(directory, old);
    await Deno.rename(unfinished, directory);
    await Deno.remove(old, { recursive: true }).catch(() => {});
    return result;
  }

  async #runBaseline(
    baseline: Baseline,
    run: SweepRun,
    directory: string,
  ): Promise<RunResult> {
    const began = performance.now();
    const { dataset } = this.#context;
    const { shots, seed } = run.config;
    const { score, losses, parameters } = await baseline.predict({
      classes: dataset.classes.length,
      zeroShot: () => this.#scoreZeroShot(run),
      trainFeatures: () => this.#features(drawShots(dataset, shots, seed)),
      testFeatures: async () => this.#testFeatures ??= await this.#features(dataset.test),
    });
    const result: RunResult = {
      ...resultOf(this.#context, score),
      method: run.name,
      rank: null,
      blocks: null,
      shots: baseline.learns ? shots : 0,
      seed: baseline.learns ? seed : null,
      iterations: losses.length,
      trainableParameters: parameters,
      zeroShotAccuracy: null,
      losses: losses.length > 0 ? thinned(losses) : [],
      peakGpuBytes: null,
      peakBytesByOwner: null,
      settings: this.settings(run),
      identity: await this.identity(run),
    };
    await writeResult(directory, result, { seconds: (performance.now() - began) / 1000 });
    return result;
  }

  async #runMethod(run: SweepRun, directory: string): Promise<RunResult | null> {
    const { config } = run;
    const context = this.#context;
    const zeroShotAccuracy = 100 * (await this.#scoreZeroShot(run)).accuracy;
    const method = methodNamed(config.method.method);
    const learner = method.learner(taskOf(context), config.method, config.seed);
    try {
      const outcome = await trainLearner(context, config, learner, directory);
      if (outcome.interrupted) return null;
      const score = await evaluateOn(context, config.recipe.logitScale, learner);
      const result = trainedResult(context, config, outcome, score, {
        learner,
        zeroShotAccuracy,
        identity: await this.identity(run),
      });
      await writeResult(directory, result, timingOf(outcome));
      return result;
    } finally {
      learner.release();
    }
  }

  async #scoreZeroShot({ config: { recipe } }: SweepRun): Promise<Score> {
    return this.#zeroShot ??= await evaluateOn(this.#context, recipe.logitScale);
  }

  /** Image features of the model as it is. */
  async #features(samples: readonly Sample[]): Promise<NamedFeatures> {
    const { opened: { model }, loader, batchSize } = this.#context;
    return await featuresOf(model, loader, samples, batchSize);
  }
}
