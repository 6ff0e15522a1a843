/**
 * The methods and the baselines: whoever adds one adds its file and a line here. Nothing else names
 * one.
 *
 * @module
 */

import type { Clip } from "../../clip/clip.ts";
import type { TensorFile } from "../../tensor/tensor_file.ts";
import type { AdapterConfig } from "./adapter_config.ts";
import type { AdapterMethod } from "./adapter_method.ts";
import type { Adapters } from "./adapters.ts";
import type { Baseline } from "./baseline.ts";
import { blockLora } from "./block_lora.ts";
import { blockLoraCollapsed } from "./block_lora_collapsed.ts";
import { linearProbe } from "./linear_probe.ts";
import { lora } from "./lora.ts";
import { loraDense } from "./lora_dense.ts";
import type { LowRank } from "./low_rank.ts";
import type { Method, MethodConfig } from "./method.ts";
import { isRecord, refuse } from "./peft_config.ts";
import { zeroShot } from "./zero_shot.ts";

/** Every method; the first is the one that commands take if none is named. */
export const METHODS: readonly Method[] = [
  blockLora,
  blockLoraCollapsed,
  lora,
  loraDense,
];

/** What they are compared with. */
export const BASELINES: readonly Baseline[] = [zeroShot, linearProbe];

/**
 * What reports call the method or the baseline of a finished run.
 *
 * @throws {RangeError} If there is none of that name.
 */
export function labelOf(config: MethodConfig): string {
  return BASELINES.find(({ name }) => name === config.method)?.label ??
    methodNamed(config.method).label(config);
}

/** Where it comes in a report: the baselines first, then the methods, the first of them last. */
export function orderOf({ method }: MethodConfig): number {
  return [...BASELINES, ...METHODS.toReversed()].findIndex(({ name }) => name === method);
}

/**
 * The method of a name.
 *
 * @throws {RangeError} If there is none.
 */
export function methodNamed(name: string): Method {
  const found = METHODS.find((method) => method.name === name);
  if (found) return found;
  const names = METHODS.map((method) => method.name).join(", ");
  throw new RangeError(`Cannot find method "${name}": there are ${names}`);
}

/**
 * The method that a parsed `adapter_config.json` is of.
 *
 * @throws {RangeError} If it is of none.
 */
export function methodOf(config: unknown): Method {
  if (!isRecord(config)) refuse("its configuration is not an object");
  const found = METHODS.find((method) => method.reads(config));
  if (found) return found;
  refuse(`its peft_type is ${JSON.stringify(config.peft_type)}, which no method here reads`);
}

/**
 * Makes fresh adapters, from a seed, and puts them into a model: by LoRA and its kin the model does
 * not change until a step is taken.
 *
 * @throws {RangeError} If the blocks do not divide the rank, the chosen layers are none of the
 * model's, or the method does not adapt layers.
 */
export function attach(
  clip: Clip,
  config: AdapterConfig,
  seed: number,
): Adapters<LowRank, AdapterConfig>;
export function attach(clip: Clip, config: MethodConfig, seed: number): Adapters;
export function attach(clip: Clip, config: MethodConfig, seed: number): Adapters {
  const method = methodNamed(config.method);
  if (!("attach" in method)) {
    throw new RangeError(`Cannot attach ${method.name}: it does not adapt layers`);
  }
  return (method as AdapterMethod).attach(clip, config, seed);
}

/**
 * Reads adapters, saved here or by PEFT, and puts them into a model. Their `config` describes what
 * was found.
 *
 * @param config The parsed `adapter_config.json`.
 * @returns The adapters, and what was kept beside them.
 * @throws {RangeError} If they are for another model, incomplete, or would give other numbers here
 * than in PEFT; the model is then as it was.
 */
export async function loadAdapters(
  clip: Clip,
  file: TensorFile,
  config: unknown,
): Promise<{ adapters: Adapters; extra: Record<string, unknown> }> {
  const method = methodOf(config);
  const { learner, extra } = await method.load(clip, file, config as Record<string, unknown>);
  return { adapters: learner as Adapters, extra };
}
