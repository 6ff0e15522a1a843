/**
 * What a training step costs, counted without running it: on a dry device, for any model and any settings.
 *
 * @module
 */

import { Clip } from "../clip/clip.ts";
import type { ClipConfig } from "../clip/config.ts";
import { Prompts } from "../clip/text.ts";
import { type Precision, storedAs, Weights, weightShapes } from "../clip/weights.ts";
import { measure, type Phase, PHASES, total, type WorkRow } from "../tensor/measure.ts";
import { type BytesByOwner, limitMemory, memory, owned, resetPeak } from "../tensor/memory.ts";
import { flush, trim } from "../tensor/queue.ts";
import { keep } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";
import { type AdapterConfig, attach } from "./attach.ts";
import { DEFAULT_RECIPE, type MemoryPlan, Trainer } from "./trainer.ts";

/** A training step. */
export interface StepOptions {
  /** The adapters. */
  readonly adapter: AdapterConfig;
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

/** A model whose weights are there, in their sizes, and have no values. */
export function emptyClip(config: ClipConfig, precision: Precision = "f32"): Clip {
  const tensors = [...weightShapes(config)].map(([name, shape]) => {
    const make = () => keep(Tensor.empty(shape, storedAs(name, shape, precision)));
    return [name, owned("frozenWeights", make)] as const;
  });
  return new Clip(config, new Weights(new Map(tensors)));
}

/**
 * Takes two steps of a model and counts the second, which uses again what the first left on the shelves. On a dry
 * device (`initDry()`) it computes nothing, and counts what a real one does to the byte.
 *
 * @throws {RangeError} If the adapters do not fit the model, or a tensor is too large for the device.
 */
export function stepCost(clip: Clip, options: StepOptions): StepCost {
  const { adapter, promptTokens, batch, plan, memoryLimit = Infinity, warm = true } = options;
  const { imageSize } = clip.config.vision;
  const longest = Math.max(...promptTokens);
  const prompts = new Prompts(promptTokens.map((tokens) => ({
    ids: new Int32Array(longest),
    end: tokens - 1,
  })));
  const adapters = attach(clip, adapter, 1);
  const trainer = new Trainer(clip, adapters, prompts, DEFAULT_RECIPE, plan);
  const images = {
    pixels: new Float32Array(batch * 3 * imageSize ** 2),
    labels: new Int32Array(batch),
  };
  const step = () => {
    trainer.step(images).release();
    flush();
  };
  try {
    trim();
    limitMemory(memoryLimit);
    if (warm) step();
    resetPeak();
    const { rows, submits, savedBytes, peakBytes, peakByOwner } = measure(step);
    const flopsOf = (part?: string) => {
      const of = (phase?: Phase) =>
        total(rows, { ...(part !== undefined && { part }), ...(phase && { phase }) }).flops;
      const phases = Object.fromEntries(PHASES.map((phase) => [phase, of(phase)]));
      return { ...phases as Record<Phase, number>, total: of() };
    };
    const { bytesRead, bytesWritten, dispatches } = total(rows);
    return {
      trainableParameters: adapters.parameterCount,
      peakGpuBytes: peakBytes,
      peakBytesByOwner: peakByOwner,
      peakHeldBytes: memory().peakHeldBytes,
      flops: flopsOf(),
      adapterFlops: flopsOf("adapter"),
      adapterSavedBytes: savedBytes["adapter"] ?? 0,
      ...{ bytesRead, bytesWritten, dispatches, submits, rows },
    };
  } finally {
    limitMemory(Infinity);
    trainer.release();
    adapters.release();
    prompts.release();
  }
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
