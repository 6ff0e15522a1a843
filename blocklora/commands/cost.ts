/**
 * `deno task cost`: the cost of a training step, counted on a machine without a GPU.
 *
 * @module
 */

import { ARCHITECTURES } from "../../clip/config.ts";
import type { ModelDefinition } from "../../clip/model.ts";
import type { Precision } from "../../clip/weights.ts";
import { type DryGpu, dryTwin, gpuName, init, shutDown } from "../../tensor/device.ts";
import { PHASES } from "../../tensor/measure.ts";
import { MEMORY_CATEGORIES } from "../../tensor/memory.ts";
import { Random } from "../../tensor/random.ts";
import {
  MEMORY_FLAGS,
  memoryLimitOf,
  memoryPlanOf,
  METHOD_FLAGS,
  methodConfigOf,
  planText,
} from "./run_flags.ts";
import { Console } from "../system/console.ts";
import { number, oneOf, text, toggle } from "../system/flag.ts";
import { parseOnlyFlags } from "../system/flags.ts";
import { definitionNamed } from "../models/definition.ts";
import { methodNamed } from "../methods/lookup.ts";
import { planStep } from "../training/step.ts";
import { imagenetTokens } from "../cost/imagenet.ts";
import { randomModel } from "../cost/models.ts";
import type { RealStepCost, StepCost } from "../cost/step_cost.ts";
import { dryStepCost, realStep, type StepOptions } from "../training/step.ts";
import { COMMON_FLAGS } from "./common_flags.ts";

/** The usage line and the description in the help text. */
export const ABOUT = {
  usage: "octograd cost [--model NAME|DIR|FILE|ID] [--classes N] [--batch N] [flags]",
  about:
    `Counts the bytes, FLOPs and dispatches of a training step without a GPU and without weights:
the same code runs on a device that does nothing. The model is one of
${Object.keys(ARCHITECTURES).join(", ")},
a directory or a file as for train, or a hub id, of which only the configuration is read; the
embedded one if not given. With --real the step is taken too, on this machine's GPU with random
weights, and its counts stand beside.`,
};

/** The flags of `cost`. */
export const FLAGS = {
  model: text<string | undefined>("NAME|DIR|FILE|ID", "CLIP model", undefined),
  classes: number({ from: 1, integer: true }, "class prompts", 1000),
  batch: number({ from: 1, integer: true }, "images a step", 32),
  promptTokens: number<number | undefined>(
    { from: 2, integer: true },
    "tokens of every prompt [those of ImageNet's prompts]",
    undefined,
  ),
  ...METHOD_FLAGS,
  precision: oneOf<Precision>(["f32", "f16"], "how the frozen matrices are stored", "f32"),
  ...MEMORY_FLAGS,
  real: toggle("take the step too, with random weights, and compare"),
  ...COMMON_FLAGS,
};

