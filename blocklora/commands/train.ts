/**
 * `deno task train`: trains an adapter for a model on a folder of images.
 *
 * @module
 */

import { basename, join } from "node:path";
import { dryTwin, gpuName } from "../../tensor/device.ts";
import { limitMemory, memory } from "../../tensor/memory.ts";
import { profileTable } from "../../tensor/profile.ts";
import { planStep } from "../training/step.ts";
import type { Dataset } from "../data/dataset.ts";
import { drawShots } from "../data/shots.ts";
import { ImageLoader } from "../data/loader.ts";
import type { Learner } from "../methods/method.ts";
import { methodNamed } from "../methods/lookup.ts";
import { writeReport } from "../report/write.ts";
import { Console, duration, megabytes, percent } from "../system/console.ts";
import { number, text, toggle } from "../system/flag.ts";
import { parseOnlyFlags } from "../system/flags.ts";
import { INTERRUPTED } from "../system/interrupts.ts";
import { ImageHashes } from "../training/identity.ts";
import { Metrics } from "../training/metrics.ts";
import { parameterCount, timingOf, trainedResult, writeResult } from "../training/result.ts";
import { claimDirectory, holdsRun, replaceRun } from "../training/run_directory.ts";
import { type RunConfig, taskOf } from "../training/run_config.ts";
import { evaluateOn, trainLearner } from "../training/run.ts";
import { MODEL_FLAGS } from "./model_flags.ts";
import { openChosen } from "../models/chosen_model.ts";
import {
  MAX_SEED,
  MEMORY_FLAGS,
  memoryLimitOf,
  METHOD_FLAGS,
  planText,
  runConfigOf,
  TRAINING_FLAGS,
} from "./run_flags.ts";
import { COMMON_FLAGS, IMAGE_FLAGS } from "./common_flags.ts";
import { openData } from "../data/open_data.ts";
import { userPath } from "../system/user_path.ts";
import { promptsFor } from "../training/prompts.ts";

/** The usage line and the description in the help text. */
export const ABOUT = {
  usage: "octograd train [--model DIR|FILE|ID] [--data DIR] [flags]",
  about:
    `Trains adapters of a CLIP model on a few labelled images a class, and writes them with their
metrics to a directory. Prints the zero-shot accuracy first, the adapted accuracy last. Without
arguments it trains Block-LoRA on the embedded model and images. The presets are CLIP-LoRA's; the
embedded model has other ones (5e-3, mild crops, 300 iterations). Ctrl-C saves what is trained so
far.`,
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
  shots: number({ from: 1, integer: true }, "training images a class", 16),
  seed: number(
    { from: 0, to: MAX_SEED, integer: true },
    "seed of the shots, the adapters, the crops and the dropout",
    1,
  ),
  template: text<string | undefined>(
    "TEXT",
    'the prompt, {} for the class name; the data set\'s, else "a photo of a {}."',
    undefined,
  ),
  ...METHOD_FLAGS,
  ...TRAINING_FLAGS,
  ...MEMORY_FLAGS,
  ...IMAGE_FLAGS,
  output: text<string | undefined>("DIR", "where to write [runs/DATA-METHOD-...]", undefined),
  profile: toggle("time every kernel of the third step, and print a table of them at the end"),
  ...COMMON_FLAGS,
};

/** Bytes to reserve for the metrics and the configuration, besides the adapters. */
const SPARE_BYTES = 2 ** 20;

