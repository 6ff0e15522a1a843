/**
 * A training run: its steps, and the directory that it leaves.
 *
 * @module
 */

import { join, relative } from "node:path";
import { zeros } from "../../autograd/ops/create.ts";
import { slice } from "../../autograd/ops/view.ts";
import type { Prompts } from "../../clip/text.ts";
import manifest from "../../deno.json" with { type: "json" };
import { compileAhead } from "../../kernels/kernel.ts";
import { pointwiseInto } from "../../kernels/pointwise.ts";
import { adapterName } from "../../tensor/device.ts";
import { type BytesByOwner, memory, resetPeak } from "../../tensor/memory.ts";
import { type Profile, profile } from "../../tensor/profile.ts";
import { counters } from "../../tensor/queue.ts";
import { keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { AdapterConfig, Adapters } from "../methods/attach.ts";
import { saveAdapters } from "../methods/checkpoint.ts";
import { type ChosenModel, namedIn } from "../commands/chosen_model.ts";
import { Classifier } from "./classifier.ts";
import { type Console, duration, megabytes, percent } from "../system/console.ts";
import { type Dataset, drawShots, writeSplit } from "../data/dataset.ts";
import { reasonOf, writeAtomically, writeTogether } from "../system/files.ts";
import type { Identity } from "./identity.ts";
import type { ImageLoader } from "../data/loader.ts";
import { type MemoryPlan, type Recipe, Trainer } from "./trainer.ts";
import { type Score, score } from "../commands/workspace.ts";

/** Steps between two looks at the loss: a look waits for the GPU. */
const LOOK_EVERY = 10;

/** The step that is profiled, from 0: by then the buffers are there. */
const PROFILED = 2;

/** The exit code of a run that Ctrl-C ended. */
export const INTERRUPTED = 130;

/** What runs on: a model, a data set, and how its images come. */
export interface Setting {
  /** The model, and what it is called. */
  readonly model: ChosenModel;
  /** The images. */
  readonly dataset: Dataset;
  /** What its class names are put into. */
  readonly template: string;
  /** The prompts that this makes. */
  readonly prompts: Prompts;
  /** Where batches come from. */
  readonly loader: ImageLoader;
  /** Images a batch. */
  readonly batchSize: number;
  /** Where progress is told. */
  readonly console: Console;
}

/** What a run is to do. */
export interface Choice {
  /** The adapters. */
  readonly adapter: AdapterConfig;
  /** How they are trained. */
  readonly recipe: Recipe;
  /** Training images a class. */
  readonly shots: number;
  /** Of the shots, the adapters and the crops; `recipe.seed` is that of the dropout. */
  readonly seed: number;
  /** Least and largest share of the area that random crops keep. */
  readonly cropScale: readonly [number, number];
  /** Whether half of the training images are mirrored. */
  readonly flip: boolean;
  /** What a step does to need less memory. */
  readonly plan: MemoryPlan;
}

/** How the model, with whatever adapters sit in it now, does on the test images. */
export async function evaluateOn(
  { model: { clip }, dataset, prompts, loader, batchSize, console }: Setting,
  logitScale: number,
): Promise<Score> {
  const classifier = new Classifier(clip, prompts, logitScale);
  try {
    return await score(classifier, loader, dataset.test, dataset.classes, batchSize, console);
  } finally {
    classifier.release();
  }
}

/** Trains adapters and saves them, with their metrics, to a directory. */
export async function trainAdapters(
  setting: Setting,
  choice: Choice,
  adapters: Adapters,
  directory: string,
  profiled = false,
): Promise<Outcome> {
  const { model, dataset, template, prompts, loader, batchSize, console } = setting;
  const { recipe, shots, seed, cropScale, flip, plan } = choice;
  const trainer = new Trainer(model.clip, adapters, prompts, recipe, plan);
  try {
    const batches = loader.training(drawShots(dataset, shots, seed), {
      batchSize,
      iterations: recipe.iterations,
      seed,
      scale: cropScale,
      flip,
    });
    const outcome = await trainingLoop(trainer, batches, recipe, directory, console, profiled);
    const { learningRate, minimumRate, weightDecay, betas, labelSmoothing, maxNorm } = recipe;
    const kept = { learningRate, minimumRate, weightDecay, betas, labelSmoothing, maxNorm };
    const { origin, clip } = model;
    const { weights, config } = await saveAdapters(adapters, namedIn(origin, clip), {
      extra: {
        ...origin,
        classes: dataset.classes,
        template,
        logitScale: recipe.logitScale,
        shots,
        seed,
        iterations: outcome.iterations,
        recipe: { ...kept, cropScale, flip, batchSize },
        ...(outcome.interrupted && { interrupted: true }),
      },
    });
    await writeTogether(directory, {
      "adapter_model.safetensors": weights,
      "adapter_config.json": config,
    });
    if (dataset.drawn) await writeSplit(dataset, join(directory, "split.json"));
    return outcome;
  } finally {
    trainer.release();
  }
}

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
  readonly peakByOwner: BytesByOwner;
  /** How often a step hands work to the GPU, the first left out. */
  readonly submitsPerStep: number;
  /** Where the GPU's time went in a step, if that was asked for. */
  readonly profile: Profile<unknown> | null;
}

