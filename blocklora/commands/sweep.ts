/**
 * `deno task sweep`: methods × shots × seeds × data sets, each run in a directory of its own.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import { tensor } from "../../tensor/create.ts";
import { adapterName } from "../../tensor/device.ts";
import { scope } from "../../tensor/scope.ts";
import { type AdapterConfig, attach, METHODS } from "../methods/attach.ts";
import { ADAPTER_FLAGS, choiceOf, MEMORY_FLAGS, TRAINING_FLAGS } from "./choices.ts";
import { MODEL_FLAGS, openChosen } from "./chosen_model.ts";
import { Console, duration, percent } from "../system/console.ts";
import { drawShots, type Sample } from "../data/dataset.ts";
import { parseOnlyFlags, text, UsageError, type Values } from "../system/flags.ts";
import { ImageLoader } from "../data/loader.ts";
import { type Identity, ImageHashes } from "../training/identity.ts";
import { exists, namesIn, readJson } from "../system/files.ts";
import {
  DEFAULT_PROBE,
  type Features,
  fitProbe,
  probePredictions,
} from "../methods/linear_probe.ts";
import {
  adaptedResult,
  type Choice,
  evaluateOn,
  INTERRUPTED,
  resultOf,
  type RunResult,
  type Setting,
  settingsOf,
  thinned,
  timingOf,
  trainAdapters,
  writeResult,
} from "../training/run.ts";
import {
  COMMON_FLAGS,
  IMAGE_FLAGS,
  openData,
  promptsFor,
  type Score,
  userPath,
} from "./workspace.ts";

/** The usage line and the paragraph of the help. */
export const ABOUT = {
  usage: "octograd sweep [--model DIR|FILE|ID] [--data DIR,DIR] [flags]",
  about:
    `Trains every method at every number of shots with every seed on every data set, each run in a directory of its own
below --output. Runs that are complete are skipped, so that a sweep goes on where it stopped, however it did. With
--shard, or as a task of a Slurm array or of a Kubernetes Indexed Job, it takes its share of the runs. Methods are
zero-shot, linear-probe, and METHOD-rR or METHOD-rR-nN of ${METHODS.join(", ")}.`,
};

const { method: _method, rank: _rank, blocks: _blocks, ...SHARED_ADAPTER_FLAGS } = ADAPTER_FLAGS;
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
  template: text<string | undefined>("TEXT", "the prompt; each data set's own", undefined),
  shard: text<string | undefined>(
    "I/N",
    "this process takes every Nth run from number I, from 0; the array task's if there is one",
    undefined,
  ),
  output: text("DIR", "where the runs are", "runs/sweep"),
  ...SHARED_ADAPTER_FLAGS,
  ...TRAINING_FLAGS,
  ...SHARED_MEMORY_FLAGS,
  ...IMAGE_FLAGS,
  ...COMMON_FLAGS,
};

/** What can be compared. */
export type Method =
  | { readonly name: string; readonly kind: "zero-shot" | "linear-probe" }
  | { readonly name: string; readonly kind: "adapter" }
    & Pick<
      AdapterConfig,
      "method" | "rank" | "blocks"
    >;

/** One run of a sweep. */
export interface Plan {
  /** The data set, as the command line named it. */
  readonly data: string | undefined;
  /** What is run. */
  readonly method: Method;
  /** Training images a class; 0 for zero-shot. */
  readonly shots: number;
  /** The seed; 0 for zero-shot, which has none. */
  readonly seed: number;
}

