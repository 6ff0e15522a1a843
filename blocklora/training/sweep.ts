/**
 * The runs of a sweep. Each run has one method, number of shots, seed and data set, and a
 * directory.
 *
 * @module
 */

import type { Score } from "./score.ts";
import type { Sample } from "../data/dataset.ts";
import { drawShots } from "../data/shots.ts";
import type { Baseline } from "../methods/baseline.ts";
import { methodNamed } from "../methods/lookup.ts";
import { featuresOf, type NamedFeatures } from "./cached_features.ts";
import { completed } from "./completed.ts";
import { type Identity, ImageHashes } from "./identity.ts";
import { keyOf, type OpenedRun, openRun, SPARE_BYTES } from "./open_run.ts";
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
import { type CheckpointInterval, noteOf, type RunKey } from "./training_checkpoint.ts";

/** One run of a sweep. */
export interface SweepRun {
  /** What to run, as the command line named it. */
  readonly name: string;
  /** The baseline to run, or null if a method is trained. */
  readonly baseline: Baseline | null;
  /** The configuration of the run. A baseline uses only its shots, seed and logit scale. */
  readonly config: RunConfig;
}

/** The name of the directory of a run. */
export function directoryOf({ name, baseline, config: { shots, seed } }: SweepRun): string {
  return baseline && !baseline.learns ? name : `${name}-${shots}shots-seed${seed}`;
}

/**
 * Does the runs on one data set. The runs share the zero-shot score, the test features and the
 * hashes of the images, which are computed when first needed.
 */
export class DatasetRuns {
  readonly #context: RunContext;
  readonly #images: ImageHashes;
  readonly #every: CheckpointInterval;
  #zeroShot: Score | null = null;
  #testFeatures: NamedFeatures | null = null;

  /** Computes nothing yet. The runs write a checkpoint `every` so often. */
  constructor(context: RunContext, every: CheckpointInterval) {
    this.#context = context;
    this.#every = every;
    this.#images = new ImageHashes(context.dataset, context.signal);
  }

  /** What determines the numbers of a run, besides the method, the shots and the seed. */
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

  /** Hashes of the model and the images that a run reads. */
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

  /**
   * Does one run, or goes on with it. Its directory appears only once it is complete. Gives null if
   * the process is asked to stop.
   *
   * @throws {TakenError} If another process is doing it, or something else is there.
   */
  async run(run: SweepRun, directory: string): Promise<RunResult | null> {
    const { console } = this.#context;
    const identity = await this.identity(run);
    const settings = this.settings(run);
    const key = run.baseline ? { settings, identity } : keyOf(this.#context, run.config, identity);
    const { claim: claimed, from } = await openRun(directory, key, {
      ...{ bytes: SPARE_BYTES, replaces: "other inputs", numbered: false, console },
    });
    await using claim = claimed;
    // Another process may have finished it since the caller looked.
    const finished = await completed(directory, settings, identity);
    if (finished) return finished;
    const result = run.baseline
      ? await this.#runBaseline(run.baseline, run, { directory: claim.path, key })
      : await this.#runMethod(run, { claim, from, key });
    if (result) await claim.publish();
    return result;
  }

  async #runBaseline(
    baseline: Baseline,
    run: SweepRun,
    { directory, key }: { directory: string; key: RunKey },
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
      ...key,
    };
    await writeResult(directory, result, { seconds: (performance.now() - began) / 1000 });
    return result;
  }

  async #runMethod(
    run: SweepRun,
    { claim, from, key }: OpenedRun & { key: RunKey },
  ): Promise<RunResult | null> {
    const { config } = run;
    const context = this.#context;
    const zeroShot = from?.note.zeroShot ?? await this.#scoreZeroShot(run);
    const method = methodNamed(config.method.method);
    const learner = method.learner(taskOf(context), config.method, config.seed);
    try {
      const { outcome } = await trainLearner(context, config, learner, {
        ...{ claim, from, note: noteOf(key, zeroShot, null), every: this.#every },
      });
      if (outcome.interrupted) return null;
      const score = await evaluateOn(context, config.recipe.logitScale, learner);
      const result = trainedResult(context, config, outcome, score, {
        learner,
        zeroShotAccuracy: 100 * zeroShot.accuracy,
        identity: key.identity,
      });
      await writeResult(claim.path, result, timingOf(outcome));
      return result;
    } finally {
      learner.release();
    }
  }

  async #scoreZeroShot({ config: { recipe } }: SweepRun): Promise<Score> {
    return this.#zeroShot ??= await evaluateOn(this.#context, recipe.logitScale);
  }

  /** Image features of the unadapted model. */
  async #features(samples: readonly Sample[]): Promise<NamedFeatures> {
    return await featuresOf(this.#context, samples);
  }
}
