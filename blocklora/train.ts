/**
 * `deno task train`: from a model and a folder of images to an adapter.
 *
 * @module
 */

import { basename, join } from "node:path";
import { concat } from "../autograd/ops/view.ts";
import type { Projection } from "../clip/layers.ts";
import { adapterName } from "../tensor/device.ts";
import { memory, resetPeak } from "../tensor/memory.ts";
import { counters } from "../tensor/queue.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type AdapterConfig,
  type Adapters,
  attach,
  DEFAULT_ADAPTER,
  ENCODERS,
  METHODS,
} from "./attach.ts";
import { saveAdapters } from "./checkpoint.ts";
import { Classifier, classPrompts } from "./classifier.ts";
import { Console, duration, megabytes, percent } from "./console.ts";
import { type Dataset, drawShots, writeSplit } from "./dataset.ts";
import { reasonOf, writeAtomically } from "./file_source.ts";
import {
  choice,
  number,
  pair,
  parseOnlyFlags,
  text,
  toggle,
  UsageError,
  type Values,
} from "./flags.ts";
import { ImageLoader } from "./loader.ts";
import type { OpenedModel } from "./open_model.ts";
import { DEFAULT_RECIPE, type Recipe, Trainer } from "./trainer.ts";
import {
  assertWritable,
  COMMON_FLAGS,
  IMAGE_FLAGS,
  MODEL_FLAGS,
  openChosen,
  openData,
  score,
  userPath,
} from "./workspace.ts";

/** The usage line and the paragraph of the help. */
export const ABOUT = {
  usage: "octograd train [--model DIR|FILE|ID] [--data DIR] [flags]",
  about:
    `Trains Block-LoRA or LoRA adapters of a CLIP model on a few labelled images a class, and writes them with their
metrics to a directory. Prints the zero-shot accuracy first, the adapted accuracy last. Without arguments it trains the
embedded model on the embedded images. The presets are CLIP-LoRA's; the embedded model has its own (5e-3, mild crops,
300 iterations). Ctrl-C saves what is trained so far.`,
};

/** The flags of `train`. */
export const FLAGS = {
  ...MODEL_FLAGS,
  data: text<string | undefined>(
    "DIR",
    "train/CLASS/* and test/CLASS/*, or CLASS/*; the embedded images if not given",
    undefined,
  ),
  split: text<string | undefined>("FILE", "a split file, as CoOp's split_zhou_*.json", undefined),
  shots: number({ from: 1, whole: true }, "training images a class", 16),
  seed: number(
    { from: 0, to: 2 ** 32 - 1, whole: true },
    "seed of the shots, the adapters, the crops and the dropout",
    1,
  ),
  template: text<string | undefined>(
    "TEXT",
    'the prompt, {} for the class name; the data set\'s, else "a photo of a {}."',
    undefined,
  ),
  method: choice(METHODS, "kind of adapter", DEFAULT_ADAPTER.method),
  rank: number({ from: 1, whole: true }, "nominal rank r", DEFAULT_ADAPTER.rank),
  blocks: number<number | undefined>(
    { from: 1, whole: true },
    "blocks n of Block-LoRA, which divide the rank [4]",
    undefined,
  ),
  alpha: number({}, "numerator of the adapter's scale", DEFAULT_ADAPTER.alpha),
  scaling: choice(
    ["sqrt", "linear"],
    "scale is alpha/sqrt(r), or alpha/r",
    DEFAULT_ADAPTER.scaling,
  ),
  dropout: number(
    { from: 0, to: 0.999 },
    "share of an adapter's input that is dropped",
    DEFAULT_ADAPTER.dropout,
  ),
  projections: text(
    "LIST",
    "layers of a block to adapt, of q,k,v,o,fc1,fc2",
    DEFAULT_ADAPTER.projections.join(),
  ),
  encoder: choice(ENCODERS, "towers to adapt", DEFAULT_ADAPTER.encoder),
  position: text(
    "WHICH",
    "blocks to adapt: all, bottom, mid, up, half-up, half-bottom, topN, or numbers 0,1,5",
    "all",
  ),
  iterations: number<number | undefined>(
    { from: 1, whole: true },
    "training steps [500 a shot]",
    undefined,
  ),
  learningRate: number<number | undefined>(
    { from: 0 },
    "AdamW's rate at the first step [2e-4]",
    undefined,
  ),
  minimumRate: number({ from: 0 }, "its rate at the end of the cosine", DEFAULT_RECIPE.minimumRate),
  weightDecay: number({ from: 0 }, "AdamW's weight decay", DEFAULT_RECIPE.weightDecay),
  betas: pair({ from: 0, to: 0.999999 }, "AdamW's decay rates", DEFAULT_RECIPE.betas),
  logitScale: number({ from: 0 }, "factor of the cosines", DEFAULT_RECIPE.logitScale),
  labelSmoothing: number({ from: 0, to: 1 }, "share of each label spread over all classes", 0),
  maxNorm: number({ from: 0 }, "largest norm of all gradients together, 0 for none", 0),
  cropScale: pair({ from: 0.0001, to: 1 }, "share of the area that random crops keep [0.08,1]", []),
  flip: toggle("mirror half of the training images", true),
  ...IMAGE_FLAGS,
  output: text<string | undefined>("DIR", "where to write [runs/DATA-METHOD-...]", undefined),
  ...COMMON_FLAGS,
};