/** Runs the command and returns its exit code. */
export async function sweep(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  const shard = shardOf(flags.shard, Deno.env.toObject());
  const plans = plansOf(flags).filter((_, i) => i % shard.count === shard.index);
  const output = userPath(flags.output);
  const opened = await openChosen(flags, console);
  const { workers, onError, batchSize } = flags;
  const loader = new ImageLoader(opened.preprocess, { workers, onError });
  console.note(
    `${plans.length} runs of ${opened.name} on ${adapterName()}, in ${output}` +
      (shard.count > 1 ? `: share ${shard.index} of ${shard.count}` : ""),
  );
  const began = performance.now();
  let [done, skipped] = [0, 0];
  const runs: { directory: string; accuracy: number }[] = [];
  try {
    for (const data of new Set(plans.map(({ data }) => data))) {
      const { dataset } = await openData({ data, split: undefined });
      const template = flags.template ?? dataset.template ?? "a photo of a {}.";
      const prompts = promptsFor(opened, dataset.classes, template, console);
      const setting = { model: opened, dataset, template, prompts, loader, batchSize, console };
      const contest = new Contest(setting, flags);
      try {
        for (const plan of plans.filter((plan) => plan.data === data)) {
          const directory = join(output, basename(dataset.root), nameOf(plan));
          const what = `[${done + skipped + 1}/${plans.length}] ${dataset.name}, ${nameOf(plan)}`;
          const identity = await contest.identity(plan);
          let result = await completed(directory, contest.settings(plan), identity, console);
          if (result) skipped++;
          else {
            console.note(what);
            result = await contest.run(plan, directory);
            if (!result) return INTERRUPTED;
            done++;
            const left = plans.length - done - skipped;
            const seconds = (performance.now() - began) / done * left / 1000;
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
    opened.clip.release();
  }
  console.say(`${done} runs done, ${skipped} were complete before`);
  console.finish({ output, done, skipped, runs });
  return 0;
}

/** The name of a run's directory. */
function nameOf({ method, shots, seed }: Plan): string {
  return method.kind === "zero-shot" ? method.name : `${method.name}-${shots}shots-seed${seed}`;
}

/** Every run that the flags ask for, in an order that a sweep always has. */
export function plansOf(
  flags: Pick<Values<typeof FLAGS>, "data" | "methods" | "shots" | "seeds">,
): Plan[] {
  const sets = flags.data?.split(",").map((data) => data.trim()) ?? [undefined];
  const names = sets.map((data) => basename(data ?? ""));
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) {
    throw new UsageError(
      `Cannot use --data: two data sets are called "${twice}", their runs would share directories`,
    );
  }
  const methods = flags.methods.split(",").map(methodOf);
  const [shots, seeds] = [numbersOf("shots", flags.shots, 1), numbersOf("seeds", flags.seeds, 0)];
  return sets.flatMap((data) =>
    methods.flatMap((method): Plan[] =>
      method.kind === "zero-shot"
        ? [{ data, method, shots: 0, seed: 0 }]
        : shots.flatMap((shots) => seeds.map((seed) => ({ data, method, shots, seed })))
    )
  );
}

function numbersOf(flag: string, list: string, from: number): number[] {
  const numbers = list.split(",").map((item) => item.trim() === "" ? NaN : Number(item));
  if (numbers.every((value) => Number.isSafeInteger(value) && value >= from)) {
    return [...new Set(numbers)];
  }
  throw new UsageError(
    `Cannot use --${flag}: "${list}" is not a list of whole numbers from ${from}`,
  );
}

function methodOf(text: string): Method {
  const name = text.trim();
  if (name === "zero-shot" || name === "linear-probe") return { name, kind: name };
  const [, method, rank, blocks] = /^(.+?)-r(\d+)(?:-n(\d+))?$/.exec(name) ?? [];
  if (METHODS.includes(method as AdapterConfig["method"])) {
    return {
      name,
      kind: "adapter",
      method: method as AdapterConfig["method"],
      rank: Number(rank),
      blocks: Number(blocks ?? 1),
    };
  }
  throw new UsageError(
    `Cannot use --methods: "${name}" is not zero-shot, linear-probe, or METHOD-rR[-nN] of ${
      METHODS.join(", ")
    }`,
  );
}

/** Which share of the runs is this process's. */
export interface Shard {
  /** Its number, from 0. */
  readonly index: number;
  /** How many shares there are. */
  readonly count: number;
}

/**
 * The share that `--shard` names, else that of the task of a Slurm array or a Kubernetes Indexed Job, else all runs.
 * Kubernetes tells a task its index but not how many there are: the job's manifest has to set `JOB_COMPLETIONS`.
 *
 * @throws {UsageError} If the share is none.
 */
export function shardOf(
  flag: string | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): Shard {
  const { SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT, SLURM_ARRAY_TASK_MIN } = environment;
  const { JOB_COMPLETION_INDEX, JOB_COMPLETIONS } = environment;
  const [index, count, source] = flag !== undefined
    ? [...(flag.split("/").length === 2 ? flag.split("/") : ["", ""]), "--shard"]
    : SLURM_ARRAY_TASK_ID !== undefined
    ? [
      `${Number(SLURM_ARRAY_TASK_ID) - Number(SLURM_ARRAY_TASK_MIN ?? 0)}`,
      SLURM_ARRAY_TASK_COUNT,
      "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT",
    ]
    : JOB_COMPLETION_INDEX !== undefined
    ? [JOB_COMPLETION_INDEX, JOB_COMPLETIONS, "JOB_COMPLETION_INDEX and JOB_COMPLETIONS"]
    : ["0", "1", ""];
  const whole = (text: string | undefined) => /^\d+$/.test(text ?? "") ? Number(text) : NaN;
  const shard = { index: whole(index), count: whole(count) };
  if (shard.index < shard.count) return shard;
  throw new UsageError(
    `Cannot use ${source}: "${index}" of "${count}" is no share, they are numbered from 0 to one below their count`,
  );
}

/**
 * The result that a directory holds, if the run there is complete and read the same model and images; it must be that of
 * the same settings.
 */
async function completed(
  directory: string,
  settings: Readonly<Record<string, unknown>>,
  identity: Identity,
  console: Console,
): Promise<RunResult | null> {
  const result = await readJson(directory, "result.json") as RunResult | null;
  if (result === null) {
    if ((await namesIn(directory)).length === 0) return null;
    throw new Error(
      `Cannot go on with ${directory}: it holds no finished run, remove it, or name another --output`,
    );
  }
  const [wanted, held] = [settings, result.settings ?? {}].map((all) =>
    new Map(Object.entries(all))
  );
  for (const key of new Set([...wanted.keys(), ...held.keys()])) {
    const [own, other] = [wanted.get(key), held.get(key)].map((value) => JSON.stringify(value));
    // 0.1 told less.
    if (own === other || (other === undefined && !result.identity)) continue;
    throw new Error(
      `Cannot go on with ${directory}: its ${key} is ${other}, now it would be ${own}; ` +
        "remove it, or name another --output",
    );
  }
  const others = (["model", "train", "test"] as const)
    .filter((part) => result.identity?.[part] !== identity[part])
    .map((part) => ({ model: "model", train: "training images", test: "test images" })[part]);
  if (others.length === 0) return result;
  console.note(
    `${directory} is of ${result.identity ? "another" : "an unknown"} ${
      others.join(" and ")
    }: run again`,
  );
  return null;
}

/** Training steps of the embedded model: few images are soon learned by heart, and a sweep has many runs. */
const embeddedIterations = (shots: number) => Math.min(300, 100 + 12 * shots);

/** The runs on one data set, and what they share. */
class Contest {
  readonly #setting: Setting;
  readonly #flags: Values<typeof FLAGS>;
  #zeroShot: Score | null = null;
  #testFeatures: (Features & { paths: string[] }) | null = null;
  readonly #images: ImageHashes;

  constructor(setting: Setting, flags: Values<typeof FLAGS>) {
    this.#setting = setting;
    this.#flags = flags;
    this.#images = new ImageHashes(setting.dataset);
  }

  #choice({ method, shots, seed }: Plan): Choice {
    const flags = this.#flags;
    const { rank, blocks, ...kind } = method.kind === "adapter"
      ? method
      : { method: "lora" as const, rank: 1, blocks: 1 };
    const preset = flags.model === undefined ? embeddedIterations(shots) : undefined;
    const iterations = flags.iterations ?? preset;
    return choiceOf({ ...flags, method: kind.method, rank, blocks, shots, seed, iterations });
  }

  /** What decides the numbers of a run beside its name. */
  settings(plan: Plan): Record<string, unknown> {
    const { kind } = plan.method;
    const choice = this.#choice(plan);
    if (kind === "adapter") return settingsOf(this.#setting, choice);
    const { model: { name, clip }, template } = this.#setting;
    const common = { model: name, precision: clip.precision };
    return kind === "linear-probe"
      ? { ...common, ...DEFAULT_PROBE }
      : { ...common, template, logitScale: choice.recipe.logitScale };
  }

  /** What a run reads. */
  async identity({ method, shots, seed }: Plan): Promise<Identity> {
    const { dataset, model, console } = this.#setting;
    console.progress(`reading the images of ${dataset.name}`);
    const [test, train] = await Promise.all([
      this.#images.of(dataset.test),
      method.kind === "zero-shot" ? null : this.#images.of(drawShots(dataset, shots, seed)),
    ]);
    return { model: model.fingerprint, train, test };
  }

  /** Runs one, and writes its directory whole; null if Ctrl-C ended it. */
  async run(plan: Plan, directory: string): Promise<RunResult | null> {
    const parent = dirname(directory);
    const mark = `.${basename(directory)}.`;
    await Deno.mkdir(parent, { recursive: true });
    // What a process left that was killed in this run: two shares never have the same one.
    for await (const { name } of Deno.readDir(parent)) {
      if (name.startsWith(mark)) await Deno.remove(join(parent, name), { recursive: true });
    }
    const unfinished = join(parent, mark + crypto.randomUUID().slice(0, 8));
    await Deno.mkdir(unfinished);
    const result = plan.method.kind === "zero-shot"
      ? await this.#runZeroShot(plan, unfinished)
      : plan.method.kind === "linear-probe"
      ? await this.#runProbe(plan, unfinished)
      : await this.#runAdapter(plan, unfinished);
    if (!result) {
      await Deno.remove(unfinished, { recursive: true });
      return null;
    }
    // One of other images or another model goes as a whole.
    const old = join(parent, `${mark}old`);
    if (await exists(directory)) await Deno.rename(directory, old);
    await Deno.rename(unfinished, directory);
    await Deno.remove(old, { recursive: true }).catch(() => {});
    return result;
  }

  async #score(plan: Plan): Promise<Score> {
    return this.#zeroShot ??= await evaluateOn(
      this.#setting,
      this.#choice(plan).recipe.logitScale,
    );
  }

  async #runZeroShot(plan: Plan, directory: string): Promise<RunResult> {
    const began = performance.now();
    const result: RunResult = {
      ...resultOf(this.#setting, await this.#score(plan)),
      ...UNTRAINED,
      method: plan.method.name,
      settings: this.settings(plan),
      identity: await this.identity(plan),
    };
    await writeResult(directory, result, { seconds: (performance.now() - began) / 1000 });
    return result;
  }

  async #runProbe(plan: Plan, directory: string): Promise<RunResult> {
    const began = performance.now();
    const { dataset } = this.#setting;
    const train = await this.#features(drawShots(dataset, plan.shots, plan.seed));
    const test = this.#testFeatures ??= await this.#features(dataset.test);
    const probe = await fitProbe(train, dataset.classes.length);
    const predictions = await probePredictions(probe, test);
    const parameters = probe.weight.size + probe.bias.size;
    for (const matrix of [probe.weight, probe.bias]) matrix.release();
    const hits = predictions.filter((guess, i) => guess === test.labels[i]).length;
    const score = {
      accuracy: hits / predictions.length,
      labels: test.labels,
      predictions,
      paths: test.paths,
    };
    const result: RunResult = {
      ...resultOf(this.#setting, score),
      ...UNTRAINED,
      method: plan.method.name,
      shots: plan.shots,
      seed: plan.seed,
      iterations: probe.losses.length,
      trainableParameters: parameters,
      losses: thinned(probe.losses),
      settings: this.settings(plan),
      identity: await this.identity(plan),
    };
    await writeResult(directory, result, { seconds: (performance.now() - began) / 1000 });
    return result;
  }

  /** Image features of the model without adapters. */
  async #features(samples: readonly Sample[]): Promise<Features & { paths: string[] }> {
    const { model: { clip }, loader, batchSize } = this.#setting;
    const { imageSize } = clip.config.vision;
    const [rows, labels, missed]: [Float32Array[], number[], Set<string>] = [[], [], new Set()];
    for await (const batch of loader.evaluation(samples, batchSize)) {
      for (const path of batch.skipped) missed.add(path);
      if (batch.labels.length === 0) continue;
      const features = scope(() =>
        clip.imageFeatures(tensor(batch.pixels, [batch.labels.length, 3, imageSize, imageSize]))
      );
      rows.push(await features.data() as Float32Array);
      features.release();
      labels.push(...batch.labels);
    }
    const values = new Float32Array(rows.reduce((size, row) => size + row.length, 0));
    rows.reduce((at, row) => (values.set(row, at), at + row.length), 0);
    if (values.some(Number.isNaN)) {
      throw new RangeError("Cannot probe: the model's features are NaN, its weights are broken");
    }
    const paths = samples.map(({ path }) => path).filter((path) => !missed.has(path));
    return { values, labels, width: clip.config.embedding, paths };
  }

  async #runAdapter(plan: Plan, directory: string): Promise<RunResult | null> {
    const setting = this.#setting;
    const choice = this.#choice(plan);
    const zeroShotAccuracy = 100 * (await this.#score(plan)).accuracy;
    const adapters = attach(setting.model.clip, choice.adapter, choice.seed);
    try {
      const outcome = await trainAdapters(setting, choice, adapters, directory);
      if (outcome.interrupted) return null;
      const score = await evaluateOn(setting, choice.recipe.logitScale);
      const identity = await this.identity(plan);
      const known = { parameters: adapters.parameterCount, zeroShotAccuracy, identity };
      const result = adaptedResult(setting, choice, outcome, score, known);
      await writeResult(directory, result, timingOf(outcome));
      return result;
    } finally {
      adapters.release();
    }
  }
}

/** What a result says where nothing was trained. */
const UNTRAINED = {
  rank: null,
  blocks: null,
  shots: 0,
  seed: null,
  iterations: 0,
  trainableParameters: 0,
  zeroShotAccuracy: null,
  losses: [],
  peakGpuBytes: null,
  peakBytesByOwner: null,
};
