/**
 * The configuration of saved adapters, as Hugging Face PEFT writes it: what all methods have in
 * common, and what must be refused because it would compute other numbers here.
 *
 * @module
 */

import { isObject } from "../../clip/json.ts";
import { flawOf } from "./name_pattern.ts";

/** What a PEFT configuration says. */
export interface PeftConfig<Config> {
  /** The configuration of all layers. */
  readonly config: Config;
  /**
   * The configuration of one layer, by its name; patterns may give it another rank.
   *
   * @throws {RangeError} If what the patterns give it is impossible.
   */
  of(module: string): Config;
}

/** Keys of PEFT's configurations that do not change what an adapter computes. */
const WITHOUT_EFFECT = new Set([
  ...["auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode"],
  ...["peft_version", "runtime_config", "layers_to_transform", "layers_pattern", "exclude_modules"],
  ...["megatron_config", "megatron_core", "eva_config", "qalora_group_size"],
  // VeLoRA approximates gradients alone, and CLIP has no layers with the same weights.
  ...["velora_config", "ensure_weight_tying"],
  ...["peft_type", "target_modules", "octograd"],
]);

/** Throws if a key that the method does not read asks for something that would have an effect. */
export function refuseOthers(config: Readonly<Record<string, unknown>>): void {
  for (const [key, value] of Object.entries(config)) {
    if (WITHOUT_EFFECT.has(key) || isOff(value)) continue;
    refuse(`its ${key} is ${JSON.stringify(value)}, which is not supported and would change it`);
  }
}

/** The probability of a dropout. */
export function probability(key: string, value: unknown): number {
  if (typeof value === "number" && value >= 0 && value < 1) return value;
  refuse(`its ${key} is ${JSON.stringify(value)}, it must be from 0 to below 1`);
}

/**
 * Whether PEFT would adapt a layer. `targets` are the last components of names, or one regular
 * expression.
 */
export function isTarget(module: string, targets: unknown): boolean {
  if (Array.isArray(targets)) {
    return targets.some((target) => `.${module}`.endsWith(`.${target}`));
  }
  if (typeof targets !== "string" || targets === "all-linear") return true;
  return pattern("target_modules", targets).test(module);
}

/**
 * The first value whose key, a regular expression, matches the end of a layer's name. PEFT looks it
 * up in the same way.
 */
export function matched(
  key: string,
  values: Readonly<Record<string, number>>,
  module: string,
): number | undefined {
  const name = Object.keys(values).find((name) => pattern(key, `(.*\\.)?(${name})`).test(module));
  return name === undefined ? undefined : values[name];
}

function pattern(key: string, source: string): RegExp {
  let made: RegExp;
  try {
    made = new RegExp(`^(?:${source})$`);
  } catch {
    refuse(`its ${key} has "${source}", which is not a regular expression`);
  }
  const flaw = flawOf(source);
  if (flaw === null) return made;
  refuse(`its ${key} has "${source}", which ${flaw}: it could take forever, simplify it`);
}

/** Reads a record that gives a number for each pattern of names. */
export function parsePattern(key: string, value: unknown): Record<string, number> {
  if (value === undefined || value === null) return {};
  if (isObject(value) && Object.values(value).every((item) => typeof item === "number")) {
    return value as Record<string, number>;
  }
  refuse(`its ${key} is ${JSON.stringify(value)}, it must give each pattern a number`);
}

/** A value that must be a positive integer. */
export function wholeNumber(key: string, value: unknown, most = 2 ** 24): number {
  if (Number.isInteger(value) && value as number > 0 && value as number <= most) {
    return value as number;
  }
  refuse(
    `its ${key} is ${JSON.stringify(value)}, it must be a positive integer, at most ${most}`,
  );
}

/** Whether the value of an unknown key asks for nothing. */
function isOff(value: unknown): boolean {
  return value === null || value === false || value === "" || value === "none" ||
    (typeof value === "object" && Object.keys(value).length === 0);
}

/** Throws an error whose message begins with the same words everywhere. */
export function refuse(why: string): never {
  throw new RangeError(`Cannot load the adapter: ${why}`);
}
