/**
 * `deno task cost`: what a training step needs, on a machine that has no GPU.
 *
 * @module
 */

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ARCHITECTURES, type ClipConfig, configFromOpenai, parseConfig } from "../clip/config.ts";
import type { Precision } from "../clip/weights.ts";
import { initDry } from "../tensor/device.ts";
import { OWNERS } from "../tensor/memory.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import {
  ADAPTER_FLAGS,
  adapterConfigOf,
  MEMORY_FLAGS,
  memoryLimitOf,
  planOf,
  planText,
} from "./choices.ts";
import { Console } from "./console.ts";
import { openFile, reasonOf } from "./file_source.ts";
import { choice, number, parseOnlyFlags, text } from "./flags.ts";
import { planMemory } from "./memory_plan.ts";
import { EMBEDDED_MODEL, exists, readJson } from "./open_model.ts";
import { emptyClip, imagenetTokens, type StepCost, stepCost } from "./step_cost.ts";
import type { MemoryPlan } from "./trainer.ts";
import { COMMON_FLAGS, userPath } from "./workspace.ts";

/** The usage line and the paragraph of the help. */
export const ABOUT = {
  usage: "octograd cost [--model NAME|DIR|FILE|ID] [--classes N] [--batch N] [flags]",
  about:
    `Counts the bytes, FLOPs and dispatches of a training step without a GPU and without weights: the same code
runs on a device that does nothing. The model is one of ${
      Object.keys(ARCHITECTURES).join(", ")
    }, a directory
or a file as for train, or a hub id, of which only the configuration is read; the embedded one if not given.`,
};

/** The flags of `cost`. */
export const FLAGS = {
  model: text<string | undefined>("NAME|DIR|FILE|ID", "CLIP model", undefined),
  classes: number({ from: 1, whole: true }, "class prompts", 1000),
  batch: number({ from: 1, whole: true }, "images a step", 32),
  promptTokens: number<number | undefined>(
    { from: 2, whole: true },
    "tokens of every prompt [those of ImageNet's prompts]",
    undefined,
  ),
  ...ADAPTER_FLAGS,
  precision: choice<Precision>(["f32", "f16"], "how the frozen matrices are stored", "f32"),
  ...MEMORY_FLAGS,
  ...COMMON_FLAGS,
};

/** Runs the command and returns its exit code. */
export async function cost(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  const config = await configOf(flags.model);
  const adapter = adapterConfigOf(flags);
  const { context } = config.text;
  const { classes, batch, promptTokens, precision } = flags;
  const step = {
    adapter,
    batch,
    promptTokens: promptTokens === undefined
      ? imagenetTokens(classes).map((tokens) => Math.min(tokens, context))
      : Array<number>(classes).fill(promptTokens),
  };
  const limit = memoryLimitOf(flags);
  const given = planOf(flags);
  const planned = limit === undefined
    ? null
    : planMemory({ config, precisions: [precision], step: { ...step, plan: given }, limit });
  initDry();
  const costOf = (precision: Precision, plan: MemoryPlan) => {
    const clip = emptyClip(config, precision);
    const cost = stepCost(clip, { ...step, plan });
    clip.release();
    return cost;
  };
  const found = planned?.cost ?? costOf(precision, given);
  const plain = costOf("f32", {});
  const plan = planned?.plan ?? given;
  const longest = Math.max(...step.promptTokens);
  console.say(
    `${
      flags.model ?? "the embedded model"
    }, ${classes} prompts of up to ${longest} tokens, ${batch} images; ` +
      `${adapter.method} r = ${adapter.rank}, n = ${adapter.blocks}`,
  );
  console.say(`${planned ? "chosen: " : ""}${planText(plan)}, frozen matrices in ${precision}`);
  for (const line of table(found, plain)) console.say(line);
  const { rows: _rows, ...counts } = found;
  const { rows: _plainRows, ...plainCounts } = plain;
  console.finish({
    model: flags.model ?? "emoji-clip-tiny",
    ...{ classes, batch, precision },
    ...{ method: adapter.method, rank: adapter.rank, blocks: adapter.blocks },
    plan,
    memoryLimit: limit ?? null,
    ...counts,
    plain: plainCounts,
  });
  return 0;
}