/** What the embedded model takes where CLIP-LoRA's recipe, made for ViT-B/16, hardly moves it. */
const EMBEDDED_RECIPE = { learningRate: 5e-3, cropScale: [0.8, 1], iterations: 300 } as const;
const CROP_SCALE = [0.08, 1] as const;
const ITERATIONS_A_SHOT = 500;

/** Steps between two looks at the loss: a look waits for the GPU. */
const LOOK_EVERY = 10;

/** Room for the metrics and the configuration, beside the adapters. */
const SPARE_BYTES = 2 ** 20;

/** The exit code of a run that Ctrl-C ended. */
const INTERRUPTED = 130;

/** Runs the command and returns its exit code. */
export async function train(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  const embedded = flags.model === undefined;
  const adapterConfig = adapterConfigOf(flags);
  const recipe: Recipe = {
    ...flags,
    betas: [flags.betas[0], flags.betas[1]],
    learningRate: flags.learningRate ??
      (embedded ? EMBEDDED_RECIPE.learningRate : DEFAULT_RECIPE.learningRate),
    iterations: flags.iterations ??
      (embedded ? EMBEDDED_RECIPE.iterations : ITERATIONS_A_SHOT * flags.shots),
  };
  const [least, most] = flags.cropScale.length
    ? flags.cropScale
    : embedded
    ? EMBEDDED_RECIPE.cropScale
    : CROP_SCALE;
  if (least > most) throw new UsageError(`Cannot use --crop-scale: ${least} is more than ${most}`);

  const { dataset, given } = await openData(flags);
  const shots = drawShots(dataset, flags.shots, flags.seed);
  const template = flags.template ?? dataset.template ?? "a photo of a {}.";

  const model = await openChosen(flags, console);
  const { clip, tokenizer, preprocess } = model;
  const prompts = classPrompts(clip, tokenizer, dataset.classes, template);
  const adapters = attach(clip, adapterConfig, flags.seed);
  const output = userPath(
    flags.output ?? defaultOutput(dataset, adapterConfig, flags.shots, flags.seed),
  );
  const loader = new ImageLoader(preprocess, { workers: flags.workers, onError: flags.onError });
  const run = new Run(output);
  try {
    await assertWritable(output, SPARE_BYTES + 4 * adapters.parameterCount);
    console.note(
      `${dataset.name}: ${dataset.classes.length} classes, ${shots.length} training and ${dataset.test.length} test images; ` +
        `${model.name} on ${adapterName()}`,
    );
    const evaluate = async (what: string) => {
      const classifier = new Classifier(clip, prompts, recipe.logitScale);
      try {
        const result = await score(
          classifier,
          loader,
          dataset.test,
          dataset.classes,
          flags.batchSize,
          console,
        );
        console.say(
          `${what} accuracy: ${percent(result.accuracy)} (${result.correct} of ${result.images})`,
        );
        return 100 * result.accuracy;
      } finally {
        classifier.release();
      }
    };
    // Broken images show themselves before anything is written: those to test on in the zero-shot evaluation.
    if (flags.onError === "fail") {
      let read = 0;
      for await (const { labels } of loader.evaluation(shots, flags.batchSize)) {
        read += labels.length;
        console.progress(`reading ${read} of ${shots.length} training images`);
      }
    }
    const zeroShotAccuracy = await evaluate("zero-shot");
    console.note(
      `training ${adapters.parameterCount} parameters of ${adapters.byModule.size} adapters for ${recipe.iterations} iterations`,
    );

    const trainer = new Trainer(clip, adapters, prompts, recipe);
    const batches = loader.training(shots, {
      batchSize: flags.batchSize,
      iterations: recipe.iterations,
      seed: flags.seed,
      scale: [least, most],
      flip: flags.flip,
    });
    const outcome = await run.train(trainer, batches, recipe, console);
    trainer.release();

    const summary = {
      model: model.name,
      data: given,
      classes: dataset.classes.length,
      shots: flags.shots,
      seed: flags.seed,
      template,
      method: adapterConfig.method,
      rank: adapterConfig.rank,
      blocks: adapterConfig.blocks,
      alpha: adapterConfig.alpha,
      trainableParameters: adapters.parameterCount,
      iterations: outcome.iterations,
      zeroShotAccuracy,
    };
    const interrupted = outcome.iterations < recipe.iterations;
    await saveRun(output, model, adapters, dataset, {
      classes: dataset.classes,
      template,
      logitScale: recipe.logitScale,
      shots: flags.shots,
      seed: flags.seed,
      iterations: outcome.iterations,
      recipe: {
        ...recipeOnly(recipe),
        cropScale: [least, most],
        flip: flags.flip,
        batchSize: flags.batchSize,
      },
      ...(interrupted && { interrupted }),
    });
    console.say(
      `adapter: ${output} (${duration(outcome.seconds)}, ${
        (1000 * outcome.secondsPerStep).toFixed(0)
      } ms a step, ` +
        `GPU memory ${megabytes(outcome.peakBytes)} at most, ${megabytes(memory().liveBytes)} now)`,
    );
    const accuracy = interrupted ? undefined : await evaluate("adapted");
    const result = {
      ...summary,
      ...(interrupted ? { interrupted } : { accuracy }),
      firstLoss: outcome.firstLoss,
      lastLoss: outcome.lastLoss,
      secondsPerStep: outcome.secondsPerStep,
      imagesPerSecond: outcome.imagesPerSecond,
      peakGpuBytes: outcome.peakBytes,
      liveGpuBytes: memory().liveBytes,
      submitsPerStep: outcome.submitsPerStep,
      adapterPath: output,
    };
    await run.log({ event: "end", ...result });
    console.finish(result);
    return interrupted ? INTERRUPTED : 0;
  } finally {
    loader.close();
    adapters.release();
    prompts.release();
    clip.release();
  }
}

