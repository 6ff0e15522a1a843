/**
 * What a training step costs: counted without running it on a dry device, or measured.
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
  /** Tokens of each class's prompt, its start and end included. */
  readonly promptTokens: readonly number[];
  /** Images. */
  readonly batch: number;
  /** What the step does to need less memory. */
  readonly memory?: MemoryPlan;
  /**
   * What live and pooled bytes together may not exceed, if live ones alone do not; no limit by
   * default.
   */
  readonly memoryLimit?: number;
  /**
   * Whether a step comes before the counted one, which then finds its buffers in the pool; true by
   * default.
   */
  readonly warm?: boolean;
}

/** A step that is ready to be taken. */
export interface PreparedStep {
  /** How many numbers train. */
  readonly parameters: number;
  /** Takes it, and gives its loss and accuracy, `[2]`. */
  take(): Tensor;
  /** Gives everything back but the model. */
  release(): void;
}

/** Makes a step of a model ready, on inputs of zeros if not of random values. */
export type PrepareStep<Sizes extends StepSizes> = (
  model: Model,
  sizes: Sizes,
  random?: Random,
) => PreparedStep;

/** What a step costs. */
export interface StepCost {
  /** How many numbers train. */
  readonly trainableParameters: number;
  /** The most bytes that were live at once: what the step needs. */
  readonly peakGpuBytes: number;
  /** What they were. */
  readonly peakBytesByOwner: BytesByCategory;
  /** The most bytes that were live or in the pool: what the GPU has to have. */
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
  /** The work, a row for each kernel, phase and label. */
  readonly rows: readonly WorkRow[];
}

/** What a step that ran cost. */
export interface RealStepCost extends StepCost {
  /** Its loss. */
  readonly loss: number;
  /** Wall-clock time until the loss was read. */
  readonly seconds: number;
}

/**
 * Takes two steps of a model and counts the second, which uses again what the first left in the
 * pool. On a dry engine (`initDry()`) it computes nothing, and counts what a real one does to the
 * byte.
 *
 * @throws {RangeError} If what learns does not fit the model, or a tensor is too large for the
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
 * Counts a step on a dry engine beside the current one; `make` makes the model there.
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
 * Takes one step on random images and prompts, waits until it is done, and counts it.
 *
 * @throws As {@linkcode countStep}, and whatever the GPU refuses.
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
