/**
 * The cost of a training step: counted on a dry device, which runs nothing, or measured.
 *
 * @module
 */

import type { Model } from "../../clip/model.ts";
import { type DryGpu, onDryEngine } from "../../tensor/device.ts";
import {
  measure,
  type Measured,
  type Phase,
  PHASES,
  total,
  type WorkRow,
} from "../../tensor/measure.ts";
import { type BytesByCategory, memory, resetPeak } from "../../tensor/memory.ts";
import { flush } from "../../tensor/queue.ts";
import type { Random } from "../../tensor/random.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { MemoryPlan } from "./memory_plan.ts";

/** The sizes of a training step. */
export interface StepSizes {
  /** The number of tokens in the prompt of each class, start and end included. */
  readonly promptTokens: readonly number[];
  /** The number of images. */
  readonly batch: number;
  /** How the step saves memory. */
  readonly memory?: MemoryPlan;
  /**
   * The limit on live and pooled bytes together. Live bytes alone may still exceed it. No limit by
   * default.
   */
  readonly memoryLimit?: number;
  /**
   * Whether another step is taken before the counted one, which then finds its buffers in the pool.
   * Default true.
   */
  readonly warm?: boolean;
}

/** A step that is ready to run. */
export interface PreparedStep {
  /** Number of trainable parameters. */
  readonly parameters: number;
  /** Takes the step, and gives its loss and accuracy, `[2]`. */
  take(): Tensor;
  /** Releases everything except the model. */
  release(): void;
}

/** Prepares a step of a model. Its inputs are random, or all zeros without `random`. */
export type PrepareStep<Sizes extends StepSizes> = (
  model: Model,
  sizes: Sizes,
  random?: Random,
) => PreparedStep;

/** The cost of a step. */
export interface StepCost {
  /** Number of trainable parameters. */
  readonly trainableParameters: number;
  /** The most bytes that were live at once, which the step needs. */
  readonly peakGpuBytes: number;
  /** The same bytes by memory category. */
  readonly peakBytesByOwner: BytesByCategory;
  /** The most bytes that were live or in the pool at once, which the GPU must have. */
  readonly peakHeldBytes: number;
  /** Arithmetic operations. */
  readonly flops: Readonly<Record<Phase | "total", number>>;
  /** Arithmetic operations of the adapters. */
  readonly adapterFlops: Readonly<Record<Phase | "total", number>>;
  /** Bytes that the tape saves for the backward pass of the adapters. */
  readonly adapterSavedBytes: number;
  /** Bytes that kernels have to read, each operand once. */
  readonly bytesRead: number;
  /** Bytes that kernels have to write. */
  readonly bytesWritten: number;
  /** How many kernels are started. */
  readonly dispatches: number;
  /** How often work is submitted to the GPU. */
  readonly submits: number;
  /** The work, in one row for each kernel, phase and label. */
  readonly rows: readonly WorkRow[];
}

/** The cost of a step that was run. */
export interface RealStepCost extends StepCost {
  /** The loss of the step. */
  readonly loss: number;
  /** Wall-clock time until the loss was read. */
  readonly seconds: number;
}

/**
 * Takes two steps of a model, and counts the second, which reuses the buffers that the first left
 * in the pool. Without `warm`, it takes and counts only one step. On a dry engine (`initDry()`),
 * nothing is computed, and the counts are the same as on a real GPU, to the byte.
 *
 * @throws {RangeError} If the adapters do not fit the model, or a tensor is too large for the
 * device.
 */
export function countStep<Sizes extends StepSizes>(
  prepare: PrepareStep<Sizes>,
  model: Model,
  sizes: Sizes,
): StepCost {
  const step = prepare(model, sizes);
  const take = () => {
    step.take().release();
    flush();
  };
  try {
    if (sizes.warm ?? true) take();
    resetPeak();
    return costOf(step, measure(take));
  } finally {
    step.release();
  }
}

/**
 * Counts a step on a dry engine, without using the current one. `make` makes the model on the dry
 * engine.
 *
 * @throws As {@linkcode countStep}.
 */
export function countDryStep<Sizes extends StepSizes>(
  prepare: PrepareStep<Sizes>,
  make: () => Model,
  sizes: Sizes,
  gpu: DryGpu = {},
): StepCost {
  return onDryEngine(gpu, () => countStep(prepare, make(), sizes));
}

/**
 * Takes one step on random images and prompts, waits until it is finished, and counts and times it.
 *
 * @throws As {@linkcode countStep}, and if the GPU rejects the work.
 */
export async function takeRealStep<Sizes extends StepSizes>(
  prepare: PrepareStep<Sizes>,
  model: Model,
  sizes: Sizes,
  random: Random,
): Promise<RealStepCost> {
  const step = prepare(model, sizes, random);
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
    return { ...costOf(step, measured), loss, seconds };
  } finally {
    step.release();
  }
}

function costOf({ parameters }: PreparedStep, measured: Measured<unknown>): StepCost {
  const { rows, submits, savedBytes, peakBytes, peakByCategory } = measured;
  const flopsOf = (label?: string) => {
    const of = (phase?: Phase) =>
      total(rows, { ...(label !== undefined && { label }), ...(phase && { phase }) }).flops;
    const phases = Object.fromEntries(PHASES.map((phase) => [phase, of(phase)]));
    return { ...phases as Record<Phase, number>, total: of() };
  };
  const { bytesRead, bytesWritten, dispatches } = total(rows);
  return {
    trainableParameters: parameters,
    peakGpuBytes: peakBytes,
    peakBytesByOwner: peakByCategory,
    peakHeldBytes: memory().peakHeldBytes,
    flops: flopsOf(),
    adapterFlops: flopsOf("adapter"),
    adapterSavedBytes: savedBytes["adapter"] ?? 0,
    ...{ bytesRead, bytesWritten, dispatches, submits, rows },
  };
}
