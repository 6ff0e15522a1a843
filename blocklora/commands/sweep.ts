/**
 * `deno task sweep`: runs all combinations of methods, shots, seeds and data sets. Each run has a
 * separate directory.
 *
 * @module
 */

import { basename, join } from "node:path";
import { gpuName } from "../../tensor/device.ts";
import { ImageLoader } from "../data/loader.ts";
import type { Baseline } from "../methods/baseline.ts";
import type { Method } from "../methods/method.ts";
import { BASELINES, METHODS } from "../methods/lookup.ts";
import { Console, duration, percent } from "../system/console.ts";
import { type FlagValues, text, UsageError, type Values } from "../system/flag.ts";
import { parseOnlyFlags } from "../system/flags.ts";
import { catchInterrupts } from "../system/interrupts.ts";
import { completed } from "../training/completed.ts";
import type { RunConfig } from "../training/run_config.ts";
import { TakenError } from "../training/run_directory.ts";
import { ARRAY_VARIABLES, shardOf } from "../training/shard.ts";
import { DatasetRuns, directoryOf } from "../training/sweep.ts";
import { MODEL_FLAGS } from "./model_flags.ts";
import { openChosen } from "../models/chosen_model.ts";
import { onRegainedDevice } from "./command.ts";
import {
  CHECKPOINT_FLAGS,
  checkpointIntervalOf,
  MAX_SEED,
  MEMORY_FLAGS,
  METHOD_FLAGS,
  runConfigOf,
  TRAINING_FLAGS,
} from "./run_flags.ts";
import { COMMON_FLAGS, IMAGE_FLAGS } from "./common_flags.ts";
import { openData } from "../data/open_data.ts";
import { userPath } from "../system/user_path.ts";
import { promptsFor } from "../training/prompts.ts";

const BASELINE_NAMES = BASELINES.map(({ name }) => name).join(", ");
const METHOD_NAMES = METHODS.map(({ name }) => name).join(", ");

/** The usage line and the description in the help text. */
export const ABOUT = {
  usage: "octograd sweep [--model DIR|FILE|ID] [--data DIR,DIR] [flags]",
  about:
    `Trains every method at every number of shots with every seed on every data set, each run in its
directory below --output. Runs that are complete are skipped, and one that was stopped goes on from
its last checkpoint, so that a sweep goes on where it stopped, however it did. With --shard, or as a
task of a Slurm array or of a Kubernetes Indexed Job, it takes its share of the runs.
Methods are ${BASELINE_NAMES},
and ${METHOD_NAMES} with a rank -rR, and -nN of those that cut it into blocks.`,
};

const { method: _method, ...SHARED_METHOD_FLAGS } = METHOD_FLAGS;
const { memoryLimit: _memoryLimit, ...SHARED_MEMORY_FLAGS } = MEMORY_FLAGS;

/** The flags of `sweep`. */
export const FLAGS = {
  ...MODEL_FLAGS,
  data: text<string | undefined>(
    "LIST",
    "data sets, as for train, with commas between them; the embedded images if not given",
    undefined,
  ),
  methods: text(
    "LIST",
    "what is compared",
    "zero-shot,linear-probe,lora-r2,lora-r4,lora-r8,block-lora-r8-n4",
  ),
  shots: text("LIST", "training images a class", "1,2,4,8,16"),
  seeds: text("LIST", "seeds of the shots, the adapters, the crops and the dropout", "1,2,3"),
  template: text<string | undefined>("TEXT", "the prompt; each data set's", undefined),
  shard: text<string | undefined>(
    "I/N",
    "this process takes every Nth run from number I, from 0; the array task's if there is one",
    undefined,
  ),
  output: text("DIR", "where the runs are", "runs/sweep"),
  ...SHARED_METHOD_FLAGS,
  ...TRAINING_FLAGS,
  ...SHARED_MEMORY_FLAGS,
  ...CHECKPOINT_FLAGS,
  ...IMAGE_FLAGS,
  ...COMMON_FLAGS,
};

/** One run that the flags ask for. */
export interface ListedRun {
  /** The data set, as the command line named it. */
  readonly data: string | undefined;
  /** The method or baseline with its variant, as the command line named it. */
  readonly name: string;
  /** The baseline; null if a method is trained. */
  readonly baseline: Baseline | null;
  /** The method; null for a baseline. */
  readonly method: Method | null;
  /** The values of flags that the name contains, such as the rank. */
  readonly values: FlagValues;
  /** Training images per class; 0 if nothing is trained. */
  readonly shots: number;
  /** The seed; 0 if nothing is trained. */
  readonly seed: number;
}

/** Runs the command and returns its exit code. */
export async function sweep(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  return await onRegainedDevice(console, () => sweepOn(flags, console));
}