/** Runs the command and returns its exit code. */
export async function train(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  let config = runConfigOf(flags);
  const { recipe } = config;
  const method = methodNamed(config.method.method);
  const limit = memoryLimitOf(flags);

  const { dataset, given } = await openData(flags, console);
  const shots = drawShots(dataset, flags.shots, flags.seed);
  const template = flags.template ?? dataset.template ?? "a photo of a {}.";

  const opened = await openChosen(flags, console);
  const { model, preprocess } = opened;
  const prompts = promptsFor(opened, dataset.classes, template, console);
  const loader = new ImageLoader(preprocess, { workers: flags.workers, onError: flags.onError });
  const { batchSize } = flags;
  const context = { opened, dataset, template, prompts, loader, batchSize, console };
  let learner: Learner | null = null;
  try {
    const wanted = userPath(
      flags.output ?? defaultOutput(dataset, config),
    );
    // Never write into a directory that another run has written to or is writing to.
    const bytes = SPARE_BYTES + 4 * method.countParameters(taskOf(context), config.method);
    await using claim = await claimDirectory(wanted, bytes);
    const directory = claim.path;
    const replaces = flags.output !== undefined && await holdsRun(wanted);
    const output = replaces ? wanted : directory;
    if (directory !== wanted) {
      console.note(
        `${wanted} ${await holdsRun(wanted) ? "holds a run" : "is being written to"}: ` +
          `this one is written to ${directory}` +
          (replaces ? ", and replaces it when it is finished" : ""),
      );
    }
    console.note(
      `${dataset.name}: ${dataset.classes.length} classes, ` +
        `${shots.length} training and ${dataset.test.length} test images; ` +
        `${opened.name} on ${gpuName()}`,
    );
    const evaluate = async (what: string) => {
      const scored = await evaluateOn(context, recipe.logitScale, learner ?? undefined);
      const { accuracy, correct, images } = scored;
      console.say(`${what} accuracy: ${percent(accuracy)} (${correct} of ${images})`);
      return scored;
    };
    // Find broken images before anything is written. The test images are read by the zero-shot
    // evaluation below.
    if (flags.onError === "fail") {
      let read = 0;
      for await (const { labels } of loader.evaluation(shots, batchSize)) {
        read += labels.length;
        console.progress(`reading ${read} of ${shots.length} training images`);
      }
    }
    if (limit !== undefined) {
      console.progress("counting what ways to need less memory would cost ...", true);
      const { memory, cost } = planStep({
        definition: model.definition,
        precisions: [model.precision],
        step: {
          method: config.method,
          batch: Math.min(batchSize, shots.length),
          promptTokens: prompts.lengths,
          memory: config.memory,
        },
        limit,
        gpu: dryTwin(),
      });
      config = { ...config, memory };
      limitMemory(limit);
      console.note(
        `memory limit ${megabytes(limit)}: ${planText(memory)}; a step needs ${
          megabytes(cost.peakGpuBytes)
        } and ${(cost.flops.total / 1e9).toFixed(1)} GFLOP`,
      );
    }
    const zeroShotAccuracy = 100 * (await evaluate("zero-shot")).accuracy;
    learner = method.learner(taskOf(context), config.method, flags.seed);
    const parameters = parameterCount(learner);
    console.note(
      `training ${parameters} parameters of ${
        method.label(config.method)
      } for ${recipe.iterations} iterations`,
    );
    const outcome = await trainLearner(context, config, learner, directory, flags.profile);
    const { interrupted } = outcome;
    const adapterPath = interrupted ? directory : output;
    console.say(
      `adapter: ${adapterPath} (${duration(outcome.seconds)}, ${
        (1000 * outcome.secondsPerStep).toFixed(0)
      } ms a step, ` +
        `GPU memory ${megabytes(outcome.peakBytes)} at most, ${megabytes(memory().liveBytes)} now)`,
    );
    const adapted = interrupted ? undefined : await evaluate("adapted");
    const result = {
      model: opened.name,
      data: given,
      classes: dataset.classes.length,
      shots: flags.shots,
      seed: flags.seed,
      template,
      ...told(config),
      trainableParameters: parameters,
      iterations: outcome.iterations,
      zeroShotAccuracy,
      ...(adapted ? { accuracy: 100 * adapted.accuracy } : { interrupted }),
      firstLoss: outcome.losses[0],
      lastLoss: outcome.losses.at(-1),
      secondsPerStep: outcome.secondsPerStep,
      imagesPerSecond: outcome.imagesPerSecond,
      peakGpuBytes: outcome.peakBytes,
      peakBytesByOwner: outcome.peakByCategory,
      liveGpuBytes: memory().liveBytes,
      submitsPerStep: outcome.submitsPerStep,
      ...(outcome.profile && { profile: outcome.profile.rows }),
      adapterPath,
    };
    if (adapted) {
      const images = new ImageHashes(dataset);
      const identity = {
        model: opened.fingerprint,
        train: await images.of(shots),
        test: await images.of(dataset.test),
      };
      const known = { learner, zeroShotAccuracy, identity };
      const written = trainedResult(context, config, outcome, adapted, known);
      await writeResult(directory, written, timingOf(outcome));
      await writeReport(directory, dataset);
    }
    for (const line of outcome.profile ? profileTable(outcome.profile).split("\n") : []) {
      console.note(line);
    }
    await new Metrics(directory, true).log({ event: "end", ...result });
    if (adapted && replaces) await replaceRun(directory, output);
    console.finish(result);
    return interrupted ? INTERRUPTED : 0;
  } finally {
    loader.close();
    learner?.release();
    prompts.release();
    model.release();
  }
}

/** The fields of the method's configuration that go into the JSON document. */
function told({ method: { method, rank, blocks, ...more } }: RunConfig): Record<string, unknown> {
  const { alpha } = more as { readonly alpha?: number };
  return { method, rank, blocks, alpha };
}

function defaultOutput(dataset: Dataset, { method, shots, seed }: RunConfig): string {
  const name = `${method.method}-${methodNamed(method.method).variant(method)}`;
  return join("runs", `${basename(dataset.root)}-${name}-${shots}shots-seed${seed}`);
}
