/**
 * The training loop.
 *
 * @module
 */

import { compileAhead } from "../../kernels/warm_up.ts";
import { type BytesByCategory, memory, resetPeak } from "../../tensor/memory.ts";
import { type Profile, profile } from "../../tensor/profile.ts";
import { counters } from "../../tensor/queue.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Batch } from "../data/loader.ts";
import { type Console, duration, megabytes, percent } from "../system/console.ts";
import { catchInterrupts } from "../system/interrupts.ts";
import { checkFinite, LossBoard } from "./loss_board.ts";
import { Metrics } from "./metrics.ts";
import type { Trainer, TrainingBatch } from "./trainer.ts";

/** How many steps pass between two readings of the loss. A reading waits for the GPU. */
const LOOK_EVERY = 10;

/** The step that is profiled, counted from 0. By then all buffers have been allocated. */
const PROFILED = 2;

/** The result of the training loop. */
export interface Outcome {
  /** How many steps were taken. */
  readonly iterations: number;
  /** Whether Ctrl-C ended the loop early. */
  readonly interrupted: boolean;
  /** The loss of each step, in nats. */
  readonly losses: readonly number[];
  /** Seconds that all steps took, including the compilation before the first. */
  readonly seconds: number;
  /** Mean seconds per step, without the first step if there are more. */
  readonly secondsPerStep: number;
  /** Images per second, without the first step if there are more. */
  readonly imagesPerSecond: number;
  /** The most GPU bytes that were live at once. */
  readonly peakBytes: number;
  /** The same bytes by memory category. */
  readonly peakByCategory: BytesByCategory;
  /** Mean number of GPU submits per step, without the first step if there are more. */
  readonly submitsPerStep: number;
  /** How the GPU spent its time in one step; null if no profile was asked for. */
  readonly profile: Profile<unknown> | null;
}

/** A batch to train on, and what is to be said of it. */
export type LoadedBatch = TrainingBatch & Pick<Batch, "skipped" | "endsEpoch">;

/** Options of {@linkcode trainingLoop}. */
export interface LoopOptions {
  /** How many steps to take. */
  readonly iterations: number;
  /** The directory that the metrics are written to. */
  readonly directory: string;
  /** Where progress is reported. */
  readonly console: Console;
  /** Whether to profile one step on the GPU. */
  readonly profiled: boolean;
}

/**
 * Takes all steps and reads the losses every few steps. After Ctrl-C, the loop ends with the
 * current step.
 */
export async function trainingLoop(
  trainer: Trainer,
  batches: AsyncIterable<LoadedBatch>,
  { iterations, directory, console, profiled }: LoopOptions,
): Promise<Outcome> {
  const metrics = new Metrics(directory);
  const board = new LossBoard(LOOK_EVERY);
  const losses: number[] = [];
  let measured: Profile<Tensor> | null = null;
  using interrupt = catchInterrupts(() =>
    console.note("stopping after this step; once more to stop at once")
  );
  resetPeak();
  const began = performance.now();
  let [images, imagesThen, lookedAt, epochs] = [0, 0, began, 0];
  // When the timed steps began, how many steps came before them, and how many submits there had
  // been.
  let [warm, warmSteps, submits] = [began, 0, counters.submits];
  try {
    for await (const { skipped, endsEpoch, ...batch } of batches) {
      for (const path of skipped) console.note(`skipped ${path}`);
      const take = () => trainer.step(batch);
      const [step, learningRate] = [trainer.steps, trainer.learningRate];
      if (step === 0) {
        await compileAhead(() => take().release(), (ready, total) => {
          console.progress(`compiling kernels: ${ready} of ${total}`);
        });
      }
      if (profiled && step === Math.min(PROFILED, iterations - 1)) {
        measured = await profile(take);
        board.add(step, learningRate, measured.value);
      } else board.add(step, learningRate, take());
      images += batch.labels.length;
      const done = trainer.steps;
      if (endsEpoch) trainer.endEpoch(++epochs);
      const last = done === iterations || interrupt.wanted;
      // The first step includes compilation. Its loss is read separately, so that it does not count
      // toward the images per second of the steps after it.
      if (step === 0 || done % LOOK_EVERY === 0 || last) {
        const seen = await board.read();
        const now = performance.now();
        const imagesPerSecond = (images - imagesThen) / ((now - lookedAt) / 1000);
        [lookedAt, imagesThen] = [now, images];
        for (const line of seen) {
          checkFinite(line);
          losses.push(line.loss);
          await metrics.log({ ...line, imagesPerSecond, peakGpuBytes: memory().peakBytes });
        }
        const { loss, accuracy } = seen.at(-1)!;
        const left = (now - began) / done * (iterations - done) / 1000;
        console.progress(
          `step ${done}/${iterations}  loss ${loss.toFixed(4)}  accuracy ${percent(accuracy)}  ` +
            `${imagesPerSecond.toFixed(0)} images/s  ${duration(left)} left  ` +
            `GPU ${megabytes(memory().peakBytes)}`,
          last,
        );
      }
      if (last) break;
      if (step === 0) [warm, warmSteps, submits] = [performance.now(), 1, counters.submits];
    }
  } finally {
    board.release();
  }
  const ended = performance.now();
  const steadySteps = trainer.steps - warmSteps;
  const steady = (ended - warm) / steadySteps;
  return {
    iterations: trainer.steps,
    interrupted: trainer.steps < iterations,
    losses,
    seconds: (ended - began) / 1000,
    secondsPerStep: steady / 1000,
    imagesPerSecond: 1000 * images / trainer.steps / steady,
    peakBytes: memory().peakBytes,
    peakByCategory: memory().peakByCategory,
    submitsPerStep: (counters.submits - submits) / steadySteps,
    profile: measured,
  };
}