/** The configuration of a model, without its weights. */
async function configOf(spec: string | undefined): Promise<ClipConfig> {
  if (spec !== undefined && Object.hasOwn(ARCHITECTURES, spec)) return ARCHITECTURES[spec];
  const path = spec === undefined ? fileURLToPath(EMBEDDED_MODEL) : userPath(spec);
  if (!await exists(path)) return parseConfig(await fetchConfig(spec!));
  const isFile = (await Deno.stat(path)).isFile;
  const json = await readJson(isFile ? dirname(path) : path, "config.json");
  if (json !== null) return parseConfig(json);
  if (!isFile) throw new Error(`Cannot find ${join(path, "config.json")}: is it a CLIP model?`);
  using source = await openFile(path);
  const { tensors } = await SafetensorsFile.open(source);
  return configFromOpenai(new Map([...tensors].map(([name, { shape }]) => [name, shape])));
}

async function fetchConfig(id: string): Promise<unknown> {
  const names = Object.keys(ARCHITECTURES).join(", ");
  if (!/^\w[\w.-]*\/\w[\w.-]*$/.test(id)) {
    throw new Error(
      `Cannot find the model "${id}": it is none of ${names}, no path, and no hub id OWNER/NAME`,
    );
  }
  const hub = (Deno.env.get("HF_ENDPOINT") || "https://huggingface.co").replace(/\/+$/, "");
  const token = Deno.env.get("HF_TOKEN");
  try {
    const response = await fetch(`${hub}/${id}/resolve/main/config.json`, {
      headers: token ? { authorization: `Bearer ${token}` } : {},
    });
    if (!response.ok) throw new Error(`the hub answers ${response.status}`);
    return await response.json();
  } catch (error) {
    throw new Error(`Cannot fetch the configuration of "${id}": ${reasonOf(error)}`);
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
const share = (part: number, whole: number) => `${(100 * part / whole).toFixed(2)} %`;

/** The counts beside those of the plain step in f32. */
function table(found: StepCost, plain: StepCost): string[] {
  const bytes = OWNERS.map((owner) => [
    `  ${LABELS[owner]}`,
    megabytes(found.peakBytesByOwner[owner]),
    megabytes(plain.peakBytesByOwner[owner]),
  ]);
  const flops = (["forward", "backward", "optimizer"] as const).map((phase) => [
    `  ${phase}`,
    gigaflops(found.flops[phase]),
    gigaflops(plain.flops[phase]),
  ]);
  const rows = [
    ["", "this step", "plain step"],
    ["trainable parameters", `${found.trainableParameters}`, `${plain.trainableParameters}`],
    ["peak GPU memory", megabytes(found.peakGpuBytes), megabytes(plain.peakGpuBytes)],
    ...bytes,
    ["with buffers kept for reuse", megabytes(found.peakHeldBytes), megabytes(plain.peakHeldBytes)],
    ["work", gigaflops(found.flops.total), gigaflops(plain.flops.total)],
    ...flops,
    [
      "  of it the adapters'",
      share(found.adapterFlops.total, found.flops.total),
      share(plain.adapterFlops.total, plain.flops.total),
    ],
    ["bytes read", megabytes(found.bytesRead), megabytes(plain.bytesRead)],
    ["bytes written", megabytes(found.bytesWritten), megabytes(plain.bytesWritten)],
    ["dispatches", `${found.dispatches}`, `${plain.dispatches}`],
    ["submits", `${found.submits}`, `${plain.submits}`],
  ];
  return rows.map(([label, own, other]) =>
    `${label.padEnd(28)}${own.padStart(16)}${other.padStart(16)}`
  );
}