/** Runs the command and returns its exit code. */
export async function cost(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  const definition = await definitionNamed(flags.model);
  const method = methodConfigOf(flags);
  const context = definition.context ?? Infinity;
  const { classes, batch, promptTokens, precision } = flags;
  const step = {
    method,
    batch,
    promptTokens: promptTokens === undefined
      ? imagenetTokens(classes).map((tokens) => Math.min(tokens, context))
      : Array<number>(classes).fill(promptTokens),
  };
  const limit = memoryLimitOf(flags);
  const given = memoryPlanOf(flags);
  if (flags.real) await init();
  const twin = flags.real ? dryTwin() : undefined;
  // The plain step may need larger tensors than this GPU can bind.
  const larger = flags.real ? dryTwin({ anySize: true }) : undefined;
  const planned = limit === undefined ? null : planStep({
    definition,
    precisions: [precision],
    step: { ...step, memory: given },
    limit,
    gpu: twin,
  });
  const memory = planned?.memory ?? given;
  const longest = Math.max(...step.promptTokens);
  console.say(
    `${
      flags.model ?? "the embedded model"
    }, ${classes} prompts of up to ${longest} tokens, ${batch} images; ` +
      methodNamed(method.method).label(method),
  );
  console.say(`${planned ? "chosen: " : ""}${planText(memory)}, frozen matrices in ${precision}`);

  const chosen = { ...step, memory, ...(limit !== undefined && { memoryLimit: limit }) };
  // With --real, count the first step of a process, because that is the one that is measured.
  const count = (gpu: DryGpu | undefined, precision: Precision, options: StepOptions) =>
    dryStepCost(definition, precision, { ...options, warm: !flags.real }, gpu);
  const counted = planned && !flags.real ? planned.cost : count(twin, precision, chosen);
  const plain = count(larger, "f32", { ...step, memory: {} });
  const real = flags.real ? await takeStep(definition, precision, chosen, console) : null;
  const columns: Column[] = [["counted", counted], ["plain step", plain]];
  if (real) columns.splice(1, 0, ["measured", real]);
  for (const line of table(columns)) console.say(line);
  if (real) {
    console.say(`The real step: loss ${real.loss.toFixed(4)}, ${real.seconds.toFixed(1)} s`);
  }
  const withoutRows = <T extends StepCost>({ rows: _rows, ...counts }: T) => counts;
  console.finish({
    model: flags.model ?? "emoji-clip-tiny",
    ...{ classes, batch, precision },
    ...{ method: method.method, rank: method.rank, blocks: method.blocks },
    plan: memory,
    memoryLimit: limit ?? null,
    ...withoutRows(counted),
    plain: withoutRows(plain),
    real: real && withoutRows(real),
  });
  return 0;
}

/** Takes one step of a random model on the GPU. */
async function takeStep(
  definition: ModelDefinition,
  precision: Precision,
  options: StepOptions,
  console: Console,
): Promise<RealStepCost> {
  const random = new Random(1, "cost");
  await init();
  console.say(`taking a step on ${gpuName()}`);
  const model = randomModel(definition, precision, random);
  try {
    return await realStep(model, options, random);
  } finally {
    model.release();
    shutDown();
  }
}

const LABELS = {
  frozenWeights: "frozen weights",
  adapterWeights: "adapter weights",
  gradients: "gradients",
  optimizerState: "optimizer state",
  savedActivations: "saved activations",
  workspace: "workspace",
} as const;

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(2)} MB`;
const gigaflops = (flops: number) => `${(flops / 1e9).toFixed(2)} GFLOP`;
const share = (count: number, total: number) => `${(100 * count / total).toFixed(2)} %`;

type Column = readonly [title: string, cost: StepCost];

/** A table of the counts, one column for each cost. */
function table(columns: readonly Column[]): string[] {
  const row = (label: string, cell: (cost: StepCost) => string) =>
    label.padEnd(28) + columns.map(([, cost]) => cell(cost).padStart(16)).join("");
  return [
    "".padEnd(28) + columns.map(([title]) => title.padStart(16)).join(""),
    row("trainable parameters", (cost) => `${cost.trainableParameters}`),
    row("peak GPU memory", (cost) => megabytes(cost.peakGpuBytes)),
    ...MEMORY_CATEGORIES.map((category) =>
      row(`  ${LABELS[category]}`, (cost) => megabytes(cost.peakBytesByOwner[category]))
    ),
    row("with buffers held for reuse", (cost) => megabytes(cost.peakHeldBytes)),
    row("work", (cost) => gigaflops(cost.flops.total)),
    ...PHASES.map((phase) => row(`  ${phase}`, (cost) => gigaflops(cost.flops[phase]))),
    row(
      "  of it the adapters'",
      ({ flops, adapterFlops }) => share(adapterFlops.total, flops.total),
    ),
    row("bytes read", (cost) => megabytes(cost.bytesRead)),
    row("bytes written", (cost) => megabytes(cost.bytesWritten)),
    row("dispatches", (cost) => `${cost.dispatches}`),
    row("submits", (cost) => `${cost.submits}`),
  ];
}