/** The metrics of a run, a line a step; the first line makes the directory, and the file anew. */
export class Metrics {
  readonly #directory: string;
  #begun = false;

  /** Nothing is written yet. */
  constructor(directory: string, begun = false) {
    this.#directory = directory;
    this.#begun = begun;
  }

  /** Adds a line to `metrics.jsonl`. */
  async log(line: Record<string, unknown>): Promise<void> {
    const path = join(this.#directory, "metrics.jsonl");
    try {
      if (!this.#begun) await Deno.mkdir(this.#directory, { recursive: true });
      await Deno.writeTextFile(path, `${JSON.stringify(line)}\n`, { append: this.#begun });
    } catch (error) {
      throw new Error(`Cannot write ${path}: ${reasonOf(error)}`);
    }
    this.#begun = true;
  }
}

/** Takes every step, looking at the losses now and then; Ctrl-C ends it after the step under way. */
async function trainingLoop(
  trainer: Trainer,
  batches: ReturnType<ImageLoader["training"]>,
  recipe: Recipe,
  directory: string,
  console: Console,
  profiled: boolean,
): Promise<Outcome> {
  const metrics = new Metrics(directory);
  let stopped = false;
  const stop = () => {
    if (stopped) Deno.exit(INTERRUPTED);
    stopped = true;
    console.note("stopping after this step; once more to stop at once");
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, stop);
  resetPeak();
  const began = performance.now();
  let [images, lookedAt, imagesThen, warm, warmSteps] = [0, began, 0, began, 0];
  const losses: number[] = [];
  let submits = counters.submits;
  let found: Profile<Tensor> | null = null;
  let pending: { step: number; rate: number }[] = [];
  // Copied out of a step at once: its buffers are there for the next one, which so gets the same ones.
  const board = keep(zeros([LOOK_EVERY, 2]));
  const note = (step: number, rate: number, stats: Tensor) => {
    scope(() =>
      pointwiseInto(slice(board, 0, pending.length, pending.length + 1), "x", { x: stats })
    );
    stats.release();
    pending.push({ step, rate });
  };
  const look = async () => {
    const seen = await board.data();
    const now = performance.now();
    const imagesPerSecond = (images - imagesThen) / ((now - lookedAt) / 1000);
    [lookedAt, imagesThen] = [now, images];
    for (const [i, { step, rate }] of pending.entries()) {
      const [loss, accuracy] = [seen[2 * i], seen[2 * i + 1]];
      if (!Number.isFinite(loss)) {
        throw new Error(
          step === 0
            ? `Cannot begin: the loss is ${loss} before the first step; check the model, --alpha and --logit-scale`
            : `Cannot go on: the loss of step ${step} is ${loss}; try a lower --learning-rate`,
        );
      }
      losses.push(loss);
      await metrics.log({
        step,
        loss,
        accuracy,
        learningRate: rate,
        imagesPerSecond,
        peakGpuBytes: memory().peakBytes,
      });
    }
    const lastAccuracy = seen[2 * pending.length - 1];
    pending = [];
    const done = trainer.steps;
    const left = (now - began) / done * (recipe.iterations - done) / 1000;
    console.progress(
      `step ${done}/${recipe.iterations}  loss ${losses.at(-1)!.toFixed(4)}  accuracy ${
        percent(lastAccuracy)
      }  ` +
        `${imagesPerSecond.toFixed(0)} images/s  ${duration(left)} left  GPU ${
          megabytes(memory().peakBytes)
        }`,
      done === recipe.iterations || stopped,
    );
  };
  try {
    for await (const { pixels, labels, skipped } of batches) {
      for (const path of skipped) console.note(`skipped ${path}`);
      const [step, rate] = [trainer.steps, trainer.learningRate];
      const take = () => trainer.step({ pixels, labels });
      if (step === 0) {
        await compileAhead(() => take().release(), (ready, total) => {
          console.progress(`compiling kernels: ${ready} of ${total}`);
        });
      }
      const isProfiled = profiled && step === Math.min(PROFILED, recipe.iterations - 1);
      if (isProfiled) found = await profile(take);
      note(step, rate, isProfiled ? found!.value : take());
      images += labels.length;
      const last = trainer.steps === recipe.iterations || stopped;
      // The first step compiles: it is looked at by itself, so that the pace of the others is theirs.
      if (step === 0 || trainer.steps % LOOK_EVERY === 0 || last) await look();
      if (step === 0 && !last) {
        [warm, warmSteps, submits] = [performance.now(), 1, counters.submits];
      }
      if (last) break;
    }
  } finally {
    board.release();
    for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.removeSignalListener(signal, stop);
  }
  const ended = performance.now();
  const steadySteps = trainer.steps - warmSteps;
  const steady = (ended - warm) / steadySteps;
  return {
    iterations: trainer.steps,
    interrupted: trainer.steps < recipe.iterations,
    losses,
    seconds: (ended - began) / 1000,
    secondsPerStep: steady / 1000,
    imagesPerSecond: 1000 * images / trainer.steps / steady,
    peakBytes: memory().peakBytes,
    peakByOwner: memory().peakByOwner,
    submitsPerStep: (counters.submits - submits) / steadySteps,
    profile: found,
  };
}

/** What `result.json` says of a finished run: nothing that differs from one run of the same settings to the next. */
export interface RunResult {
  /** The version of this format. */
  readonly format: 1;
  /** Of octograd. */
  readonly version: string;
  /** As the adapter calls itself. */
  readonly device: string;
  /** As the command line named it. */
  readonly model: string;
  /** The data set's name. */
  readonly data: string;
  /** The names of its classes. */
  readonly classes: readonly string[];
  /** What they were put into. */
  readonly template: string;
  /** `zero-shot`, `linear-probe`, or a kind of adapter. */
  readonly method: string;
  /** The adapter's nominal rank. */
  readonly rank: number | null;
  /** Its blocks. */
  readonly blocks: number | null;
  /** Training images a class; 0 for zero-shot. */
  readonly shots: number;
  /** Of the shots, the adapters, the crops and the dropout. */
  readonly seed: number | null;
  /** Training steps. */
  readonly iterations: number;
  /** How many numbers were trained. */
  readonly trainableParameters: number;
  /** Percent of the test images. */
  readonly accuracy: number;
  /** The same before training. */
  readonly zeroShotAccuracy: number | null;
  /** At most 100 pairs of a step and the mean loss of those around it. */
  readonly losses: readonly (readonly [step: number, loss: number])[];
  /** The most GPU bytes that were live at once while it trained. */
  readonly peakGpuBytes: number | null;
  /** What they were. */
  readonly peakBytesByOwner: BytesByOwner | null;
  /** The class of each test image. */
  readonly labels: readonly number[];
  /** What was predicted of it. */
  readonly predictions: readonly number[];
  /** Its path, below the data set's root. */
  readonly images: readonly string[];
  /** Whatever else was asked for and decided the numbers: a run of other settings is another run. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** What it read; 0.1 did not say. */
  readonly identity?: Identity;
}

/** What every run on a setting has in common, and what its score says. */
export function resultOf(
  { model, dataset, template }: Setting,
  { accuracy, labels, predictions, paths }: Pick<
    Score,
    "accuracy" | "labels" | "predictions" | "paths"
  >,
):
  & Pick<RunResult, "format" | "version" | "device" | "model" | "data" | "classes" | "template">
  & Pick<RunResult, "accuracy" | "labels" | "predictions" | "images"> {
  return {
    format: 1,
    version: manifest.version,
    device: adapterName(),
    model: model.name,
    data: dataset.name,
    classes: dataset.classes,
    template,
    accuracy: 100 * accuracy,
    labels,
    predictions,
    images: paths.map((path) => relative(dataset.root, path)),
  };
}

/** The result of adapters that were trained. */
export function adaptedResult(
  setting: Setting,
  choice: Choice,
  outcome: Outcome,
  score: Score,
  { parameters, zeroShotAccuracy, identity }: {
    parameters: number;
    zeroShotAccuracy: number | null;
    identity: Identity;
  },
): RunResult {
  const { adapter: { method, rank, blocks }, shots, seed } = choice;
  return {
    ...resultOf(setting, score),
    method,
    rank,
    blocks,
    shots,
    seed,
    iterations: outcome.iterations,
    trainableParameters: parameters,
    zeroShotAccuracy,
    losses: thinned(outcome.losses),
    peakGpuBytes: outcome.peakBytes,
    peakBytesByOwner: outcome.peakByOwner,
    settings: settingsOf(setting, choice),
    identity,
  };
}

/** What decides the numbers of an adapter's run, beside its method, shots and seed. */
export function settingsOf(
  { model, template, batchSize }: Pick<Setting, "model" | "template" | "batchSize">,
  { adapter, recipe, cropScale, flip, plan }: Choice,
): Record<string, unknown> {
  const { method: _method, rank: _rank, blocks: _blocks, ...others } = adapter;
  const own = { ...others, ...recipeOf(recipe), cropScale, flip, batchSize, ...plan };
  return { model: model.name, precision: model.clip.precision, template, ...own };
}

/** The numbers of a recipe; command line flags that came along with them stay behind. */
export function recipeOf(recipe: Recipe): Recipe {
  const { learningRate, minimumRate, weightDecay, betas, iterations, logitScale } = recipe;
  const { labelSmoothing, maxNorm, seed } = recipe;
  return {
    ...{ learningRate, minimumRate, weightDecay, betas, iterations, logitScale },
    ...{ labelSmoothing, maxNorm, seed },
  };
}

/** How long a run took. */
export function timingOf(
  { seconds, secondsPerStep, imagesPerSecond }: Outcome,
): Pick<Outcome, "seconds" | "secondsPerStep" | "imagesPerSecond"> {
  return { seconds, secondsPerStep, imagesPerSecond };
}

/** Means of a curve over at most 100 equal windows, each with its middle step. */
export function thinned(losses: readonly number[]): [step: number, loss: number][] {
  const window = Math.ceil(losses.length / 100);
  return Array.from({ length: Math.ceil(losses.length / window) }, (_, i) => {
    const part = losses.slice(i * window, (i + 1) * window);
    const mean = part.reduce((total, loss) => total + loss, 0) / part.length;
    return [i * window + (part.length - 1) / 2, Number(mean.toPrecision(6))];
  });
}

/** Writes `result.json`, and beside it what may differ from run to run: `timing.json`. */
export async function writeResult(
  directory: string,
  result: RunResult,
  timing: Readonly<Record<string, unknown>>,
): Promise<void> {
  const json = (value: unknown) => `${JSON.stringify(value, null, 1)}\n`;
  const finished = { ...timing, finished: new Date().toISOString() };
  await writeAtomically(join(directory, "timing.json"), json(finished));
  await writeAtomically(join(directory, "result.json"), json(result));
}
