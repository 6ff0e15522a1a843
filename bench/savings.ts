/**
 * `deno task savings`: what Block-LoRA saves over LoRA, as counted by the engine and by formula,
 * and what share of a full training step that is.
 *
 * @module
 */

import { lora } from "../blocklora/methods/lora.ts";
import { METHODS } from "../blocklora/methods/lookup.ts";
import { runCommand } from "../blocklora/commands/command.ts";
import { Console } from "../blocklora/system/console.ts";
import { number, oneOf, toggle } from "../blocklora/system/flag.ts";
import { parseOnlyFlags } from "../blocklora/system/flags.ts";
import { imagenetTokens } from "../blocklora/cost/imagenet.ts";
import { emptyModel } from "../blocklora/cost/models.ts";
import { stepCost } from "../blocklora/training/step.ts";
import { COMMON_FLAGS } from "../blocklora/commands/common_flags.ts";
import { clipDefinition } from "../clip/clip.ts";
import { ARCHITECTURES } from "../clip/config.ts";
import { gpuName, init, initDry, shutDown } from "../tensor/device.ts";
import { NoAdapterError } from "../tensor/errors.ts";
import { boundRatio, type MethodCost, qkvSites } from "../blocklora/cost/formulas.ts";
import { adapterTimes } from "./gpu_time.ts";
import { configured, type Shape } from "./layers.ts";

/** The nominal ranks and blocks that are compared. */
export const RANKS = [[2, 2], [4, 2], [4, 4], [8, 2], [8, 4], [8, 8], [16, 8]] as const;

/**
 * Every adapter that is compared: rank by rank, first the methods without blocks, then those with
 * blocks.
 */
export const SHAPES: readonly Shape[] = [...new Set(RANKS.map(([rank]) => rank))].flatMap((
  rank,
) => [
  ...METHODS.filter(({ flags }) => !("blocks" in flags))
    .map(({ name: method }) => ({ method, rank, blocks: 1 })),
  ...RANKS.filter(([r]) => r === rank).flatMap(([, blocks]) =>
    METHODS.filter(({ flags }) => "blocks" in flags)
      .map(({ name: method }) => ({ method, rank, blocks }))
  ),
]);

/** The step that is counted. */
export interface SavingsOptions {
  /** A name of {@linkcode ARCHITECTURES}. */
  readonly model: string;
  /** Class prompts, as long as ImageNet's. */
  readonly classes: number;
  /** Images a step. */
  readonly batch: number;
}

/** One adapter's row. */
export interface SavingsRow extends Shape {
  /** What the engine counted for the adapters in one training step. */
  readonly counted: MethodCost;
  /** The same numbers by formula. */
  readonly formula: MethodCost;
  /** FLOPs of the full step. */
  readonly stepFlops: number;
  /** Peak bytes of the full step. */
  readonly stepBytes: number;
  /** Bytes that the tape saves in the full step. */
  readonly stepSaved: number;
  /** The generalization bound, divided by that of LoRA of the same rank. */
  readonly bound: number;
}

/** Counts a training step with each adapter, on a dry engine, which computes nothing. */
export function savings(
  { model, classes, batch }: SavingsOptions,
): SavingsRow[] {
  initDry();
  const config = ARCHITECTURES[model];
  const clip = emptyModel(clipDefinition(config));
  const promptTokens = imagenetTokens(classes);
  const sites = qkvSites([
    { ...config.vision, rows: batch * clip.vision.tokens },
    { ...config.text, rows: classes * Math.max(...promptTokens) },
  ]);
  const rows = SHAPES.map((shape): SavingsRow => {
    const { method, config } = configured(shape);
    const cost = stepCost(clip, { method: config, promptTokens, batch });
    const formula = method.cost(config, sites);
    const ofLora = lora.cost(configured({ ...shape, method: lora.name, blocks: 1 }).config, sites);
    return {
      ...shape,
      counted: {
        parameters: cost.trainableParameters,
        optimizerBytes: cost.peakBytesByOwner.optimizerState,
        forward: cost.adapterFlops.forward,
        backward: cost.adapterFlops.backward,
        savedBytes: cost.adapterSavedBytes,
      },
      formula,
      stepFlops: cost.flops.total,
      stepBytes: cost.peakGpuBytes,
      stepSaved: cost.peakBytesByOwner.savedActivations,
      bound: boundRatio(formula.parameters, ofLora.parameters),
    };
  });
  clip.release();
  return rows;
}

