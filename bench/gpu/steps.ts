/**
 * Training steps of Block-LoRA at CLIP's published sizes, with 32 images each: with 100 and with
 * 1,000 classes, and with the flags that save memory.
 *
 * @module
 */

import { DEFAULT_ADAPTER } from "../../blocklora/methods/adapter_config.ts";
import { planText } from "../../blocklora/commands/run_flags.ts";
import { runCommand } from "../../blocklora/commands/command.ts";
import { reasonOf } from "../../blocklora/system/files.ts";
import { number } from "../../blocklora/system/flag.ts";
import { parseOnlyFlags } from "../../blocklora/system/flags.ts";
import { imagenetTokens } from "../../blocklora/cost/imagenet.ts";
import { randomModel } from "../../blocklora/cost/models.ts";
import type { PreparedStep, StepCost } from "../../blocklora/cost/step_cost.ts";
import { dryStepCost, prepareStep } from "../../blocklora/training/step.ts";
import type { MemoryPlan } from "../../blocklora/cost/memory_plan.ts";
import { COMMON_FLAGS } from "../../blocklora/commands/common_flags.ts";
import { clipDefinition } from "../../clip/clip.ts";
import { ARCHITECTURES } from "../../clip/config.ts";
import type { Model } from "../../clip/model.ts";
import type { Precision } from "../../clip/weights.ts";
import { dryTwin, gpuName, init, shutDown } from "../../tensor/device.ts";
import { memory, resetPeak } from "../../tensor/memory.ts";
import { type Profile, profile, profileTable } from "../../tensor/profile.ts";
import { flush } from "../../tensor/queue.ts";
import { Random } from "../../tensor/random.ts";
import { type Column, digits, median, tableHead, tableRow } from "../table.ts";

/** A step to take. */
interface Step {
  readonly model: "vit-b-32" | "vit-b-16";
  readonly classes: number;
  readonly precision?: Precision;
  readonly memory?: MemoryPlan;
}

const largest = { model: "vit-b-16", classes: 1000 } as const;
const [recompute, textChunk, microBatch] = [true, 125, 8];

/** The steps to take. Those of one model are neighbours: its weights take seconds to draw. */
const STEPS: readonly Step[] = [
  { model: "vit-b-32", classes: 100 },
  { model: "vit-b-32", classes: 1000 },
  { model: "vit-b-16", classes: 100 },
  largest,
  { ...largest, memory: { recompute } },
  { ...largest, memory: { textChunk } },
  { ...largest, memory: { microBatch } },
  { ...largest, precision: "f16" },
  { ...largest, precision: "f16", memory: { recompute, textChunk, microBatch } },
];

const BATCH = 32;

const optionsOf = ({ classes, memory }: Step) => ({
  method: DEFAULT_ADAPTER,
  batch: BATCH,
  promptTokens: imagenetTokens(classes),
  ...(memory && { memory }),
});

/** What was measured of a step that was taken several times. */
interface Taken {
  /** Milliseconds of the first step, which compiles. */
  readonly first: number;
  /** Milliseconds of a later step, median. */
  readonly ms: number;
  /** Milliseconds until the host has recorded and submitted a step, median. */
  readonly host: number;
  /** The most bytes that were in use at once. */
  readonly peakBytes: number;
  readonly profile: Profile<unknown>;
}

/** A step is repeated for this many milliseconds, and at most this many times. */
const [LONG, MOST] = [3000, 20];

async function take(step: PreparedStep): Promise<Taken> {
  resetPeak();
  const once = async () => {
    const start = performance.now();
    const stats = step.take();
    flush();
    const host = performance.now() - start;
    const [loss] = await stats.data();
    stats.release();
    if (!Number.isFinite(loss)) throw new Error(`the loss is ${loss}`);
    return { ms: performance.now() - start, host };
  };
  const { ms: first } = await once();
  const taken = [await once()];
  for (let all = taken[0].ms; all < LONG && taken.length < MOST; all += taken.at(-1)!.ms) {
    taken.push(await once());
  }
  const { peakBytes } = memory();
  return {
    first,
    ms: median(taken.map(({ ms }) => ms)),
    host: median(taken.map(({ host }) => host)),
    peakBytes,
    profile: await profile(() => step.take().release()),
  };
}

