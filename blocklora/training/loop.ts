/**
 * The training loop.
 *
 * @module
 */

import { compileAhead } from "../../kernels/warm_up.ts";
import { DeviceLostError, KernelError, OutOfMemoryError } from "../../tensor/errors.ts";
import { type BytesByCategory, memory, resetPeak } from "../../tensor/memory.ts";
import { type Profile, profile } from "../../tensor/profile.ts";
import { counters } from "../../tensor/queue.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Batch } from "../data/loader.ts";
import { type Console, duration, megabytes, percent } from "../system/console.ts";
import { checkFinite, DivergedError, LossBoard } from "./loss_board.ts";
import type { Metrics } from "./metrics.ts";
import type { Trainer, TrainingBatch } from "./trainer.ts";
import type { CheckpointInterval, Progress } from "./training_checkpoint.ts";

/** How many steps pass between two readings of the loss. A reading waits for the GPU. */
const LOOK_EVERY = 10;

/** The step of this process that is profiled, counted from 0. By then all buffers are allocated. */
const PROFILED = 2;

/** The result of the training loop. */
export interface Outcome {
  /** How many steps were taken, in all processes. */
  readonly iterations: number;
  /** Whether the loop ended early, because the process was asked to stop. */
  readonly interrupted: boolean;
  /** The loss of each step, in nats. */
  readonly losses: readonly number[];
  /** Seconds that all steps took, including the compilation before the first. */
  readonly seconds: number;
  /** Mean seconds per step of this process, without the first step if there are more. */
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
  /** How many steps to take, those of earlier processes included. */
  readonly iterations: number;
  /** Where progress is reported. */
  readonly console: Console;
  /** Whether to profile one step on the GPU. */
  readonly profiled: boolean;
  /** Is aborted when the process is asked to stop. */
  readonly signal?: AbortSignal;
  /** The metrics, with the lines of the steps that earlier processes took. */
  readonly metrics: Metrics;
  /** How far earlier processes came; null if this is the first. */
  readonly begun: Progress | null;
  /** How often to call `save`. */
  readonly every: CheckpointInterval;
  /** Saves what is trained so far. After a failure, `remake` says to make the directory again. */
  readonly save: (progress: Progress, remake?: boolean) => Promise<void>;
}

/**
 * Takes the steps that are left, reads the losses every few steps, and saves checkpoints. When the
 * process is asked to stop, the loop ends with the current step. After the last step, and after an
 * error that is not one of the GPU, what is trained is saved too.
 *
 * @throws {DivergedError} If a loss, or what is trained, is not finite.
 */
export async function trainingLoop(
  trainer: Trainer,
  batches: AsyncIterable<LoadedBatch>,
  { iterations, console, profiled, signal, metrics, begun, every, save }: LoopOptions,
): Promise<Outcome> {
  const board = new LossBoard(LOOK_EVERY);
  const losses = lossesOf(metrics.text);
  let measured: Profile<Tensor> | null = null;
  resetPeak();
  const began = performance.now();
  const first = trainer.steps;
  let [images, imagesThen, lookedAt, epochs] = [0, 0, began, begun?.epochs ?? 0];
  // When the timed steps began, how many steps came before them, and how many submits there had
  // been.
  let [warm, warmSteps, submits] = [began, 0, counters.submits];

  const progress = (): Progress => {
    const { peakBytes, peakByCategory } = memory();
    const before = begun && begun.peakBytes >= peakBytes ? begun : { peakBytes, peakByCategory };
    return {
      steps: trainer.steps,
      epochs,
      seconds: (begun?.seconds ?? 0) + (performance.now() - began) / 1000,
      peakBytes: before.peakBytes,
      peakByCategory: before.peakByCategory,
    };
  };
  const look = async (last: boolean) => {
    const seen = await board.read();
    if (seen.length === 0) return;
    const now = performance.now();
    const imagesPerSecond = (images - imagesThen) / ((now - lookedAt) / 1000);
    [lookedAt, imagesThen] = [now, images];
    const { peakBytes } = progress();
    for (const line of seen) {
      checkFinite(line);
      losses.push(line.loss);
      await metrics.log({ ...line, imagesPerSecond, peakGpuBytes: peakBytes });
    }
    const { loss, accuracy } = seen.at(-1)!;
    const done = trainer.steps;
    const left = (now - began) / (done - first) * (iterations - done) / 1000;
    console.progress(
      `step ${done}/${iterations}  loss ${loss.toFixed(4)}  accuracy ${percent(accuracy)}  ` +
        `${imagesPerSecond.toFixed(0)} images/s  ${duration(left)} left  ` +
        `GPU ${megabytes(peakBytes)}`,
      last,
    );
  };
  let savedAt = began;
  const saveNow = async () => {
    const [start, submitted] = [performance.now(), counters.submits];
    await save(progress());
    savedAt = performance.now();
    // What saving takes is not of the steps.
    submits += counters.submits - submitted;
    [warm, lookedAt] = [warm + savedAt - start, lookedAt + savedAt - start];
  };
  const isDue = () =>
    "steps" in every
      ? trainer.steps % every.steps === 0
      : performance.now() - savedAt >= 1000 * every.seconds;

  try {
    for await (const { skipped, endsEpoch, ...batch } of batches) {
      for (const path of skipped) console.note(`skipped ${path}`);
      const take = () => trainer.step(batch);
      const [step, learningRate] = [trainer.steps, trainer.learningRate];
      const taken = step - first;
      if (taken === 0) {
        await compileAhead(() => take().release(), (ready, total) => {
          console.progress(`compiling kernels: ${ready} of ${total}`);
        });
      }
      if (profiled && taken === Math.min(PROFILED, iterations - first - 1)) {
        measured = await profile(take);
        board.add(step, learningRate, measured.value);
      } else board.add(step, learningRate, take());
      images += batch.labels.length;
      const done = trainer.steps;
      if (endsEpoch) trainer.endEpoch(++epochs);
      const last = done === iterations || signal?.aborted === true;
      const due = last || isDue();
      // The first step includes compilation. Its loss is read separately, so that it does not count
      // toward the images per second of the steps after it.
      if (taken === 0 || done % LOOK_EVERY === 0 || due) await look(last);
      if (due) await saveNow();
      if (last) break;
      if (taken === 0) [warm, warmSteps, submits] = [performance.now(), 1, counters.submits];
    }
  } catch (error) {
    const isBroken = [DivergedError, DeviceLostError, KernelError, OutOfMemoryError]
      .some((type) => error instanceof type);
    // The steps were right, and what failed is a file. If it fails again, its first error counts.
    if (!isBroken && trainer.steps > first) {
      await look(true).then(() => save(progress(), true)).catch(() => {});
    }
    throw error;
  } finally {
    board.release();
  }
  const ended = performance.now();
  const { steps, seconds, peakBytes, peakByCategory } = progress();
  const steadySteps = steps - first - warmSteps;
  const steady = steadySteps > 0 ? (ended - warm) / steadySteps : 1000 * seconds / steps;
  return {
    iterations: steps,
    interrupted: steps < iterations,
    losses,
    seconds,
    secondsPerStep: steady / 1000,
    imagesPerSecond: steps > first ? 1000 * images / (steps - first) / steady : 0,
    peakBytes,
    peakByCategory,
    submitsPerStep: steadySteps > 0 ? (counters.submits - submits) / steadySteps : 0,
    profile: measured,
  };
}

/** The losses in the lines of `metrics.jsonl`. */
function lossesOf(metrics: string): number[] {
  return metrics.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line).loss);
}
