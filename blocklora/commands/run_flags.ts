/**
 * Flags that configure a training run: the method, its recipe, and how it saves memory.
 *
 * @module
 */

import { dryTwin } from "../../tensor/device.ts";
import { limitMemory } from "../../tensor/memory.ts";
import { parseBytes } from "../cost/memory_plan.ts";
import { DEFAULT_ADAPTER } from "../methods/adapter_config.ts";
import type { MethodConfig } from "../methods/method.ts";
import { DEFAULT_RECIPE } from "../methods/recipe.ts";
import { methodNamed, METHODS } from "../methods/lookup.ts";
import {
  type Flag,
  type Flags,
  type FlagValues,
  number,
  oneOf,
  pair,
  text,
  toggle,
  UsageError,
  type Values,
} from "../system/flag.ts";
import { megabytes } from "../system/console.ts";
import { kebab } from "../system/flags.ts";
import { recipeOf, type RunConfig, type RunContext } from "../training/run_config.ts";
import { planStep } from "../training/step.ts";
import type { MemoryPlan } from "../cost/memory_plan.ts";
import { type CheckpointInterval, parseInterval } from "../training/training_checkpoint.ts";

/** The largest seed: dropout masks are drawn from 32 bits of it. */
export const MAX_SEED = 2 ** 32 - 1;

/** The flags of all methods. A flag that is not given has the preset of the selected method. */
const OF_METHODS: Flags = Object.fromEntries(
  METHODS.toReversed().flatMap(({ flags }) =>
    Object.entries(flags).map(([name, flag]) => [name, {
      ...flag,
      help: `${flag.help} [${flag.preset}]`,
      preset: undefined,
    }])
  ),
);

/**
 * Flags that select and configure the method. The flags of a method are known only to that method.
 */
export const METHOD_FLAGS: { readonly method: Flag<string> } = {
  method: oneOf(METHODS.map(({ name }) => name), "what learns", DEFAULT_ADAPTER.method),
  ...OF_METHODS,
};

/**
 * The configuration of the method that a command line asks for.
 *
 * @throws {UsageError} If a flag is given that belongs to another method.
 */
export function methodConfigOf(values: Values<typeof METHOD_FLAGS>): MethodConfig {
  const method = methodNamed(values.method);
  const given = values as FlagValues;
  for (const name of Object.keys(OF_METHODS)) {
    if (given[name] === undefined || name in method.flags) continue;
    throw new UsageError(
      `Cannot use --${kebab(name)} with ${method.name}: its flags are ${
        Object.keys(method.flags).map((name) => `--${kebab(name)}`).join(", ")
      }`,
    );
  }
  return method.configOf(Object.fromEntries(
    Object.entries(method.flags).map(([name, { preset }]) => [name, given[name] ?? preset]),
  ));
}

/** Flags that say how a training step saves memory. */
export const MEMORY_FLAGS = {
  memoryLimit: text<string | undefined>(
    "BYTES",
    "GPU memory to keep below, 4GB say: picks what is not chosen of the next three",
    undefined,
  ),
  recompute: oneOf<"on" | "off" | "auto">(
    ["on", "off", "auto"],
    "keep only what enters each block, and run it again in the backward pass",
    "auto",
  ),
  textChunk: number<number | undefined>(
    { from: 0, integer: true },
    "class prompts encoded at once, in two passes; 0 for all in one",
    undefined,
  ),
  microBatch: number<number | undefined>(
    { from: 0, integer: true },
    "images encoded at once; 0 for all",
    undefined,
  ),
};

/** The memory plan that the flags set explicitly. */
export function memoryPlanOf(
  { recompute, textChunk, microBatch }: Omit<Values<typeof MEMORY_FLAGS>, "memoryLimit">,
): MemoryPlan {
  return {
    ...(recompute !== "auto" && { recompute: recompute === "on" }),
    ...(textChunk !== undefined && { textChunk }),
    ...(microBatch !== undefined && { microBatch }),
  };
}

/** The bytes of `--memory-limit`; undefined without the flag. */
export function memoryLimitOf(
  { memoryLimit }: Values<typeof MEMORY_FLAGS>,
): number | undefined {
  if (memoryLimit === undefined) return undefined;
  try {
    return parseBytes(memoryLimit);
  } catch (error) {
    throw new UsageError(`Cannot use --memory-limit: ${(error as Error).message}`);
  }
}

/** Flags that say how often an unfinished run is saved. */
export const CHECKPOINT_FLAGS = {
  checkpointEvery: text(
    "TIME|N",
    "how often what is trained is saved, so that nothing older is lost: 30s, 5min, or steps",
    "1min",
  ),
};

