/**
 * Trains and evaluates one run, and writes its directory.
 *
 * @module
 */

import { join } from "node:path";
import { gpuName } from "../../tensor/device.ts";
import { tensor } from "../../tensor/create.ts";
import { scope } from "../../tensor/scope.ts";
import { namedIn } from "../models/chosen_model.ts";
import { type Score, score } from "./score.ts";
import { checkClasses, drawShots } from "../data/shots.ts";
import { writeSplit } from "../data/split.ts";
import { onHost } from "../methods/host_tensors.ts";
import type { Learner } from "../methods/method.ts";
import { methodNamed } from "../methods/lookup.ts";
import { exists, writeTogether } from "../system/files.ts";
import { featureBatches, featuresOf } from "./cached_features.ts";
import { Classifier } from "./classifier.ts";
import { type LoadedBatch, type Outcome, trainingLoop } from "./loop.ts";
import { checkTrained } from "./loss_board.ts";
import { Metrics } from "./metrics.ts";
import type { RunConfig, RunContext } from "./run_config.ts";
import type { Claim } from "./run_directory.ts";
import { Trainer } from "./trainer.ts";
import {
  type CheckpointInterval,
  type RunNote,
  type TrainingCheckpoint,
  writeCheckpoint,
} from "./training_checkpoint.ts";

/** The score of the model on the test images, with whatever `learner` adds to it. */
export async function evaluateOn(
  { opened: { model }, dataset, prompts, loader, batchSize, console, signal }: RunContext,
  logitScale: number,
  learner?: Learner,
): Promise<Score> {
  const classifier = new Classifier(model, prompts, logitScale, learner);
  try {
    const { test, classes } = dataset;
    return await score(classifier, loader, test, classes, batchSize, console, signal);
  } finally {
    classifier.release();
  }
}

/** A run that is being made: its directory, and what it goes on from. */
export interface RunInProgress {
  /** Its directory. */
  readonly claim: Claim;
  /** What its checkpoints tell of it. */
  readonly note: RunNote;
  /** The checkpoint of an earlier process; null if there is none. */
  readonly from: TrainingCheckpoint | null;
  /** How often a checkpoint is written. */
  readonly every: CheckpointInterval;
}

/** A trained run. */
export interface Trained {
  /** What came of the steps. */
  readonly outcome: Outcome;
  /** Its metrics, to which more may be added. */
  readonly metrics: Metrics;
}

/**
 * Trains `learner`, or goes on with it, and saves it and its metrics to the directory where the run
 * is made.
 */
export async function trainLearner(
  context: RunContext,
  config: RunConfig,
  learner: Learner,
  run: RunInProgress,
  profiled = false,
): Promise<Trained> {
  const { opened: { origin, model }, dataset, template, prompts, batchSize } = context;
  const { recipe, shots, seed, cropScale, flip, memory } = config;
  const { claim, from, note, every } = run;
  const trainer = new Trainer(model, learner, prompts, recipe, memory);
  try {
    if (from) goOn(trainer, from, context);
    const metrics = await Metrics.begin(claim.metrics, from?.metrics ?? "");
    const outcome = await trainingLoop(trainer, batchesOf(context, config, trainer), {
      iterations: recipe.iterations,
      console: context.console,
      profiled,
      signal: context.signal,
      metrics,
      begun: from?.progress ?? null,
      every,
      async save(progress, remake = false) {
        const tensors = await onHost(trainer.state());
        checkTrained(tensors, progress.steps, trainer.rateOf(progress.steps - 1));
        if (remake) await Deno.mkdir(claim.path, { recursive: true });
        else if (!await exists(claim.path)) {
          throw new Error(`Cannot write to ${claim.path}: the directory has been removed or moved`);
        }
        await writeCheckpoint(claim.path, { note, progress, tensors, metrics: metrics.text });
      },
    });
    const { learningRate, minimumRate, weightDecay, betas, labelSmoothing, maxNorm } = recipe;
    const told = { learningRate, minimumRate, weightDecay, betas, labelSmoothing, maxNorm };
    const method = methodNamed(config.method.method);
    const { weights, config: written } = await method.save(learner, namedIn(origin, model), {
      extra: {
        ...origin,
        classes: dataset.classes,
        template,
        logitScale: recipe.logitScale,
        shots,
        seed,
        iterations: outcome.iterations,
        recipe: { ...told, cropScale, flip, batchSize },
        ...(outcome.interrupted && { interrupted: true }),
      },
    });
    await writeTogether(claim.path, {
      "adapter_model.safetensors": weights,
      "adapter_config.json": written,
    });
    if (dataset.drawn) await writeSplit(dataset, join(claim.path, "split.json"));
    return { outcome, metrics };
  } finally {
    trainer.release();
  }
}

/** The batches of the steps that are left. */
async function* batchesOf(
  context: RunContext,
  { recipe: { iterations }, shots, seed, cropScale, flip }: RunConfig,
  trainer: Trainer,
): AsyncGenerator<LoadedBatch> {
  const { dataset, loader, batchSize } = context;
  const samples = drawShots(dataset, shots, seed);
  const options = { batchSize, iterations, seed, from: trainer.steps };
  if (!trainer.changesTowers) {
    // The features of each image are computed once, without augmentation.
    return yield* featureBatches(await featuresOf(context, samples), options);
  }
  for await (const batch of loader.training(samples, { ...options, scale: cropScale, flip })) {
    if (batch.skipped.length > 0) checkClasses(dataset.classes, samples, batch.skipped);
    yield batch;
  }
}

/** Takes over what the steps before a checkpoint have changed. */
function goOn(trainer: Trainer, from: TrainingCheckpoint, { console }: RunContext): void {
  const { note: { device }, progress: { steps, epochs }, tensors } = from;
  for (let epoch = 1; epoch <= epochs; epoch++) trainer.endEpoch(epoch);
  scope(() =>
    trainer.restore(
      steps,
      Object.fromEntries(
        Object.entries(tensors).map(([name, { data, shape }]) => [name, tensor(data, shape)]),
      ),
    )
  );
  console.note(`going on after step ${steps}`);
  if (device === gpuName()) return;
  console.note(`the run began on ${device}: on ${gpuName()} its numbers may differ a little`);
}
