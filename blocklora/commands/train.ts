/**
 * `deno task train`: trains an adapter for a model on a folder of images.
 *
 * @module
 */

import { basename, join } from "node:path";
import { gpuName } from "../../tensor/device.ts";
import { limitMemory, memory } from "../../tensor/memory.ts";
import { profileTable } from "../../tensor/profile.ts";
import type { Dataset, Sample } from "../data/dataset.ts";
import { drawShots } from "../data/shots.ts";
import { ImageLoader } from "../data/loader.ts";
import type { Learner } from "../methods/method.ts";
import { methodNamed } from "../methods/lookup.ts";
import { openChosen, sourceOf } from "../models/chosen_model.ts";
import { writeReport } from "../report/write.ts";
import { Console, duration, megabytes, percent } from "../system/console.ts";
import { exists } from "../system/files.ts";
import { number, text, toggle, UsageError, type Values } from "../system/flag.ts";
import { parseOnlyFlags } from "../system/flags.ts";
import { catchInterrupts } from "../system/interrupts.ts";
import { userPath } from "../system/user_path.ts";
import { ImageHashes } from "../training/identity.ts";
import { keyOf, openRun, SPARE_BYTES } from "../training/open_run.ts";
import { promptsFor } from "../training/prompts.ts";
import { parameterCount, timingOf, trainedResult, writeResult } from "../training/result.ts";
import {
  checkOutput,
  type Claim,
  claimRun,
  holdsRun,
  outputOf,
  unfinishedOf,
} from "../training/run_directory.ts";
import { type RunConfig, type RunContext, taskOf } from "../training/run_config.ts";
import { evaluateOn, trainLearner } from "../training/run.ts";
import { noteOf, readCheckpoint } from "../training/training_checkpoint.ts";
import { onRegainedDevice } from "./command.ts";
import { COMMON_FLAGS, IMAGE_FLAGS } from "./common_flags.ts";
import { MODEL_FLAGS } from "./model_flags.ts";
import {
  CHECKPOINT_FLAGS,
  checkpointIntervalOf,
  MAX_SEED,
  MEMORY_FLAGS,
  memoryLimitOf,
  METHOD_FLAGS,
  runConfigOf,
  TRAINING_FLAGS,
  withinLimit,
} from "./run_flags.ts";
import { openData } from "../data/open_data.ts";

/** The usage line and the description in the help text. */
export const ABOUT = {
  usage: "octograd train [--model DIR|FILE|ID] [--data DIR] [flags]",
  about:
    `Trains adapters of a CLIP model on a few labelled images a class, and writes them with their
metrics to a directory. Prints the zero-shot accuracy first, the adapted accuracy last. Without
arguments it trains Block-LoRA on the embedded model and images. The presets are CLIP-LoRA's; the
embedded model has other ones (5e-3, mild crops, 300 iterations). The run is made in
OUTPUT.unfinished, and moved to OUTPUT when it is complete. Ctrl-C saves what is trained so far. The
same command again, or --resume, goes on where a run stopped, however it did.`,
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
  overwrite: toggle("replace the run that --output holds"),
  ...CHECKPOINT_FLAGS,
  resume: text<string | undefined>(
    "DIR",
    "go on with the unfinished run of this output",
    undefined,
  ),
  profile: toggle("time every kernel of the third step, and print a table of them at the end"),
  ...COMMON_FLAGS,
};

/** Numbers that are stored for each trained one: in the adapter, and in two checkpoints. */
const STORED = 1 + 2 * 3;

/** Runs the command and returns its exit code. */
export async function train(args: readonly string[]): Promise<number> {
  const console = new Console(parseOnlyFlags(args, FLAGS).json);
  return await onRegainedDevice(console, () => trainOn(args, console));
}