function adapterConfigOf(flags: Values<typeof FLAGS>): AdapterConfig {
  const { method, rank, alpha, scaling, dropout, encoder } = flags;
  const list = flags.projections.split(",").map((name) => name.trim()) as Projection[];
  const numbers = /^\d+(,\d+)*$/.test(flags.position);
  return {
    method,
    rank,
    blocks: flags.blocks ?? (method === "lora" ? 1 : DEFAULT_ADAPTER.blocks),
    alpha,
    scaling,
    dropout,
    encoder,
    projections: list,
    position: numbers ? flags.position.split(",").map(Number) : flags.position,
  };
}

function recipeOnly(
  { learningRate, minimumRate, weightDecay, betas, labelSmoothing, maxNorm }: Recipe,
) {
  return { learningRate, minimumRate, weightDecay, betas, labelSmoothing, maxNorm };
}

function defaultOutput(
  dataset: Dataset,
  { method, rank, blocks }: AdapterConfig,
  shots: number,
  seed: number,
): string {
  const size = method === "lora" ? `r${rank}` : `r${rank}-n${blocks}`;
  return join("runs", `${basename(dataset.root)}-${method}-${size}-${shots}shots-seed${seed}`);
}

/** Writes adapters and what they were made of; a split that was drawn here is written down beside them. */
async function saveRun(
  output: string,
  model: OpenedModel & { name: string },
  adapters: Adapters,
  dataset: Dataset,
  extra: Record<string, unknown>,
): Promise<void> {
  const { weights, config } = await saveAdapters(adapters, model, {
    extra: { model: model.name, ...extra },
  });
  await writeAtomically(join(output, "adapter_model.safetensors"), weights);
  await writeAtomically(join(output, "adapter_config.json"), config);
  if (dataset.drawn) await writeSplit(dataset, join(output, "split.json"));
}

