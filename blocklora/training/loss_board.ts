/**
 * Losses of steps that are not waited for.
 *
 * @module
 */

import { zeros } from "../../autograd/ops/create.ts";
import { slice } from "../../autograd/ops/view.ts";
import { pointwiseInto } from "../../kernels/pointwise.ts";
import { keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** What a step said of itself. */
export interface StepMetrics {
  /** Its number, from 0. */
  readonly step: number;
  /** Its loss, in nats. */
  readonly loss: number;
  /** Its accuracy, 0 to 1. */
  readonly accuracy: number;
  /** The learning rate that it was taken with. */
  readonly learningRate: number;
}

/**
 * Keeps what steps gave until it is read. It is copied out of a step at once: the buffers of a step
 * are there for the next one then, which so gets the same ones.
 */
export class LossBoard {
  readonly #values: Tensor;
  #pending: { step: number; learningRate: number }[] = [];

  /** Room for so many steps. */
  constructor(steps: number) {
    this.#values = keep(zeros([steps, 2]));
  }

  /** Takes what a step gave, `[2]`, and releases it. */
  add(step: number, learningRate: number, stats: Tensor): void {
    const row = this.#pending.length;
    scope(() => pointwiseInto(slice(this.#values, 0, row, row + 1), "x", { x: stats }));
    stats.release();
    this.#pending.push({ step, learningRate });
  }

  /** Waits for the steps since the last time. */
  async read(): Promise<StepMetrics[]> {
    const values = await this.#values.data();
    const read = this.#pending.map(({ step, learningRate }, i) => {
      const [loss, accuracy] = [values[2 * i], values[2 * i + 1]];
      return { step, loss, accuracy, learningRate };
    });
    this.#pending = [];
    return read;
  }

  /** Gives the room back. */
  release(): void {
    this.#values.release();
  }
}

/** Throws if the loss of a step is not finite. */
export function checkFinite({ step, loss }: StepMetrics): void {
  if (Number.isFinite(loss)) return;
  throw new Error(
    step === 0
      ? `Cannot begin: the loss is ${loss} before the first step; ` +
        "check the model, --alpha and --logit-scale"
      : `Cannot go on: the loss of step ${step} is ${loss}; try a lower --learning-rate`,
  );
}
