/**
 * The inputs of a run: the context that it runs in, and its configuration.
 *
 * @module
 */

import type { Prompts } from "../../clip/text.ts";
import type { ChosenModel } from "../models/chosen_model.ts";
import type { Dataset } from "../data/dataset.ts";
import type { ImageLoader } from "../data/loader.ts";
import type { MethodConfig, Task } from "../methods/method.ts";
import type { Recipe } from "../methods/recipe.ts";
import type { Console } from "../system/console.ts";
import { classPrompts } from "./classifier.ts";
import type { MemoryPlan } from "../cost/memory_plan.ts";

/** What a run works with: a model, a data set, and the loader of its images. */
export interface RunContext {
  /** The model, and what the user calls it. */
  readonly opened: ChosenModel;
  /** The images. */
  readonly dataset: Dataset;
  /** The prompt template, with `{}` for the class name. */
  readonly template: string;
  /** The prompts of all classes, made from the template. */
  readonly prompts: Prompts;
  /** Loads the batches of images. */
  readonly loader: ImageLoader;
  /** Images per batch. */
  readonly batchSize: number;
  /** Where progress is reported. */
  readonly console: Console;
  /** Is aborted when the process is asked to stop. */
  readonly signal?: AbortSignal;
}

/** The configuration of a run. */
export interface RunConfig {
  /** The method, and its configuration. */
  readonly method: MethodConfig;
  /** The hyperparameters of the training. */
  readonly recipe: Recipe;
  /** Training images per class. */
  readonly shots: number;
  /** The seed of the shots, the initial values and the crops. The dropout uses `recipe.seed`. */
  readonly seed: number;
  /** The smallest and largest fraction of the image area that a random crop covers. */
  readonly cropScale: readonly [number, number];
  /** Whether training images are mirrored with probability 1/2. */
  readonly flip: boolean;
  /** How a training step saves memory. */
  readonly memory: MemoryPlan;
}

/** The task that a method learns in a context. */
export function taskOf({ opened: { model, tokenizer }, dataset }: RunContext): Task {
  return {
    model,
    classes: dataset.classes.length,
    prompts: (template) => classPrompts(model, tokenizer, dataset.classes, template),
  };
}

/**
 * Everything in a run's configuration that determines its numbers, besides the method, the shots
 * and the seed.
 */
export function settingsOf(
  { opened, template, batchSize }: Pick<RunContext, "opened" | "template" | "batchSize">,
  { method, recipe, cropScale, flip, memory }: RunConfig,
): Record<string, unknown> {
  const { method: _name, rank: _rank, blocks: _blocks, ...more } = method;
  return {
    model: opened.name,
    precision: opened.model.precision,
    template,
    ...more,
    ...recipeOf(recipe),
    cropScale,
    flip,
    batchSize,
    ...memory,
  };
}

/**
 * Only the fields of a recipe. `recipe` may be an object with other command-line flags in it, which
 * are dropped.
 */
export function recipeOf(recipe: Recipe): Recipe {
  const { learningRate, minimumRate, weightDecay, betas, iterations, logitScale } = recipe;
  const { labelSmoothing, maxNorm, seed } = recipe;
  return {
    ...{ learningRate, minimumRate, weightDecay, betas, iterations, logitScale },
    ...{ labelSmoothing, maxNorm, seed },
  };
}
