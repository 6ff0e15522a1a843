/**
 * Adapters as files: Hugging Face PEFT's format, and its extension to several blocks.
 *
 * @module
 */

import type { Clip } from "../../clip/clip.ts";
import { type Linear, PROJECTIONS } from "../../clip/layers.ts";
import { tensor } from "../../tensor/create.ts";
import { encodeSafetensors, type TensorToSave } from "../../tensor/safetensors.ts";
import { owned } from "../../tensor/memory.ts";
import { keep } from "../../tensor/scope.ts";
import { sameShape, type Shape } from "../../tensor/shape.ts";
import type { TensorFile } from "../../tensor/tensor_file.ts";
import { BlockLora, Lora, type LowRank } from "./adapter.ts";
import {
  ADAPTABLE,
  type Adaptable,
  type AdapterConfig,
  Adapters,
  FEATURE_PROJECTIONS,
  scaleOf,
  sites,
  towerOf,
} from "./attach.ts";
import {
  isTarget,
  matched,
  parseSettings,
  refuse,
  type Settings,
  wholeNumber,
} from "./peft_config.ts";

/** Adapters, ready to be written. */
export interface SavedAdapters {
  /** The content of `adapter_model.safetensors`. */
  readonly weights: Uint8Array<ArrayBuffer>;
  /** The content of `adapter_config.json`. */
  readonly config: string;
}