/** The interval of `--checkpoint-every`. */
export function checkpointIntervalOf(
  { checkpointEvery }: Values<typeof CHECKPOINT_FLAGS>,
): CheckpointInterval {
  try {
    return parseInterval(checkpointEvery);
  } catch (error) {
    throw new UsageError(`Cannot use --checkpoint-every: ${(error as Error).message}`);
  }
}

/** Describes a memory plan in words. */
export function planText({ recompute, textChunk, microBatch }: MemoryPlan): string {
  const parts = [
    recompute ? "blocks recomputed" : "",
    textChunk ? `prompts in parts of ${textChunk}` : "",
    microBatch ? `images in parts of ${microBatch}` : "",
  ];
  return parts.filter((words) => words !== "").join(", ") || "the plain step";
}

/** The configuration with the fastest memory plan that fits a limit, which holds from here on. */
export function withinLimit(
  config: RunConfig,
  limit: number,
  { opened: { model }, prompts, batchSize, console }: RunContext,
  images: number,
): RunConfig {
  console.progress("counting what ways to need less memory would cost ...", true);
  const { memory, cost } = planStep({
    definition: model.definition,
    precisions: [model.precision],
    step: {
      method: config.method,
      batch: Math.min(batchSize, images),
      promptTokens: prompts.lengths,
      memory: config.memory,
    },
    limit,
    gpu: dryTwin(),
  });
  limitMemory(limit);
  console.note(
    `memory limit ${megabytes(limit)}: ${planText(memory)}; a step needs ${
      megabytes(cost.peakGpuBytes)
    } and ${(cost.flops.total / 1e9).toFixed(1)} GFLOP`,
  );
  return { ...config, memory };
}

/** Flags for the hyperparameters of the training. */
export const TRAINING_FLAGS = {
  iterations: number<number | undefined>(
    { from: 1, integer: true },
    "training steps [500 a shot]",
    undefined,
  ),
  learningRate: number<number | undefined>(
    { from: 0 },
    "AdamW's rate at the first step [2e-4]",
    undefined,
  ),
  minimumRate: number({ from: 0 }, "its rate at the end of the cosine", DEFAULT_RECIPE.minimumRate),
  weightDecay: number({ from: 0 }, "AdamW's weight decay", DEFAULT_RECIPE.weightDecay),
  betas: pair({ from: 0, to: 0.999999 }, "AdamW's decay rates", DEFAULT_RECIPE.betas),
  logitScale: number({ from: 0 }, "factor of the cosines", DEFAULT_RECIPE.logitScale),
  labelSmoothing: number({ from: 0, to: 1 }, "share of each label spread over all classes", 0),
  maxNorm: number({ from: 0 }, "largest norm of all gradients together, 0 for none", 0),
  cropScale: pair({ from: 0.0001, to: 1 }, "share of the area that random crops keep [0.08,1]", []),
  flip: toggle("mirror half of the training images", true),
};

/** The recipe of the embedded model. CLIP-LoRA's recipe, made for ViT-B/16, hardly trains it. */
const EMBEDDED_RECIPE = { learningRate: 5e-3, iterations: 300 } as const;
const EMBEDDED_CROP_SCALE = [0.8, 1] as const;
const CROP_SCALE = [0.08, 1] as const;
const ITERATIONS_A_SHOT = 500;

/** The values of the flags above, and of the flags for the model, the shots and the seed. */
type Chosen =
  & Values<typeof METHOD_FLAGS>
  & Values<typeof TRAINING_FLAGS>
  & Omit<Values<typeof MEMORY_FLAGS>, "memoryLimit">
  & { readonly model: string | undefined; readonly shots: number; readonly seed: number };

/**
 * The configuration that a command line asks for. Without `--model` it is for the embedded model,
 * which has different presets.
 */
export function runConfigOf(flags: Chosen): RunConfig {
  const embedded = flags.model === undefined;
  const method = methodNamed(flags.method);
  const recipe = embedded
    ? { ...EMBEDDED_RECIPE, ...method.embeddedRecipe }
    : { learningRate: DEFAULT_RECIPE.learningRate, ...method.recipe };
  const [least, most] = flags.cropScale.length === 2
    ? flags.cropScale
    : embedded
    ? EMBEDDED_CROP_SCALE
    : CROP_SCALE;
  if (least > most) throw new UsageError(`Cannot use --crop-scale: ${least} is more than ${most}`);
  return {
    method: methodConfigOf(flags),
    recipe: recipeOf({
      ...flags,
      betas: [flags.betas[0], flags.betas[1]],
      learningRate: flags.learningRate ?? recipe.learningRate,
      iterations: flags.iterations ?? recipe.iterations ?? ITERATIONS_A_SHOT * flags.shots,
    }),
    shots: flags.shots,
    seed: flags.seed,
    cropScale: [least, most],
    flip: flags.flip,
    memory: memoryPlanOf(flags),
  };
}