/** What came of the training loop. */
interface Outcome {
  readonly iterations: number;
  readonly firstLoss: number;
  readonly lastLoss: number;
  readonly seconds: number;
  readonly secondsPerStep: number;
  readonly imagesPerSecond: number;
  readonly peakBytes: number;
  readonly submitsPerStep: number;
}

/** One run in its directory, which its first line of metrics makes. */
class Run {
  readonly #directory: string;
  #begun = false;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** Adds a line to `metrics.jsonl`, which begins anew with the run's first line. */
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

  /** Takes every step, looking at the losses now and then; Ctrl-C ends it after the step under way. */
  async train(
    trainer: Trainer,
    batches: ReturnType<ImageLoader["training"]>,
    recipe: Recipe,
    console: Console,
  ): Promise<Outcome> {
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
    let [firstLoss, lastLoss] = [NaN, NaN];
    let submits = counters.submits;
    let pending: { step: number; rate: number; stats: Tensor }[] = [];
    const look = async () => {
      const stats = scope(() => concat(pending.map(({ stats }) => stats), 0));
      const seen = await stats.data().finally(() => stats.release());
      const now = performance.now();
      const imagesPerSecond = (images - imagesThen) / ((now - lookedAt) / 1000);
      [lookedAt, imagesThen] = [now, images];
      for (const [i, { step, rate, stats }] of pending.entries()) {
        const [loss, accuracy] = [seen[2 * i], seen[2 * i + 1]];
        if (!Number.isFinite(loss)) {
          throw new Error(
            `Cannot go on: the loss of step ${step} is ${loss}; try a lower --learning-rate`,
          );
        }
        if (step === 0) firstLoss = loss;
        lastLoss = loss;
        stats.release();
        await this.log({
          step,
          loss,
          accuracy,
          learningRate: rate,
          imagesPerSecond,
          peakGpuBytes: memory().peakBytes,
        });
      }
      pending = [];
      const done = trainer.steps;
      const left = (now - began) / done * (recipe.iterations - done) / 1000;
      console.progress(
        `step ${done}/${recipe.iterations}  loss ${lastLoss.toFixed(4)}  accuracy ${
          percent(seen[seen.length - 1])
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
        pending.push({ step, rate, stats: trainer.step({ pixels, labels }) });
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
      for (const { stats } of pending) stats.release();
      for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.removeSignalListener(signal, stop);
    }
    const ended = performance.now();
    const steadySteps = trainer.steps - warmSteps;
    const steady = (ended - warm) / steadySteps;
    return {
      iterations: trainer.steps,
      firstLoss,
      lastLoss,
      seconds: (ended - began) / 1000,
      secondsPerStep: steady / 1000,
      imagesPerSecond: 1000 * images / trainer.steps / steady,
      peakBytes: memory().peakBytes,
      submitsPerStep: (counters.submits - submits) / steadySteps,
    };
  }
}