/** How adapters are saved. */
export interface SaveOptions {
  /**
   * `"octograd"` (default) keeps every block, `extra`, and a sample of the model's weights that
   * tells it from others. `"peft"` is what every release of PEFT reads: Block-LoRA becomes the rank
   * r/n LoRA that it equals.
   */
  readonly format?: "octograd" | "peft";
  /** What to keep beside the adapters. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** What PEFT puts before the name of a model's layer. */
const PREFIX = "base_model.model.";

/** The numbers of a sample that tells one model from another of the same sizes. */
const SAMPLE_SIZE = 16;

/**
 * How far samples may be apart, as a part of their largest value: well above bfloat16's rounding,
 * 2⁻⁹.
 */
const SAMPLE_TOLERANCE = 0.02;

/**
 * Encodes adapters, byte for byte the same each time. LoRA is stored as Hugging Face PEFT stores
 * it, Block-LoRA with each block under a name of its own (`lora_B.0`, `lora_B.1`, …) and the
 * `peft_type` `BLOCK_LORA`.
 *
 * @param model The model that the adapters sit in, what the file shall call it, and its revision on the hub, if it is there.
 */
export async function saveAdapters(
  adapters: Adapters,
  model: { readonly name: string; readonly revision?: string; readonly clip: Clip },
  { format = "octograd", extra = {} }: SaveOptions = {},
): Promise<SavedAdapters> {
  const { config, byModule } = adapters;
  const { method, scaling, dropout, blocks } = config;
  const keepsBlocks = method === "block-lora" && format === "octograd";
  const rank = keepsBlocks ? config.rank : config.rank / blocks;
  // Fifteen digits: the square root and back leaves a clean number.
  const alphaFor = (scale: number, rank: number) =>
    Number((scale * (scaling === "sqrt" ? Math.sqrt(rank) : rank)).toPrecision(15));
  const alpha = alphaFor(scaleOf(config), rank);

  const tensors: Record<string, TensorToSave> = {};
  const [rankPattern, alphaPattern]: Record<string, number>[] = [{}, {}];
  // All at once: each readback waits for the GPU, and so they wait together.
  const matrices = await Promise.all([...byModule].map(async ([module, adapter]) => {
    const values = await Promise.all(adapter.parameters.map((matrix) => matrix.data()));
    return { module, adapter, values: values as Float32Array<ArrayBuffer>[] };
  }));
  for (const { module, adapter, values: [down, ...ups] } of matrices) {
    const kept = keepsBlocks ? ups : [sum(ups)];
    const names = partsOf(keepsBlocks ? kept.length : null);
    [down, ...kept].forEach((data, i) => {
      const { shape } = i === 0 ? adapter.down : adapter.ups[0];
      tensors[`${PREFIX}${module}.${names[i]}`] = { dtype: "F32", shape, data };
    });
    const own = adapter.down.shape[0] * (keepsBlocks ? kept.length : 1);
    const ownAlpha = alphaFor(adapter.scale, own);
    if (own !== rank) rankPattern[module] = own;
    if (ownAlpha !== alpha) alphaPattern[module] = ownAlpha;
  }

  const saved = {
    peft_type: keepsBlocks ? "BLOCK_LORA" : "LORA",
    auto_mapping: null,
    base_model_name_or_path: model.name,
    revision: model.revision ?? null,
    task_type: null,
    inference_mode: true,
    r: rank,
    ...(keepsBlocks && { blocks }),
    target_modules: targetsOf(model.clip, byModule),
    lora_alpha: alpha,
    lora_dropout: dropout,
    use_rslora: scaling === "sqrt",
    rank_pattern: rankPattern,
    alpha_pattern: alphaPattern,
    fan_in_fan_out: false,
    bias: "none",
    modules_to_save: null,
    init_lora_weights: true,
    layers_to_transform: null,
    layers_pattern: null,
    use_dora: false,
    // Older releases of PEFT refuse keys that they do not know.
    ...(format === "octograd" && {
      octograd: { ...extra, visualProjection: await sampleOf(model.clip) },
    }),
  };
  return {
    weights: encodeSafetensors(tensors, { format: "pt" }),
    config: `${JSON.stringify(saved, null, 2)}\n`,
  };
}

/**
 * Reads adapters, saved here or by PEFT, and puts them into a model. Their `config` describes what
 * was found.
 *
 * @param config The parsed `adapter_config.json`.
 * @returns The adapters, and what {@linkcode SaveOptions.extra} kept beside them.
 * @throws {RangeError} If they are for another model, incomplete, or would give other numbers here
 * than in PEFT; the model is then as it was.
 */
export async function loadAdapters(
  clip: Clip,
  file: TensorFile,
  config: unknown,
): Promise<{ adapters: Adapters; extra: Record<string, unknown> }> {
  const settings = parseSettings(config);
  const layers = new Map(sites(clip).map(({ module, linear }) => [module, linear]));
  const modules = modulesIn(file, layers, settings);
  const found = modules.map((module) => ({ module, ...planOf(module, settings) }));
  for (const plan of found) checkShapes(plan, layers.get(plan.module)!, file);
  const { visualProjection, ...extra } = settings.octograd;
  if (visualProjection !== undefined) await checkSample(clip, visualProjection);

  const values = await Promise.all(
    found.map(({ names }) => Promise.all(names.map((name) => file.floats(name)))),
  );
  const byModule = new Map<string, LowRank>();
  for (const [stream, { module, names, scale }] of found.entries()) {
    const [down, ...ups] = names.map((name, i) =>
      owned("adapterWeights", () => keep(tensor(values[stream][i], file.tensors.get(name)!.shape)))
    );
    const Kind = settings.blocks === null ? Lora : BlockLora;
    byModule.set(module, new Kind(down, ups, { scale, dropout: settings.dropout, stream }));
  }
  return { adapters: new Adapters(clip, describe(clip, modules, settings), byModule), extra };
}

/** The names of an adapter's matrices below that of its layer; without `blocks`, PEFT's. */
function partsOf(blocks: number | null): string[] {
  const ups = blocks === null
    ? ["lora_B.weight"]
    : Array.from({ length: blocks }, (_, i) => `lora_B.${i}.weight`);
  return ["lora_A.weight", ...ups];
}

/** Element by element, in float64. */
function sum(arrays: readonly Float32Array<ArrayBuffer>[]): Float32Array<ArrayBuffer> {
  return arrays[0].map((_, i) => arrays.reduce((total, array) => total + array[i], 0));
}

/**
 * What PEFT shall adapt: kinds of layers that are adapted everywhere by their last name, others by
 * their full names.
 */
function targetsOf(clip: Clip, adapted: ReadonlyMap<string, unknown>): string[] {
  const last = (module: string) => module.slice(module.lastIndexOf(".") + 1);
  const partly = new Set(
    sites(clip).filter(({ module }) => !adapted.has(module)).map(({ module }) => last(module)),
  );
  const names = [...adapted.keys()].map((name) => partly.has(last(name)) ? name : last(name));
  return [...new Set(names)].sort();
}

/** Some of the weights that no adapter changes. */
async function sampleOf(clip: Clip): Promise<number[]> {
  const values = await clip.weights.get("visual_projection.weight").data();
  return Array.from({ length: SAMPLE_SIZE }, (_, i) => {
    const value = values[Math.floor(i * values.length / SAMPLE_SIZE)];
    return Number(value.toPrecision(6));
  });
}

async function checkSample(clip: Clip, saved: unknown): Promise<void> {
  const own = await sampleOf(clip);
  const largest = Math.max(...own.map(Math.abs));
  const same = Array.isArray(saved) && saved.length === own.length &&
    own.every((value, i) => Math.abs(value - saved[i]) <= SAMPLE_TOLERANCE * largest);
  if (!same) refuse("it was made for a model of the same sizes with other weights");
}

/** The layers that a file adapts, in the model's order. */
function modulesIn(
  file: TensorFile,
  layers: ReadonlyMap<string, Linear>,
  { blocks, targets }: Settings,
): string[] {
  const parts = partsOf(blocks);
  const found = new Set<string>();
  for (const name of file.tensors.keys()) {
    const [, module, part] = /^base_model\.model\.(.+?)\.(lora_.+)$/.exec(name) ?? [];
    if (!layers.has(module)) {
      refuse(`"${name}" is for no layer that this model can adapt, is it for another model?`);
    }
    if (!parts.includes(part)) refuse(`"${name}" is not known, the parts are ${parts.join(", ")}`);
    if (!isTarget(module, targets)) refuse(`"${name}" is not among its target_modules`);
    found.add(module);
  }
  if (found.size === 0) refuse("its file holds no adapter");
  for (const name of [...found].flatMap((module) => parts.map((part) => namesOf(module, part)))) {
    if (!file.tensors.has(name)) refuse(`"${name}" is missing`);
  }
  return [...layers.keys()].filter((module) => found.has(module));
}

function namesOf(module: string, part: string): string {
  return `${PREFIX}${module}.${part}`;
}

/** Where an adapter's matrices are, how large they must be, and the factor of its change. */
interface Plan {
  readonly names: readonly string[];
  readonly rank: number;
  readonly inner: number;
  readonly scale: number;
}

function planOf(module: string, settings: Settings): Plan {
  const { blocks, scaling } = settings;
  const rank = matched("rank_pattern", settings.rankPattern, module) ?? settings.rank;
  const alpha = matched("alpha_pattern", settings.alphaPattern, module) ?? settings.alpha;
  const inner = wholeNumber("r", rank) / (blocks ?? 1);
  if (!Number.isInteger(inner)) {
    refuse(`its rank ${rank} is not a multiple of the number of its blocks, ${blocks}`);
  }
  const names = partsOf(blocks).map((part) => namesOf(module, part));
  return { names, rank, inner, scale: scaleOf({ alpha, rank, scaling } as AdapterConfig) };
}

function checkShapes({ names, rank, inner }: Plan, linear: Linear, file: TensorFile): void {
  const [outputs, inputs] = linear.weight.shape;
  for (const [i, name] of names.entries()) {
    const held = file.tensors.get(name)!.shape;
    const needed: Shape = i === 0 ? [inner, inputs] : [outputs, inner];
    if (sameShape(held, needed)) continue;
    refuse(
      `"${name}" is [${held}], rank ${rank} on this model's layer of [${outputs},${inputs}] ` +
        `needs [${needed}]`,
    );
  }
}

/** Whether a layer is called so in configurations. */
function isOf(module: string, name: Adaptable): boolean {
  return name === "proj"
    ? Object.values<string>(FEATURE_PROJECTIONS).includes(module)
    : module.endsWith(`.${PROJECTIONS[name]}`);
}

/** The configuration that comes nearest to what a file holds. */
function describe(clip: Clip, modules: readonly string[], settings: Settings): AdapterConfig {
  const { rank, blocks, alpha, scaling, dropout } = settings;
  const towers = (["vision", "text"] as const)
    .filter((tower) => modules.some((module) => towerOf(module) === tower));
  const inBlocks = modules.flatMap((module) => /layers\.(\d+)/.exec(module)?.[1] ?? []);
  const layers = [...new Set(inBlocks.map(Number))];
  const all = layers.length === 0 ||
    towers.every((tower) => clip[tower].blocks.every((_, i) => layers.includes(i)));
  return {
    method: blocks === null ? "lora" : "block-lora",
    rank,
    blocks: blocks ?? 1,
    alpha,
    scaling,
    dropout,
    projections: ADAPTABLE.filter((name) => modules.some((module) => isOf(module, name))),
    encoder: towers.length > 1 ? "both" : towers[0],
    position: all ? "all" : layers.sort((a, b) => a - b),
  };
}
