/**
 * Training steps for cost estimates and timings, of any model, method and sizes.
 *
 * @module
 */

import type { Model, ModelDefinition } from "../../clip/model.ts";
import { Prompts } from "../../clip/text.ts";
import type { Precision } from "../../clip/weights.ts";
import type { DryGpu } from "../../tensor/device.ts";
import { limitMemory } from "../../tensor/memory.ts";
import { trim } from "../../tensor/queue.ts";
import type { Random } from "../../tensor/random.ts";
import { planMemory, type Planned, type PlanRequest } from "../cost/memory_plan.ts";
import { emptyModel, noise } from "../cost/models.ts";
import {
  countDryStep,
  countStep,
  type PreparedStep,
  type RealStepCost,
  type StepCost,
  type StepSizes,
  takeRealStep,
} from "../cost/step_cost.ts";
import type { MethodConfig } from "../methods/method.ts";
import { methodNamed } from "../methods/lookup.ts";
import { DEFAULT_RECIPE } from "../methods/recipe.ts";
import { parameterCount } from "./result.ts";
import { Trainer } from "./trainer.ts";

/** Options of a training step. */
export interface StepOptions extends StepSizes {
  /** The method that is trained. */
  readonly method: MethodConfig;
}

/** The cost of a training step of a model, by {@linkcode countStep}. */
export function stepCost(model: Model, options: StepOptions): StepCost {
  return countStep(prepareStep, model, options);
}

/** The cost of a training step of a model without its weights, by {@linkcode countDryStep}. */
export function dryStepCost(
  definition: ModelDefinition,
  precision: Precision,
  options: StepOptions,
  gpu?: DryGpu,
): StepCost {
  return countDryStep(prepareStep, () => emptyModel(definition, precision), options, gpu);
}

/** Takes and measures a real training step, by {@linkcode takeRealStep}. */
export async function realStep(
  model: Model,
  options: Omit<StepOptions, "warm">,
  random: Random,
): Promise<RealStepCost> {
  return await takeRealStep(prepareStep, model, options, random);
}

/** Finds the fastest memory plan that fits, by {@linkcode planMemory}. */
export function planStep(request: PlanRequest<StepOptions>): Planned {
  return planMemory(prepareStep, request);
}

/**
 * Prepares a step whose images and prompts are random, or all zeros without `random`.
 *
 * @throws {RangeError} If the adapters do not fit the model.
 */
export function prepareStep(
  model: Model,
  { method, promptTokens, batch, memory, memoryLimit = Infinity }: StepOptions,
  random?: Random,
): PreparedStep {
  const { vision: { imageSize }, text } = model;
  const longest = Math.max(...promptTokens);
  const draw = (below: number) => random ? random.next() % below : 0;
  const prompts = new Prompts(
    promptTokens.map((tokens) => ({
      ids: Int32Array.from({ length: longest }, () => draw(text!.vocabulary)),
      end: tokens - 1,
    })),
    text?.causal,
  );
  const task = { model, classes: promptTokens.length, prompts: () => prompts };
  const learner = methodNamed(method.method).learner(task, method, 1);
  const trainer = new Trainer(model, learner, prompts, DEFAULT_RECIPE, memory);
  const count = batch * 3 * imageSize ** 2;
  const images = {
    pixels: random ? noise(random, count) : new Float32Array(count),
    labels: Int32Array.from({ length: batch }, () => draw(promptTokens.length)),
  };
  trim();
  limitMemory(memoryLimit);
  return {
    parameters: parameterCount(learner),
    take: () => trainer.step(images),
    release: () => {
      limitMemory(Infinity);
      trainer.release();
      learner.release();
      prompts.release();
    },
  };
}