async function sweepOn(flags: Values<typeof FLAGS>, console: Console): Promise<number> {
  const every = checkpointIntervalOf(flags);
  const shard = shardOf(flags.shard, environment());
  const listed = runsOf(flags).filter((_, i) => i % shard.count === shard.index);
  const configs = new Map(listed.map((run) => [run, configOf(run, flags)]));
  const output = userPath(flags.output);
  const opened = await openChosen(flags, console);
  const { workers, onError, batchSize } = flags;
  const loader = new ImageLoader(opened.preprocess, { workers, onError });
  console.note(
    `${listed.length} runs of ${opened.name} on ${gpuName()}, in ${output}` +
      (shard.count > 1 ? `: share ${shard.index} of ${shard.count}` : ""),
  );
  const began = performance.now();
  let [done, skipped] = [0, 0];
  let left = 0;
  const runs: { directory: string; accuracy: number }[] = [];
  using interrupt = catchInterrupts(() =>
    console.note("stopping after this step; once more to stop at once")
  );
  const { signal } = interrupt;
  try {
    for (const data of new Set(listed.map(({ data }) => data))) {
      const { dataset } = await openData({ data, split: undefined }, console);
      const template = flags.template ?? dataset.template ?? "a photo of a {}.";
      const prompts = promptsFor(opened, dataset.classes, template, console);
      const context = { opened, dataset, template, prompts, loader, batchSize, console, signal };
      const onDataset = new DatasetRuns(context, every);
      try {
        for (const each of listed.filter((run) => run.data === data)) {
          const run = { ...each, config: configs.get(each)! };
          const directory = join(output, basename(dataset.root), directoryOf(run));
          const what = `[${done + skipped + left + 1}/${listed.length}] ${dataset.name}, ${
            directoryOf(run)
          }`;
          const identity = await onDataset.identity(run);
          let result = await completed(directory, onDataset.settings(run), identity, console);
          if (result) skipped++;
          else {
            console.note(what);
            try {
              result = await onDataset.run(run, directory);
            } catch (error) {
              // Another sweep on the same output shares the runs.
              if (!(error instanceof TakenError)) throw error;
              console.note(`${what}: left to another process, ${directory} ${error.reason}`);
              left++;
              continue;
            }
            if (!result) return signal.reason.exitCode;
            done++;
            const rest = listed.length - done - skipped - left;
            const seconds = (performance.now() - began) / done * rest / 1000;
            console.say(`${what}: ${percent(result.accuracy / 100)}, ${duration(seconds)} left`);
          }
          runs.push({ directory, accuracy: result.accuracy });
        }
      } finally {
        prompts.release();
      }
    }
  } finally {
    loader.close();
    opened.model.release();
  }
  console.say(
    `${done} runs done, ${skipped} were complete before` +
      (left > 0 ? `, ${left} left to other processes` : ""),
  );
  console.finish({ output, done, skipped, left, runs });
  return 0;
}

/**
 * The environment variables that name a shard. They are read one by one, because the task has no
 * permission to read all variables.
 */
const environment = () =>
  Object.fromEntries(ARRAY_VARIABLES.map((name) => [name, Deno.env.get(name)]));

/**
 * The default number of training steps for the embedded model. It soon memorizes a few images, and
 * a sweep has many runs.
 */
const embeddedIterations = (shots: number) => Math.min(300, 100 + 12 * shots);

/** The configuration of one run. A baseline uses only its shots, seed and logit scale. */
function configOf(
  { method, values, shots, seed }: ListedRun,
  flags: Values<typeof FLAGS>,
): RunConfig {
  const { name, flags: known } = method ?? METHODS[0];
  // Leave out the flags that this method does not have. They are for other methods of the sweep.
  const given = Object.entries(flags as FlagValues)
    .filter(([flag]) => !isMethodFlag(flag) || flag in known);
  const preset = flags.model === undefined ? embeddedIterations(shots) : undefined;
  return runConfigOf({
    ...Object.fromEntries(given) as Values<typeof FLAGS>,
    ...values,
    method: name,
    shots,
    seed,
    iterations: flags.iterations ?? preset,
  });
}

const isMethodFlag = (flag: string) => METHODS.some(({ flags }) => flag in flags);

/**
 * All runs that the flags ask for. Their order depends only on the flags, so that all shards agree
 * on it.
 */
export function runsOf(
  flags: Pick<Values<typeof FLAGS>, "data" | "methods" | "shots" | "seeds">,
): ListedRun[] {
  const sets = flags.data?.split(",").map((data) => data.trim()) ?? [undefined];
  const names = sets.map((data) => basename(data ?? ""));
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) {
    throw new UsageError(
      `Cannot use --data: two data sets are called "${twice}", their runs would share directories`,
    );
  }
  const methods = [...new Set(flags.methods.split(",").map((text) => text.trim()))]
    .map(comparedNamed);
  const shots = numbersOf("shots", flags.shots, 1, Infinity);
  const seeds = numbersOf("seeds", flags.seeds, 0, MAX_SEED);
  return sets.flatMap((data) =>
    methods.flatMap((compared): ListedRun[] =>
      compared.baseline && !compared.baseline.learns
        ? [{ data, ...compared, shots: 0, seed: 0 }]
        : shots.flatMap((shots) => seeds.map((seed) => ({ data, ...compared, shots, seed })))
    )
  );
}

function numbersOf(flag: string, list: string, from: number, to: number): number[] {
  const numbers = list.split(",").map((item) => item.trim() === "" ? NaN : Number(item));
  if (numbers.every((value) => Number.isSafeInteger(value) && value >= from && value <= to)) {
    return [...new Set(numbers)];
  }
  throw new UsageError(
    `Cannot use --${flag}: "${list}" is not a list of integers from ${from}` +
      (to < Infinity ? ` to ${to}` : ""),
  );
}

function comparedNamed(name: string): Pick<ListedRun, "name" | "baseline" | "method" | "values"> {
  const baseline = BASELINES.find((baseline) => baseline.name === name);
  if (baseline) return { name, baseline, method: null, values: {} };
  for (const method of METHODS) {
    if (!name.startsWith(`${method.name}-`)) continue;
    const values = method.valuesOf(name.slice(method.name.length + 1));
    if (values) return { name, baseline: null, method, values };
  }
  throw new UsageError(
    `Cannot use --methods: "${name}" is not ${BASELINE_NAMES}, ` +
      `or METHOD-rR[-nN] of ${METHOD_NAMES}`,
  );
}
