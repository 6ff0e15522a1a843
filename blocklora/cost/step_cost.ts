/**
 * What a training step costs, for any model and any settings: counted without running it on a dry device, or measured.
 *
 * @module
 */

import { Clip } from "../../clip/clip.ts";
import type { ClipConfig } from "../../clip/config.ts";
import { Prompts } from "../../clip/text.ts";
import { type Precision, storedAs, Weights, weightShapes } from "../../clip/weights.ts";
import { tensor } from "../../tensor/create.ts";
import { type DryGpu, onDryEngine } from "../../tensor/device.ts";
import {
  measure,
  type Measured,
  type Phase,
  PHASES,
  total,
  type WorkRow,
} from "../../tensor/measure.ts";
import { type BytesByOwner, limitMemory, memory, owned, resetPeak } from "../../tensor/memory.ts";
import { flush, trim } from "../../tensor/queue.ts";
import type { Random } from "../../tensor/random.ts";
import { keep } from "../../tensor/scope.ts";
import { numel, type Shape } from "../../tensor/shape.ts";
import { type Dtype, Tensor } from "../../tensor/tensor.ts";
import type { Learner, MethodConfig } from "../methods/method.ts";
import { parameterCount } from "../training/result.ts";
import { methodNamed } from "../methods/lookup.ts";
import { DEFAULT_RECIPE } from "../methods/recipe.ts";
import { type MemoryPlan, Trainer } from "../training/trainer.ts";

/** A training step. */
export interface StepOptions {
  /** What learns. */
  readonly method: MethodConfig;
  /** Tokens of each class's prompt, its start and end included. */
  readonly promptTokens: readonly number[];
  /** Images. */
  readonly batch: number;
  /** What the step does to need less memory. */
  readonly plan?: MemoryPlan;
  /** What live and shelved bytes together may not exceed, if live ones alone do not; no limit by default. */
  readonly memoryLimit?: number;
  /** Whether a step comes before the counted one, which then finds its buffers on the shelves; true by default. */
  readonly warm?: boolean;
}

/** What a step costs. */
export interface StepCost {
  /** How many numbers train. */
  readonly trainableParameters: number;
  /** The most bytes that were live at once: what the step needs. */
  readonly peakGpuBytes: number;
  /** What they were. */
  readonly peakBytesByOwner: BytesByOwner;
  /** The most bytes that were live or on the shelves: what the GPU has to have. */
  readonly peakHeldBytes: number;
  /** Arithmetic operations. */
  readonly flops: Readonly<Record<Phase | "total", number>>;
  /** Those of the adapters. */
  readonly adapterFlops: Readonly<Record<Phase | "total", number>>;
  /** Bytes that the tape keeps for the backward pass on behalf of adapters. */
  readonly adapterSavedBytes: number;
  /** Bytes that kernels have to read, each operand once. */
  readonly bytesRead: number;
  /** Bytes that kernels have to write. */
  readonly bytesWritten: number;
  /** Kernels started. */
  readonly dispatches: number;
  /** How often work is handed to the GPU. */
  readonly submits: number;
  /** The work, a row for each kernel, phase and part. */
  readonly rows: readonly WorkRow[];
}

/** What a step that ran cost. */
export interface RealStepCost extends StepCost {
  /** Its loss. */
  readonly loss: number;
  /** Wall-clock time until the loss was read. */
  readonly seconds: number;
}

/** A model whose weights are there, in their sizes, and have no values. */
export function emptyClip(config: ClipConfig, precision: Precision = "f32"): Clip {
  return clipOf(config, precision, (_name, shape, dtype) => Tensor.empty(shape, dtype));
}

/** A model of random weights, by which activations keep about their size from layer to layer. */
export function randomClip(config: ClipConfig, precision: Precision, random: Random): Clip {
  return clipOf(config, precision, (name, shape, dtype) => {
    const isNormScale = /norm\d?\.weight$/.test(name);
    const deviation = shape.length < 2 ? 0.02 : 1 / Math.sqrt(numel(shape.slice(1)));
    const mean = name === "logit_scale" ? Math.log(100) : isNormScale ? 1 : 0;
    return tensor(noise(random.fork(name), numel(shape), deviation, mean), shape, dtype);
  });
}

function clipOf(
  config: ClipConfig,
  precision: Precision,
  make: (name: string, shape: Shape, dtype: Dtype) => Tensor,
): Clip {
  const tensors = [...weightShapes(config)].map(([name, shape]) => {
    const made = () => keep(make(name, shape, storedAs(name, shape, precision)));
    return [name, owned("frozenWeights", made)] as const;
  });
  return new Clip(config, new Weights(new Map(tensors)));
}

/** A prime, so that no row of a tensor begins where another does. */
const DRAWN = 65_521;

/**
 * Numbers of the given mean and standard deviation, spread evenly. Only so many are drawn and repeat: a model of 150
 * million weights is there in a second.
 */
export function noise(
  random: Random,
  count: number,
  deviation = 1,
  mean = 0,
): Float32Array<ArrayBuffer> {
  const width = deviation * Math.sqrt(12);
  const values = new Float32Array(count);
  const drawn = values.subarray(0, DRAWN);
  for (let i = 0; i < drawn.length; i++) drawn[i] = mean + width * (random.uniform() - 0.5);
  for (let at = DRAWN; at < count; at += DRAWN) {
    values.set(drawn.subarray(0, Math.min(DRAWN, count - at)), at);
  }
  return values;
}

