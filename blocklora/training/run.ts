/**
 * Trains and evaluates one run, and writes its directory.
 *
 * @module
 */

import { join } from "node:path";
import { namedIn } from "../models/chosen_model.ts";
import { type Score, score } from "./score.ts";
import { drawShots } from "../data/shots.ts";
import { writeSplit } from "../data/split.ts";
import type { Learner } from "../methods/method.ts";
import { methodNamed } from "../methods/lookup.ts";
import { writeTogether } from "../system/files.ts";
import { featureBatches, featuresOf } from "./cached_features.ts";
import { Classifier } from "./classifier.ts";
import { type Outcome, trainingLoop } from "./loop.ts";
import type { RunConfig, RunContext } from "./run_config.ts";
import { Trainer } from "./trainer.ts";

/** The score of the model on the test images, with whatever `learner` adds to it. */
export async function evaluateOn(
  { opened: { model }, dataset, prompts, loader, batchSize, console }: RunContext,
  logitScale: number,
  learner?: Learner,
): Promise<Score> {
  const classifier = new Classifier(model, prompts, logitScale, learner);
  try {
    return await score(classifier, loader, dataset.test, dataset.classes, batchSize, console);
  } finally {
    classifier.release();
  }
}

/** Trains `learner`, and saves it and its metrics to a directory. */
export async function trainLearner(
  context: RunContext,
  config: RunConfig,
  learner: Learner,
  directory: string,
  profiled = false,
): Promise<Outcome> {
  const { opened: { origin, model }, dataset, template, prompts, loader, batchSize } = context;
  const { recipe, shots, seed, cropScale, flip, memory } = config;
  const trainer = new Trainer(model, learner, prompts, recipe, memory);
  try {
    const samples = drawShots(dataset, shots, seed);
    const { iterations } = recipe;
    // If neither tower changes, the features of each image are computed once, without augmentation.
    const batches = learner.changes("vision") || learner.changes("text")
      ? loader.training(samples, { batchSize, iterations, seed, scale: cropScale, flip })
      : featureBatches(await featuresOf(model, loader, samples, batchSize), {
        batchSize,
        iterations,
        seed,
      });
    const outcome = await trainingLoop(trainer, batches, {
      iterations,
      directory,
      console: context.console,
      profiled,
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
    await writeTogether(directory, {
      "adapter_model.safetensors": weights,
      "adapter_config.json": written,
    });
    if (dataset.drawn) await writeSplit(dataset, join(directory, "split.json"));
    return outcome;
  } finally {
    trainer.release();
  }
}