async function trainOn(typed: readonly string[], console: Console): Promise<number> {
  const args = await resumed(typed);
  const flags = parseOnlyFlags(args, FLAGS);
  let config = runConfigOf(flags);
  const limit = memoryLimitOf(flags);
  const every = checkpointIntervalOf(flags);

  const { dataset, given } = await openData(flags, console);
  const shots = drawShots(dataset, flags.shots, flags.seed);
  const template = flags.template ?? dataset.template ?? "a photo of a {}.";
  const wanted = userPath(flags.output ?? defaultOutput(dataset, config));
  const replaces = flags.overwrite ? "all" : "nothing";
  if (flags.output !== undefined) await checkOutput(wanted, flags.overwrite);

  const opened = await openChosen(flags, console);
  const { model, preprocess } = opened;
  const prompts = promptsFor(opened, dataset.classes, template, console);
  const { batchSize, workers, onError } = flags;
  const loader = new ImageLoader(preprocess, { workers, onError });
  let learner: Learner | null = null;
  let held: Claim | null = null;
  using interrupt = catchInterrupts(() =>
    console.note("stopping after this step; once more to stop at once")
  );
  const { signal } = interrupt;
  const context = { opened, dataset, template, prompts, loader, batchSize, console, signal };
  try {
    console.note(
      `${dataset.name}: ${dataset.classes.length} classes, ` +
        `${shots.length} training and ${dataset.test.length} test images; ` +
        `${opened.name} on ${gpuName()}`,
    );
    if (limit !== undefined) config = withinLimit(config, limit, context, shots.length);
    const method = methodNamed(config.method.method);
    const key = keyOf(context, config, await identityOf(context, shots));
    const bytes = SPARE_BYTES +
      4 * STORED * method.countParameters(taskOf(context), config.method);
    const numbered = flags.output === undefined;
    const { claim: claimed, from } = await openRun(wanted, key, {
      ...{ bytes, replaces, numbered, console },
    });
    await using claim = claimed;
    held = claim;
    // Find broken images before any step. The test images are read by the zero-shot evaluation.
    if (!from && onError === "fail") {
      let read = 0;
      for await (const { labels } of loader.evaluation(shots, batchSize)) {
        signal.throwIfAborted();
        read += labels.length;
        console.progress(`reading ${read} of ${shots.length} training images`);
      }
    }
    const { logitScale } = config.recipe;
    const zeroShot = from?.note.zeroShot ?? await evaluateOn(context, logitScale);
    const tell = (what: string, { accuracy, correct, images }: typeof zeroShot) =>
      console.say(`${what} accuracy: ${percent(accuracy)} (${correct} of ${images})`);
    tell("zero-shot", zeroShot);
    learner = method.learner(taskOf(context), config.method, flags.seed);
    const parameters = parameterCount(learner);
    console.note(
      `training ${parameters} parameters of ${
        method.label(config.method)
      } for ${config.recipe.iterations} iterations`,
    );
    const note = noteOf(key, zeroShot, await storedArgs(args, flags));
    const { outcome, metrics } = await trainLearner(
      context,
      config,
      learner,
      { claim, from, note, every },
      flags.profile,
    );
    const { interrupted } = outcome;
    const adapterPath = interrupted ? claim.path : claim.output;
    console.say(
      `adapter: ${adapterPath} (${duration(outcome.seconds)}, ${
        (1000 * outcome.secondsPerStep).toFixed(0)
      } ms a step, ` +
        `GPU memory ${megabytes(outcome.peakBytes)} at most, ${megabytes(memory().liveBytes)} now)`,
    );
    if (interrupted) tellResume(console, outcome.iterations, claim.output);
    const adapted = interrupted ? undefined : await evaluateOn(context, logitScale, learner);
    if (adapted) tell("adapted", adapted);
    const zeroShotAccuracy = 100 * zeroShot.accuracy;
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
    for (const line of outcome.profile ? profileTable(outcome.profile).split("\n") : []) {
      console.note(line);
    }
    await metrics.log({ event: "end", ...result });
    if (adapted) {
      const known = { learner, zeroShotAccuracy, identity: key.identity };
      const written = trainedResult(context, config, outcome, adapted, known);
      await writeResult(claim.path, written, timingOf(outcome));
      await writeReport(claim.path, dataset);
      // Something may have come there meanwhile.
      await checkOutput(claim.output, flags.overwrite);
      await claim.publish();
    }
    console.finish(result);
    return interrupted ? signal.reason.exitCode : 0;
  } catch (error) {
    const saved = held && await readCheckpoint(held.path).catch(() => null);
    if (saved) tellResume(console, saved.progress.steps, held!.output);
    throw error;
  } finally {
    limitMemory(Infinity);
    loader.close();
    learner?.release();
    prompts.release();
    model.release();
  }
}

/** Hashes of what the run reads. Prints a note if training and test images are the same. */
async function identityOf(
  { opened, dataset, console, signal }: RunContext,
  shots: readonly Sample[],
) {
  const images = new ImageHashes(dataset, signal);
  console.progress(`reading the images of ${dataset.name}`);
  const [train, test] = [await images.of(shots), await images.of(dataset.test)];
  const shared = await images.shared(dataset.test, shots);
  if (shared.length > 0) {
    console.note(
      `${shared.length} test images are byte for byte equal to training images, ` +
        `such as ${shared[0].path}: the accuracy counts them too`,
    );
  }
  return { model: opened.fingerprint, train, test };
}

/** The command line that `--resume` stands for: that of the unfinished run, then what was typed. */
async function resumed(args: readonly string[]): Promise<readonly string[]> {
  const { resume, output } = parseOnlyFlags(args, FLAGS);
  if (resume === undefined) return args;
  if (output !== undefined) {
    throw new UsageError("Cannot use --output with --resume: the run stays where it is");
  }
  const directory = outputOf(userPath(resume));
  const checkpoint = await readCheckpoint(unfinishedOf(directory));
  if (!checkpoint?.note.args) {
    // A run that was killed as it was finished is moved to its directory.
    if (await exists(unfinishedOf(directory))) {
      await (await claimRun(directory, 0))?.[Symbol.asyncDispose]();
    }
    throw new Error(
      await holdsRun(directory)
        ? `Cannot resume ${directory}: its run is finished, evaluate it`
        : `Cannot resume ${directory}: there is no checkpoint of \`train\` in ` +
          `${unfinishedOf(directory)}, give the command again without --resume`,
    );
  }
  return [...checkpoint.note.args, ...args, `--output=${directory}`];
}

/** The command line to go on with from any directory: with absolute paths. */
async function storedArgs(
  args: readonly string[],
  { model, data, split, tokenizer }: Values<typeof FLAGS>,
): Promise<string[]> {
  const isResume = (at: number) =>
    args[at]?.startsWith("--resume=") || args[at] === "--resume" || args[at - 1] === "--resume";
  const path = (name: string, given: string | undefined) =>
    given === undefined ? [] : [`--${name}=${userPath(given)}`];
  return [
    ...args.filter((_, at) => !isResume(at)),
    ...(model === undefined ? [] : [`--model=${(await sourceOf(model)).spec}`]),
    ...path("data", data),
    ...path("split", split),
    ...path("tokenizer", tokenizer),
  ];
}

function tellResume(console: Console, steps: number, output: string): void {
  console.note(
    `what was trained in ${steps} steps is saved: the same command again goes on with it, ` +
      `or --resume ${output}`,
  );
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