const ABOUT = {
  usage: "octograd savings [--model NAME] [--classes N] [--batch N] [flags]",
  about:
    `Counts what every adapter costs in a training step: parameters, AdamW's bytes, FLOPs, and what
is saved for the backward pass, and sets each beside its formula. "bound" is the generalization
bound over that of LoRA of the same rank; "time" is one projection, forward and backward, on this
machine's GPU if it has one.`,
};

const FLAGS = {
  model: oneOf(Object.keys(ARCHITECTURES), "published architecture", "vit-b-16"),
  classes: number({ from: 1, integer: true }, "class prompts, as long as ImageNet's", 1000),
  batch: number({ from: 1, integer: true }, "images a step", 32),
  time: toggle("measure adapters on the GPU too", true),
  ...COMMON_FLAGS,
};

/** Prints the table. */
async function run(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  const rows = savings(flags);
  const times = flags.time ? await timed(flags.model, console) : null;
  console.say(
    `${flags.model}, q k v of both towers, ${flags.classes} classes, ${flags.batch} images: ` +
      "the adapters of one training step",
  );
  console.say(
    "counted by the engine; = where the formula gives the same number, to the last digit, " +
      "≈ to one in a hundred; in brackets the share of the full step",
  );
  const header = ["r,n", "adapter", "parameters", "AdamW", "forward", "backward"];
  const lines = [[...header, "saved for backward", "bound", ...(times ? ["time"] : [])]];
  for (const row of rows) {
    const { counted, formula, stepFlops, stepSaved } = row;
    const same = (of: keyof MethodCost) =>
      counted[of] === formula[of]
        ? "="
        : Math.abs(counted[of] / formula[of] - 1) < 0.01
        ? "≈"
        : `≠ ${formula[of]}`;
    const flops = (of: "forward" | "backward") =>
      `${(counted[of] / 1e9).toFixed(2)} GF ${same(of)} (${
        (100 * counted[of] / stepFlops).toFixed(2)
      } %)`;
    lines.push([
      `${row.rank},${row.blocks}`,
      row.method,
      `${counted.parameters} ${same("parameters")}`,
      `${(counted.optimizerBytes / 1e6).toFixed(2)} MB ${same("optimizerBytes")}`,
      flops("forward"),
      flops("backward"),
      `${(counted.savedBytes / 1e6).toFixed(0)} MB ${same("savedBytes")} (${
        (100 * counted.savedBytes / stepSaved).toFixed(0)
      } %)`,
      `× ${row.bound.toFixed(2)}`,
      ...(times ? [times.get(`${row.method} ${row.rank} ${row.blocks}`)!] : []),
    ]);
  }
  const widths = lines[0].map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  for (const line of lines) {
    console.say(line.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd());
  }
  const [first] = rows;
  console.say(
    `the full step: ${(first.stepFlops / 1e9).toFixed(0)} GFLOP, ${
      (first.stepBytes / 1e9).toFixed(2)
    } GB at most with ${first.method} (${first.rank},${first.blocks})`,
  );
  console.finish({ ...flags, rows, times: times && Object.fromEntries(times) });
  return 0;
}

/**
 * The time of a projection with each adapter, forward and backward, as text beside that of the
 * frozen projection alone. Null without a GPU.
 */
async function timed(model: string, console: Console): Promise<Map<string, string> | null> {
  try {
    await init();
  } catch (error) {
    if (!(error instanceof NoAdapterError)) throw error;
    console.note("no time: there is no GPU here");
    return null;
  }
  const { width } = ARCHITECTURES[model].vision;
  console.note(`timing a projection [197, ${width}] × [${width}, ${width}] on ${gpuName()}`);
  const found = await adapterTimes(SHAPES, { width, rows: 197 });
  return new Map(
    SHAPES.map(({ method, rank, blocks }, i) => [
      `${method} ${rank} ${blocks}`,
      `${found.adapted[i].toFixed(2)} ms (frozen ${found.frozen.toFixed(2)})`,
    ]),
  );
}

if (import.meta.main) {
  const code = await runCommand("savings", { ABOUT, FLAGS, run }, Deno.args);
  shutDown();
  Deno.exit(code);
}
