/**
 * What a command line may choose of a training: adapters, recipe, and what saves memory.
 *
 * @module
 */

import {
  type Adaptable,
  type AdapterConfig,
  DEFAULT_ADAPTER,
  ENCODERS,
  METHODS,
} from "../methods/attach.ts";
import { choice, number, pair, text, toggle, UsageError, type Values } from "../system/flags.ts";
import { type Choice, recipeOf } from "../training/run.ts";
import { parseBytes, type Planned, type PlanRequest } from "../cost/memory_plan.ts";
import type { Answer } from "../training/plan_worker.ts";
import { DEFAULT_RECIPE, type MemoryPlan } from "../training/trainer.ts";

/** Flags that say what is adapted, and how. */
export const ADAPTER_FLAGS = {
  method: choice(METHODS, "kind of adapter", DEFAULT_ADAPTER.method),
  rank: number({ from: 1, to: 4096, whole: true }, "nominal rank r", DEFAULT_ADAPTER.rank),
  blocks: number<number | undefined>(
    { from: 1, whole: true },
    "blocks n of Block-LoRA, which divide the rank [4]",
    undefined,
  ),
  alpha: number({}, "numerator of the adapter's scale", DEFAULT_ADAPTER.alpha),
  scaling: choice(
    ["sqrt", "linear"],
    "scale is alpha/sqrt(r), or alpha/r",
    DEFAULT_ADAPTER.scaling,
  ),
  dropout: number(
    { from: 0, to: 0.999 },
    "share of an adapter's input that is dropped",
    DEFAULT_ADAPTER.dropout,
  ),
  projections: text(
    "LIST",
    "layers to adapt, of q,k,v,o,fc1,fc2 in the blocks and proj, which makes the features",
    DEFAULT_ADAPTER.projections.join(),
  ),
  encoder: choice(ENCODERS, "towers to adapt", DEFAULT_ADAPTER.encoder),
  position: text(
    "WHICH",
    "blocks to adapt: all, bottom, mid, up, half-up, half-bottom, topN, or numbers 0,1,5",
    "all",
  ),
};

/** Flags that say what a step does to need less memory. */
export const MEMORY_FLAGS = {
  memoryLimit: text<string | undefined>(
    "BYTES",
    "GPU memory to keep below, 4GB say: picks what is not chosen of the next three",
    undefined,
  ),
  recompute: choice<"on" | "off" | "auto">(
    ["on", "off", "auto"],
    "keep only what enters each block, and run it again in the backward pass",
    "auto",
  ),
  textChunk: number<number | undefined>(
    { from: 0, whole: true },
    "class prompts encoded at once, in two passes; 0 for all in one",
    undefined,
  ),
  microBatch: number<number | undefined>(
    { from: 0, whole: true },
    "images encoded at once; 0 for all",
    undefined,
  ),
};

/** What the memory flags ask for outright. */
export function planOf(
  { recompute, textChunk, microBatch }: Omit<Values<typeof MEMORY_FLAGS>, "memoryLimit">,
): MemoryPlan {
  return {
    ...(recompute !== "auto" && { recompute: recompute === "on" }),
    ...(textChunk !== undefined && { textChunk }),
    ...(microBatch !== undefined && { microBatch }),
  };
}

/** Bytes of `--memory-limit`. */
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

/**
 * The fastest plan whose bytes stay below a limit, found beside a real device that is in use.
 *
 * @throws {RangeError} If no plan fits.
 */
export async function planBeside(request: PlanRequest): Promise<Planned> {
  const worker = new Worker(new URL("../training/plan_worker.ts", import.meta.url), {
    type: "module",
  });
  try {
    worker.postMessage(request);
    const { data } = await new Promise<MessageEvent<Answer>>((resolve, reject) => {
      worker.onmessage = resolve;
      worker.onerror = reject;
    });
    if ("error" in data) throw new RangeError(data.error);
    return data.planned;
  } finally {
    worker.terminate();
  }
}

/** A memory plan in words. */
export function planText({ recompute, textChunk, microBatch }: MemoryPlan): string {
  const parts = [
    recompute ? "blocks recomputed" : "",
    textChunk ? `prompts in parts of ${textChunk}` : "",
    microBatch ? `images in parts of ${microBatch}` : "",
  ];
  return parts.filter((part) => part !== "").join(", ") || "the plain step";
}

/** Flags that say how adapters are trained. */
export const TRAINING_FLAGS = {
  iterations: number<number | undefined>(
    { from: 1, whole: true },
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

/** What the embedded model takes where CLIP-LoRA's recipe, made for ViT-B/16, hardly moves it. */
const EMBEDDED_RECIPE = { learningRate: 5e-3, cropScale: [0.8, 1], iterations: 300 } as const;
const CROP_SCALE = [0.08, 1] as const;
const ITERATIONS_A_SHOT = 500;

/** The values of the flags above, and of those that say what is trained on. */
type Chosen =
  & Values<typeof ADAPTER_FLAGS>
  & Values<typeof TRAINING_FLAGS>
  & Omit<Values<typeof MEMORY_FLAGS>, "memoryLimit">
  & { readonly model: string | undefined; readonly shots: number; readonly seed: number };

/** What a command line asks for; without a model it means the embedded one, which has presets of its own. */
export function choiceOf(flags: Chosen): Choice {
  const embedded = flags.model === undefined;
  const preset = embedded ? EMBEDDED_RECIPE : DEFAULT_RECIPE;
  const cropScale = flags.cropScale.length === 2
    ? [flags.cropScale[0], flags.cropScale[1]] as const
    : embedded
    ? EMBEDDED_RECIPE.cropScale
    : CROP_SCALE;
  const [least, most] = cropScale;
  if (least > most) throw new UsageError(`Cannot use --crop-scale: ${least} is more than ${most}`);
  return {
    adapter: adapterConfigOf(flags),
    recipe: recipeOf({
      ...flags,
      betas: [flags.betas[0], flags.betas[1]],
      learningRate: flags.learningRate ?? preset.learningRate,
      iterations: flags.iterations ??
        (embedded ? EMBEDDED_RECIPE.iterations : ITERATIONS_A_SHOT * flags.shots),
    }),
    shots: flags.shots,
    seed: flags.seed,
    cropScale,
    flip: flags.flip,
    plan: planOf(flags),
  };
}

/** The adapters that a command line asks for. */
export function adapterConfigOf(flags: Values<typeof ADAPTER_FLAGS>): AdapterConfig {
  const { method, rank, alpha, scaling, dropout, encoder } = flags;
  const list = flags.projections.split(",").map((name) => name.trim()) as Adaptable[];
  const numbers = /^\d+(,\d+)*$/.test(flags.position);
  return {
    method,
    rank,
    blocks: flags.blocks ?? (method.startsWith("lora") ? 1 : DEFAULT_ADAPTER.blocks),
    alpha,
    scaling,
    dropout,
    encoder,
    projections: list,
    position: numbers ? flags.position.split(",").map(Number) : flags.position,
  };
}
