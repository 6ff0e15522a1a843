/**
 * Collects the losses of several steps on the GPU, so that not every step has to wait for its loss.
 *
 * @module
 */

import { zeros } from "../../autograd/ops/create.ts";
import { slice } from "../../autograd/ops/view.ts";
import { pointwiseInto } from "../../kernels/pointwise.ts";
import { firstNonFinite } from "../../tensor/finite.ts";
import { keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { HostTensors } from "../methods/host_tensors.ts";

/** The metrics of one step. */
export interface StepMetrics {
  /** The number of the step, from 0. */
  readonly step: number;
  /** Its loss, in nats. */
  readonly loss: number;
  /** Its accuracy, 0 to 1. */
  readonly accuracy: number;
  /** The learning rate of the step. */
  readonly learningRate: number;
}

/**
 * Holds the metrics of steps until they are read. They are copied out of each step's tensor at
 * once. This frees the tensor's buffer, so that the next step can reuse all buffers of the one
 * before.
 */
export class LossBoard {
  readonly #values: Tensor;
  #pending: { step: number; learningRate: number }[] = [];

  /** Allocates room for the metrics of `steps` steps. */
  constructor(steps: number) {
    this.#values = keep(zeros([steps, 2]));
  }

  /** Copies a step's loss and accuracy out of `stats`, `[2]`, and releases `stats`. */
  add(step: number, learningRate: number, stats: Tensor): void {
    const row = this.#pending.length;
    scope(() => pointwiseInto(slice(this.#values, 0, row, row + 1), "x", { x: stats }));
    stats.release();
    this.#pending.push({ step, learningRate });
  }

  /** Waits for all steps that were added since the last call, and gives their metrics. */
  async read(): Promise<StepMetrics[]> {
    const values = await this.#values.data();
    const read = this.#pending.map(({ step, learningRate }, i) => {
      const [loss, accuracy] = [values[2 * i], values[2 * i + 1]];
      return { step, loss, accuracy, learningRate };
    });
    this.#pending = [];
    return read;
  }

  /** Releases the memory. */
  release(): void {
    this.#values.release();
  }
}

/** Training has diverged: its loss, or what it trains, is not finite any more. */
export class DivergedError extends Error {
  /** `"DivergedError"`. */
  override name = "DivergedError";
}

/**
 * Throws if the loss of a step is not finite.
 *
 * @throws {DivergedError} Then.
 */
export function checkFinite({ step, loss, learningRate }: StepMetrics): void {
  if (Number.isFinite(loss)) return;
  throw new DivergedError(
    step === 0
      ? `Cannot begin: the loss is ${loss} before the first step; ` +
        "check the model, --alpha and --logit-scale"
      : `Cannot go on: the loss of step ${step} is ${loss}, at a learning rate of ` +
        `${shown(learningRate)}; try a lower --learning-rate`,
  );
}

/**
 * Throws if what the steps before `step` have trained is not finite.
 *
 * @throws {DivergedError} Then.
 */
export function checkTrained(tensors: HostTensors, step: number, learningRate: number): void {
  for (const { data } of Object.values(tensors)) {
    if (firstNonFinite(data) < 0) continue;
    throw new DivergedError(
      `Cannot go on: what is trained is not finite any more after step ${step - 1}, ` +
        `at a learning rate of ${shown(learningRate)}; try a lower --learning-rate`,
    );
  }
}

const shown = (rate: number) => Number(rate.toPrecision(3));
