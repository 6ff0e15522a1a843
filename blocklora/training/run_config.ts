/**
 * What a run is given: what it runs on, and what it is asked to do.
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

/** What runs on: a model, a data set, and how its images come. */
export interface RunContext {
  /** The model, and what it is called. */
  readonly opened: ChosenModel;
  /** The images. */
  readonly dataset: Dataset;
  /** What its class names are put into. */
  readonly template: string;
  /** The prompts that this makes. */
  readonly prompts: Prompts;
  /** Where batches come from. */
  readonly loader: ImageLoader;
  /** Images a batch. */
  readonly batchSize: number;
  /** Where progress is told. */
  readonly console: Console;
}

/** What a run is asked to do. */
export interface RunConfig {
  /** The method, and its configuration. */
  readonly method: MethodConfig;
  /** How it is trained. */
  readonly recipe: Recipe;
  /** Training images a class. */
  readonly shots: number;
  /** Of the shots, what begins at random, and the crops; `recipe.seed` is that of the dropout. */
  readonly seed: number;
  /** Least and largest share of the area that random crops keep. */
  readonly cropScale: readonly [number, number];
  /** Whether half of the training images are mirrored. */
  readonly flip: boolean;
  /** What a step does to need less memory. */
  readonly memory: MemoryPlan;
}

/** What a method learns in a context. */
export function taskOf({ opened: { model, tokenizer }, dataset }: RunContext): Task {
  return {
    model,
    classes: dataset.classes.length,
    prompts: (template) => classPrompts(model, tokenizer, dataset.classes, template),
  };
}

/** What decides the numbers of a run, beside its method, shots and seed. */
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

/** The numbers of a recipe; command line flags that came along with them stay behind. */
export function recipeOf(recipe: Recipe): Recipe {
  const { learningRate, minimumRate, weightDecay, betas, iterations, logitScale } = recipe;
  const { labelSmoothing, maxNorm, seed } = recipe;
  return {
    ...{ learningRate, minimumRate, weightDecay, betas, iterations, logitScale },
    ...{ labelSmoothing, maxNorm, seed },
  };
}
