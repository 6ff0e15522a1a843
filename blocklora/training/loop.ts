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
import { type Console, duration, megabytes, percent } from "../system/console.ts";
import { catchInterrupts } from "../system/interrupts.ts";
import { checkFinite, LossBoard } from "./loss_board.ts";
import { Metrics } from "./metrics.ts";
import type { Trainer, TrainingBatch } from "./trainer.ts";

/** Steps between two looks at the loss: a look waits for the GPU. */
const LOOK_EVERY = 10;

/** The step that is profiled, from 0: by then the buffers are there. */
const PROFILED = 2;

/** What came of the training loop. */
export interface Outcome {
  /** Steps taken. */
  readonly iterations: number;
  /** Whether Ctrl-C ended it before its time. */
  readonly interrupted: boolean;
  /** The loss of each of them, in nats. */
  readonly losses: readonly number[];
  /** Seconds of them all, the first one's compiling included. */
  readonly seconds: number;
  /** Seconds of a step, the first left out. */
  readonly secondsPerStep: number;
  /** Images a second, the first step left out. */
  readonly imagesPerSecond: number;
  /** The most GPU bytes that were live at once. */
  readonly peakBytes: number;
  /** What they were. */
  readonly peakByCategory: BytesByCategory;
  /** How often a step hands work to the GPU, the first left out. */
  readonly submitsPerStep: number;
  /** Where the GPU's time went in a step, if that was asked for. */
  readonly profile: Profile<unknown> | null;
}

/** How a loop is run. */
export interface LoopOptions {
  /** How many steps are to be taken. */
  readonly iterations: number;
  /** How many steps see every training image once. */
  readonly stepsPerEpoch: number;
  /** Where the metrics are written. */
  readonly directory: string;
  /** Where progress is told. */
  readonly console: Console;
  /** Whether the GPU's time of one step is measured. */
  readonly profiled: boolean;
}

/**
 * Takes every step, looking at the losses now and then; Ctrl-C ends it after the step under way.
 */
export async function trainingLoop(
  trainer: Trainer,
  batches: AsyncIterable<TrainingBatch & { readonly skipped: readonly string[] }>,
  { iterations, stepsPerEpoch, directory, console, profiled }: LoopOptions,
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
  let [images, imagesThen, lookedAt] = [0, 0, began];
  // When the steps began that are timed, how many came before, and the submits until then.
  let [warm, warmSteps, submits] = [began, 0, counters.submits];
  try {
    for await (const { skipped, ...batch } of batches) {
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
      if (done % stepsPerEpoch === 0) trainer.endEpoch(done / stepsPerEpoch);
      const last = done === iterations || interrupt.wanted;
      // The first step compiles: it is looked at by itself, so that it does not count in the pace
      // of those after it.
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