const COLUMNS: readonly Column[] = [
  ["step", 93],
  ["GFLOP", 5],
  ["peak, MB", 8],
  ["dispatches", 10],
  ["submits", 7],
  ["host, ms", 8],
  ["first, s", 8],
  ["ms", 7],
  ["images/s", 8],
  ["GFLOP/s", 7],
];

const nameOf = ({ model, classes, precision = "f32", memory = {} }: Step) =>
  `${model}, ${classes} classes, ${planText(memory)}, ${precision}`;

/** The cells of a row that are known before the step is taken. */
const counted = (step: Step, { flops, peakGpuBytes, dispatches, submits }: StepCost) => [
  nameOf(step),
  digits(flops.total / 1e9),
  digits(peakGpuBytes / 1e6),
  String(dispatches),
  String(submits),
];

/** The last model of random weights, which serves all steps that need the same. */
let current: { readonly of: string; readonly model: Model } | null = null;

function modelFor({ model: name, precision = "f32" }: Step): Model {
  const of = `${name} ${precision}`;
  if (current?.of !== of) {
    current?.model.release();
    const random = new Random(1, "steps bench");
    current = { of, model: randomModel(definitionOf(name), precision, random) };
  }
  return current.model;
}

const definitionOf = (name: string) => clipDefinition(ARCHITECTURES[name]);

const ABOUT = {
  usage: "deno run -A bench/gpu/steps.ts [--minutes N]",
  about: "Takes training steps at CLIP's published sizes, on random weights and images.",
};

const FLAGS = {
  help: COMMON_FLAGS.help,
  minutes: number({ from: 0.1 }, "leave out what would end later", 10),
};

async function run(args: readonly string[]): Promise<number> {
  const { minutes } = parseOnlyFlags(args, FLAGS);
  const end = performance.now() + 60_000 * minutes;
  await init();
  // All steps are counted first, on a dry engine: this GPU may not allow bindings as large as a
  // step needs.
  const gpu = dryTwin({ anySize: true });
  shutDown();
  const counts = new Map(STEPS.map((step) => {
    const { model, precision = "f32" } = step;
    return [step, dryStepCost(definitionOf(model), precision, optionsOf(step), gpu)];
  }));
  shutDown();
  await init();
  console.log(`${gpuName()}: Block-LoRA (8,4) on q, k and v of every layer, ${BATCH} images`);
  console.log(`\n${tableHead(COLUMNS)}`);
  const after: string[] = [];
  let rate = 0; // FLOPs a millisecond of the last step
  for (const [step, cost] of counts) {
    const { total } = cost.flops;
    const known = counted(step, cost);
    const nothing = COLUMNS.slice(known.length + 1).map(() => "");
    // Three steps are the least: the first, one that is timed, and one that is profiled.
    if (rate > 0 && performance.now() + 3 * total / rate > end) {
      console.log(tableRow(COLUMNS, [...known, "no time", ...nothing]));
      continue;
    }
    try {
      const ready = prepareStep(modelFor(step), optionsOf(step), new Random(2, "steps bench"));
      try {
        const { first, ms, host, peakBytes, profile } = await take(ready);
        rate = total / ms;
        known[2] = digits(peakBytes / 1e6);
        const found = [host, first / 1000, ms, 1000 * BATCH / ms, rate / 1e6].map(digits);
        console.log(tableRow(COLUMNS, [...known, ...found]));
        if (!step.memory && !step.precision) {
          after.push(`${nameOf(step)}:\n${profileTable(profile, 8)}`);
        }
      } finally {
        ready.release();
      }
    } catch (error) {
      console.log(tableRow(COLUMNS, [...known, "failed", ...nothing]));
      after.push(`${nameOf(step)}: ${reasonOf(error)}`);
    }
  }
  for (const text of after) console.log(`\n${text}`);
  return 0;
}

if (import.meta.main) {
  Deno.exit(await runCommand("bench/gpu/steps.ts", { ABOUT, FLAGS, run }, Deno.args));
}
