/**
 * Adapters as files: Hugging Face PEFT's format, and its extension to several blocks.
 *
 * @module
 */

import { isObject } from "../../clip/json.ts";
import type { Model } from "../../clip/model.ts";
import { tensor } from "../../tensor/create.ts";
import { firstNonFinite } from "../../tensor/finite.ts";
import { inCategory } from "../../tensor/memory.ts";
import { encodeSafetensors, type TensorToSave } from "../../tensor/encode_safetensors.ts";
import { keep } from "../../tensor/scope.ts";
import { sameShape, type Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { TensorFile } from "../../tensor/tensor_file.ts";
import { type AdapterKind, Adapters, type LayerAdapter, type LayerConfig } from "./adapters.ts";
import { type HostTensors, onHost } from "./host_tensors.ts";
import type { NamedModel, SavedAdapters, SaveOptions } from "./method.ts";
import { checkIdentity, identityOf } from "./model_identity.ts";
import { isTarget, type PeftConfig, refuse } from "./peft_config.ts";
import { describeSites, sites } from "./sites.ts";

/** What PEFT puts before the names of a layer's tensors, and before the names of shared tensors. */
const PREFIX = "base_model.model.";
const FROZEN_PREFIX = "base_model.";

/**
 * Encodes adapters, byte for byte the same each time. LoRA is stored as Hugging Face PEFT stores
 * it. Block-LoRA stores each block under its number (`lora_B.0`, `lora_B.1`, …), with the
 * `peft_type` `BLOCK_LORA`.
 *
 * @param model The model that the adapters sit in, and its name in the file.
 * @throws {RangeError} If an element is NaN or infinite.
 */
export async function saveAdapters(
  adapters: Adapters,
  { name, revision, model }: NamedModel,
  { format = "octograd", extra = {} }: SaveOptions = {},
): Promise<SavedAdapters> {
  const { kind, byModule, frozen } = adapters;
  const tensors: Record<string, TensorToSave> = {};
  const put = (values: HostTensors, prefix: string) => {
    for (const [name, { shape, data }] of Object.entries(values)) {
      const at = firstNonFinite(data);
      if (at >= 0) {
        throw new RangeError(
          `Cannot save the adapter: "${prefix}${name}" holds ${data[at]}, its training diverged`,
        );
      }
      tensors[prefix + name] = { dtype: "F32", shape, data };
    }
  };
  // Read back all at once: each readback waits for the GPU, and this way they wait together.
  const layers = await Promise.all(
    [...byModule].map(async ([module, { tensors }]) => [module, await onHost(tensors)] as const),
  );
  for (const [module, values] of layers) {
    const exported = format === "peft" ? kind.exported?.(values) : undefined;
    put(exported ?? values, `${PREFIX}${module}.`);
  }
  put(await onHost(frozen), FROZEN_PREFIX);
  const saved = {
    auto_mapping: null,
    base_model_name_or_path: name,
    revision: revision ?? null,
    task_type: null,
    inference_mode: true,
    target_modules: targetsOf(model, byModule),
    modules_to_save: null,
    ...kind.peftKeys(adapters, format),
    // Older releases of PEFT refuse keys that they do not know.
    ...(format === "octograd" && {
      octograd: { ...extra, ...await identityOf(model) },
    }),
  };
  return {
    weights: encodeSafetensors(tensors, { format: "pt" }),
    config: `${JSON.stringify(saved, null, 2)}\n`,
  };
}

/**
 * Reads adapters of one kind, saved here or by PEFT, and puts them into a model. Their `config`
 * describes what was read.
 *
 * @param config The parsed `adapter_config.json`.
 * @returns The adapters, and the {@linkcode SaveOptions.extra} that were saved beside them.
 * @throws {RangeError} If they are for another model, are incomplete, NaN or infinite, or would
 * compute other numbers here than in PEFT. The model is then unchanged.
 */
export async function loadAdaptersOf(
  kind: AdapterKind,
  model: Model,
  file: TensorFile,
  config: Readonly<Record<string, unknown>>,
): Promise<{ adapters: Adapters; extra: Record<string, unknown> }> {
  const parsed = kind.parse(config) as PeftConfig<LayerConfig>;
  const layers = new Map(sites(model).map(({ module, linear }) => [module, linear]));
  const shapes = new Map([...layers].map(([module, { weight }]) => [module, weight.shape]));
  const modules = modulesIn(file, shapes, kind, parsed, config.target_modules);
  const described = { ...parsed.config, ...describeSites(model, modules) };
  const wanted = modules.map((module) => {
    const layerConfig = { ...described, ...parsed.of(module) };
    return { module, layerConfig, parts: kind.tensors(layerConfig, shapes.get(module)!) };
  });
  for (const { module, layerConfig, parts } of wanted) {
    checkShapes(file, `${PREFIX}${module}.`, parts, layerConfig.rank, shapes.get(module)!);
  }
  const frozenShapes = kind.frozen?.(described, modules.map((module) => shapes.get(module)!)) ?? {};
  checkFrozen(file, frozenShapes);
  const { visualProjection, weights, ...extra } = isObject(config.octograd) ? config.octograd : {};
  await checkIdentity(model, { visualProjection, weights });

  // All values are read and checked before the first of them is on the GPU.
  const [frozen, ...made] = (await Promise.all([
    readValues(file, FROZEN_PREFIX, frozenShapes),
    ...wanted.map(({ module, parts }) => readValues(file, `${PREFIX}${module}.`, parts)),
  ])).map(tensorsOf);
  const byModule = new Map<string, LayerAdapter>();
  for (const [stream, { module, layerConfig }] of wanted.entries()) {
    const linear = layers.get(module)!;
    byModule.set(module, kind.make(made[stream], { config: layerConfig, linear, stream, frozen }));
  }
  return { adapters: new Adapters(model, described, kind, byModule, frozen), extra };
}

async function readValues(
  file: TensorFile,
  prefix: string,
  shapes: Readonly<Record<string, Shape>>,
): Promise<HostTensors> {
  const entries = Object.entries(shapes).map(async ([name, shape]) => {
    const data = await file.floats(prefix + name);
    const at = firstNonFinite(data);
    if (at >= 0) refuse(`"${prefix}${name}" holds ${data[at]}, its training diverged`);
    return [name, { shape, data }] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

function tensorsOf(values: HostTensors): Record<string, Tensor> {
  return inCategory("adapterWeights", () =>
    Object.fromEntries(
      Object.entries(values).map(([name, { shape, data }]) => [name, keep(tensor(data, shape))]),
    ));
}

/**
 * The layers that PEFT is to adapt. If all layers with the same last name are adapted, the last
 * name stands for them; other layers have their full names.
 */
function targetsOf(model: Model, adapted: ReadonlyMap<string, unknown>): string[] {
  const last = (module: string) => module.slice(module.lastIndexOf(".") + 1);
  const partly = new Set(
    sites(model).filter(({ module }) => !adapted.has(module)).map(({ module }) => last(module)),
  );
  const names = [...adapted.keys()].map((name) => partly.has(last(name)) ? name : last(name));
  return [...new Set(names)].sort();
}

/** The layers that a file adapts, in the model's order. */
function modulesIn(
  file: TensorFile,
  layers: ReadonlyMap<string, Shape>,
  kind: AdapterKind,
  parsed: PeftConfig<LayerConfig>,
  targets: unknown,
): string[] {
  const frozen = Object.keys(kind.frozen?.(parsed.config, []) ?? {});
  const partsOf = (module: string) => Object.keys(kind.tensors(parsed.config, layers.get(module)!));
  const adapted = new Set<string>();
  for (const name of file.tensors.keys()) {
    if (frozen.includes(name.slice(FROZEN_PREFIX.length))) continue;
    const module = [...layers.keys()].find((module) => name.startsWith(`${PREFIX}${module}.`));
    if (module === undefined) {
      refuse(`"${name}" is for no layer that this model can adapt, is it for another model?`);
    }
    const parts = partsOf(module);
    if (!parts.includes(name.slice(`${PREFIX}${module}.`.length))) {
      refuse(`"${name}" is not known, the parts are ${parts.join(", ")}`);
    }
    if (!isTarget(module, targets)) refuse(`"${name}" is not among its target_modules`);
    adapted.add(module);
  }
  if (adapted.size === 0) refuse("its file holds no adapter");
  for (const module of adapted) {
    for (const name of partsOf(module).map((last) => `${PREFIX}${module}.${last}`)) {
      if (!file.tensors.has(name)) refuse(`"${name}" is missing`);
    }
  }
  return [...layers.keys()].filter((module) => adapted.has(module));
}

function checkShapes(
  file: TensorFile,
  prefix: string,
  shapes: Readonly<Record<string, Shape>>,
  rank: number,
  layer: Shape,
): void {
  for (const [name, needed] of Object.entries(shapes)) {
    const held = file.tensors.get(prefix + name)!.shape;
    if (sameShape(held, needed)) continue;
    refuse(
      `"${prefix}${name}" is [${held}], rank ${rank} on this model's layer of [${layer}] ` +
        `needs [${needed}]`,
    );
  }
}

function checkFrozen(file: TensorFile, shapes: Readonly<Record<string, Shape>>): void {
  for (const [name, needed] of Object.entries(shapes)) {
    const held = file.tensors.get(FROZEN_PREFIX + name)?.shape;
    if (!held) refuse(`"${FROZEN_PREFIX}${name}", which its layers share, is missing`);
    if (!sameShape(held, needed)) {
      refuse(`"${FROZEN_PREFIX}${name}" is [${held}], this model needs [${needed}]`);
    }
  }
}