/**
 * Takes two steps of a model and counts the second, which uses again what the first left on the shelves. On a dry
 * device (`initDry()`) it computes nothing, and counts what a real one does to the byte.
 *
 * @throws {RangeError} If the adapters do not fit the model, or a tensor is too large for the device.
 */
export function stepCost(clip: Clip, options: StepOptions): StepCost {
  const step = prepareStep(clip, options);
  const take = () => {
    step.take().release();
    flush();
  };
  try {
    if (options.warm ?? true) take();
    resetPeak();
    return costOf(step.learner, measure(take));
  } finally {
    step.release();
  }
}

/**
 * Counts a step of a model that is not there, on a dry engine beside the current one.
 *
 * @throws As {@linkcode stepCost}.
 */
export function dryStepCost(
  config: ClipConfig,
  precision: Precision,
  options: StepOptions,
  gpu: DryGpu = {},
): StepCost {
  return onDryEngine(gpu, () => stepCost(emptyClip(config, precision), options));
}

/**
 * Takes one step on random images and prompts, waits until it is done, and counts it.
 *
 * @throws As {@linkcode stepCost}, and whatever the GPU refuses.
 */
export async function realStep(
  clip: Clip,
  options: Omit<StepOptions, "warm">,
  random: Random,
): Promise<RealStepCost> {
  const step = prepareStep(clip, options, random);
  try {
    resetPeak();
    const start = performance.now();
    const measured = measure(() => {
      const stats = step.take();
      flush();
      return stats;
    });
    const [loss] = await measured.value.data();
    const seconds = (performance.now() - start) / 1000;
    measured.value.release();
    return { ...costOf(step.learner, measured), loss, seconds };
  } finally {
    step.release();
  }
}

/** A step that is ready to be taken. */
export interface PreparedStep {
  /** What trains. */
  readonly learner: Learner;
  /** Takes a step, and gives what {@linkcode Trainer.step} does. */
  take(): Tensor;
  /** Gives everything back but the model. */
  release(): void;
}

/**
 * Makes a step ready, on images and prompts of zeros if not of random values.
 *
 * @throws {RangeError} If the adapters do not fit the model.
 */
export function prepareStep(
  clip: Clip,
  { method, promptTokens, batch, plan, memoryLimit = Infinity }: StepOptions,
  random?: Random,
): PreparedStep {
  const { vision, text } = clip.config;
  const longest = Math.max(...promptTokens);
  const draw = (below: number) => random ? random.next() % below : 0;
  const prompts = new Prompts(promptTokens.map((tokens) => ({
    ids: Int32Array.from({ length: longest }, () => draw(text.vocabulary)),
    end: tokens - 1,
  })));
  const task = { clip, classes: promptTokens.length, prompts: () => prompts };
  const learner = methodNamed(method.method).learner(task, method, 1);
  const trainer = new Trainer(clip, learner, prompts, DEFAULT_RECIPE, plan);
  const count = batch * 3 * vision.imageSize ** 2;
  const images = {
    pixels: random ? noise(random, count) : new Float32Array(count),
    labels: Int32Array.from({ length: batch }, () => draw(promptTokens.length)),
  };
  trim();
  limitMemory(memoryLimit);
  return {
    learner,
    take: () => trainer.step(images),
    release: () => {
      limitMemory(Infinity);
      trainer.release();
      learner.release();
      prompts.release();
    },
  };
}

function costOf(learner: Learner, measured: Measured<unknown>): StepCost {
  const { rows, submits, savedBytes, peakBytes, peakByOwner } = measured;
  const flopsOf = (part?: string) => {
    const of = (phase?: Phase) =>
      total(rows, { ...(part !== undefined && { part }), ...(phase && { phase }) }).flops;
    const phases = Object.fromEntries(PHASES.map((phase) => [phase, of(phase)]));
    return { ...phases as Record<Phase, number>, total: of() };
  };
  const { bytesRead, bytesWritten, dispatches } = total(rows);
  return {
    trainableParameters: parameterCount(learner),
    peakGpuBytes: peakBytes,
    peakBytesByOwner: peakByOwner,
    peakHeldBytes: memory().peakHeldBytes,
    flops: flopsOf(),
    adapterFlops: flopsOf("adapter"),
    adapterSavedBytes: savedBytes["adapter"] ?? 0,
    ...{ bytesRead, bytesWritten, dispatches, submits, rows },
  };
}

/**
 * How many tokens the prompts of ImageNet's 1,000 classes have, start and end included: pairs of tokens and classes.
 * Counted with OpenAI's tokenizer on "a photo of a {}." and the class names of openai/CLIP's notebook
 * `Prompt_Engineering_for_ImageNet.ipynb`.
 */
const IMAGENET_TOKENS = [
  ...[[8, 246], [9, 508], [10, 155], [11, 49], [12, 24], [13, 9], [14, 7], [15, 1], [18, 1]],
];

/** Prompt lengths of so many classes, spread as ImageNet's are; the longest is always among them. */
export function imagenetTokens(classes: number): number[] {
  const all = IMAGENET_TOKENS.flatMap(([tokens, count]) => Array<number>(count).fill(tokens));
  return Array.from(
    { length: classes },
    (_, i) => all[Math.floor((i + 1) * all.length / classes) - 1] ?? all[i % all.length],
  );
}
