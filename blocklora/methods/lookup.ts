/**
 * Finds methods by their names, and by the files that they wrote.
 *
 * @module
 */

import { isObject } from "../../clip/json.ts";
import type { Model } from "../../clip/model.ts";
import type { TensorFile } from "../../tensor/tensor_file.ts";
import type { AdapterConfig, LowRankAdapters } from "./adapter_config.ts";
import type { AdapterMethod } from "./adapter_method.ts";
import type { Adapters } from "./adapters.ts";
import type { FlagValues } from "../system/flag.ts";
import type { Baseline } from "./baseline.ts";
import type { Method, MethodConfig } from "./method.ts";
import { refuse } from "./peft_config.ts";
import * as registry from "./registry.ts";

const ALL: readonly (Method | Baseline)[] = Object.values(registry);

/** Every method. */
export const METHODS: readonly Method[] = ALL.filter((entry) => "learner" in entry);

/** Every baseline that methods are compared with. */
export const BASELINES: readonly Baseline[] = ALL.filter((entry) => "predict" in entry);

/**
 * What reports call the method or the baseline of a finished run.
 *
 * @throws {RangeError} If there is none of that name.
 */
export function labelOf(config: MethodConfig): string {
  return BASELINES.find(({ name }) => name === config.method)?.label ??
    methodNamed(config.method).label(config);
}

/**
 * The method called `name`.
 *
 * @throws {RangeError} If there is none.
 */
export function methodNamed(name: string): Method {
  const method = METHODS.find((method) => method.name === name);
  if (method) return method;
  const names = METHODS.map((method) => method.name).join(", ");
  throw new RangeError(`Cannot find method "${name}": there are ${names}`);
}

/** Whether a name is that of a method, and not of a baseline. */
export function isMethod(name: string): boolean {
  return METHODS.some((method) => method.name === name);
}

/**
 * The position of a method or baseline in a report: first the baselines that do not learn, then
 * those that do, then the methods.
 */
export function orderOf({ method }: MethodConfig): number {
  const baselines = BASELINES.toSorted((a, b) => Number(a.learns) - Number(b.learns));
  return [...baselines, ...METHODS.toReversed()].findIndex(({ name }) => name === method);
}

/**
 * A method's configuration: the given values of its flags, and the presets of the remaining flags.
 */
export function presetConfig(method: Method, values: FlagValues = {}): MethodConfig {
  const presets = Object.entries(method.flags).map(([name, { preset }]) => [name, preset]);
  return method.configOf({ ...Object.fromEntries(presets), ...values });
}

/**
 * The method that reads a parsed `adapter_config.json`.
 *
 * @throws {RangeError} If no method does.
 */
export function methodOf(config: unknown): Method {
  if (!isObject(config)) refuse("its configuration is not an object");
  const method = METHODS.find((method) => method.reads(config));
  if (method) return method;
  refuse(`its peft_type is ${JSON.stringify(config.peft_type)}, which no method here reads`);
}

/**
 * Makes fresh adapters from a seed, and puts them into a model. Those of the LoRA family do not
 * change the model until a step is taken.
 *
 * @throws {RangeError} If the blocks do not divide the rank, the model lacks the chosen layers, or
 * the method does not adapt layers.
 */
export function attach(
  model: Model,
  config: AdapterConfig,
  seed: number,
): LowRankAdapters;
/** The same for any method that adapts layers. */
export function attach(model: Model, config: MethodConfig, seed: number): Adapters;
export function attach(model: Model, config: MethodConfig, seed: number): Adapters {
  const method = methodNamed(config.method);
  if (!("attach" in method)) {
    throw new RangeError(`Cannot attach ${method.name}: it does not adapt layers`);
  }
  return (method as AdapterMethod).attach(model, config, seed);
}

/**
 * Reads adapters, saved here or by PEFT, and puts them into a model. Their `config` describes what
 * was read.
 *
 * @param config The parsed `adapter_config.json`.
 * @returns The adapters, and the extra values that were saved beside them.
 * @throws {RangeError} If they are for another model, are incomplete, or would compute other
 * numbers here than in PEFT. The model is then unchanged.
 */
export async function loadAdapters(
  model: Model,
  file: TensorFile,
  config: unknown,
): Promise<{ adapters: Adapters; extra: Record<string, unknown> }> {
  const method = methodOf(config);
  const { learner, extra } = await method.load(model, file, config as Record<string, unknown>);
  return { adapters: learner as Adapters, extra };
}
