/**
 * The configuration of saved adapters, as Hugging Face PEFT writes it: what is read, and what must
 * be refused because it would give other numbers here.
 *
 * @module
 */

import type { AdapterConfig } from "./attach.ts";

/** The parts of an adapter's configuration that count. */
export interface Settings {
  /** The nominal rank. */
  readonly rank: number;
  /** How many blocks share it; null for LoRA. */
  readonly blocks: number | null;
  /** The numerator of the scale. */
  readonly alpha: number;
  /** What it is divided by. */
  readonly scaling: AdapterConfig["scaling"];
  /** Probability of dropping an element of an adapter's input. */
  readonly dropout: number;
  /** Ranks of layers that have one of their own, by a pattern of their names. */
  readonly rankPattern: Readonly<Record<string, number>>;
  /** Numerators likewise. */
  readonly alphaPattern: Readonly<Record<string, number>>;
  /** The layers to adapt, as PEFT names them. */
  readonly targets: unknown;
  /** What PEFT knows nothing of. */
  readonly octograd: Readonly<Record<string, unknown>>;
}

/** Keys of PEFT's LoraConfig that do not change what an adapter computes. */
const WITHOUT_EFFECT = new Set([
  ...["auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode"],
  ...["peft_version", "runtime_config", "layers_to_transform", "layers_pattern", "exclude_modules"],
  ...["megatron_config", "megatron_core", "eva_config", "qalora_group_size"],
]);

/** Ways to begin that leave the model's own weights as they are; PiSSA, OLoRA and others do not. */
const PLAIN_STARTS = [true, false, null, "gaussian", "eva", "orthogonal"];

/**
 * Reads a parsed `adapter_config.json`.
 *
 * @throws {RangeError} If a value is missing or impossible, or asks for what is not done here.
 */
export function parseSettings(config: unknown): Settings {
  if (!isRecord(config)) refuse("its configuration is not an object");
  const {
    peft_type,
    r,
    blocks,
    lora_alpha,
    lora_dropout = 0,
    use_rslora = false,
    rank_pattern,
    alpha_pattern,
    target_modules,
    init_lora_weights = true,
    octograd,
    ...others
  } = config;
  if (peft_type !== "LORA" && peft_type !== "BLOCK_LORA") {
    refuse(`its peft_type is ${JSON.stringify(peft_type)}, it must be LORA or BLOCK_LORA`);
  }
  for (const [key, value] of Object.entries(others)) {
    if (WITHOUT_EFFECT.has(key) || isOff(value)) continue;
    refuse(`its ${key} is ${JSON.stringify(value)}, which is not supported and would change it`);
  }
  if (!PLAIN_STARTS.includes(init_lora_weights as string)) {
    refuse(
      `its init_lora_weights is ${
        JSON.stringify(init_lora_weights)
      }, which changed the model too; ` +
        "convert it to plain LoRA with PEFT",
    );
  }
  const count = peft_type === "LORA" ? null : wholeNumber("blocks", blocks);
  if (count === null && blocks !== undefined) refuse("it has blocks, but its peft_type is LORA");
  if (typeof lora_alpha !== "number") refuse(`its lora_alpha is ${JSON.stringify(lora_alpha)}`);
  if (typeof lora_dropout !== "number" || !(lora_dropout >= 0 && lora_dropout < 1)) {
    refuse(`its lora_dropout is ${JSON.stringify(lora_dropout)}, it must be from 0 to below 1`);
  }
  return {
    rank: wholeNumber("r", r),
    blocks: count,
    alpha: lora_alpha,
    scaling: use_rslora ? "sqrt" : "linear",
    dropout: lora_dropout,
    rankPattern: parsePattern("rank_pattern", rank_pattern),
    alphaPattern: parsePattern("alpha_pattern", alpha_pattern),
    targets: target_modules,
    octograd: isRecord(octograd) ? octograd : {},
  };
}

/**
 * Whether PEFT would adapt a layer: `targets` are last parts of names, or one regular expression.
 */
export function isTarget(module: string, targets: unknown): boolean {
  if (Array.isArray(targets)) {
    return targets.some((target) => `.${module}`.endsWith(`.${target}`));
  }
  if (typeof targets !== "string" || targets === "all-linear") return true;
  return pattern("target_modules", targets).test(module);
}

/**
 * The first value whose key, a regular expression, fits the end of a layer's name, as PEFT looks it
 * up.
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
  try {
    return new RegExp(`^(?:${source})$`);
  } catch {
    refuse(`its ${key} has "${source}", which is not a regular expression`);
  }
}

function parsePattern(key: string, value: unknown): Record<string, number> {
  if (value === undefined || value === null) return {};
  if (isRecord(value) && Object.values(value).every((item) => typeof item === "number")) {
    return value as Record<string, number>;
  }
  refuse(`its ${key} is ${JSON.stringify(value)}, it must give each pattern a number`);
}

/** A setting that counts something. */
export function wholeNumber(key: string, value: unknown): number {
  if (Number.isInteger(value) && value as number > 0) return value as number;
  refuse(`its ${key} is ${JSON.stringify(value)}, it must be a positive whole number`);
}

/** Whether a setting that is not known here asks for nothing. */
function isOff(value: unknown): boolean {
  return value === null || value === false || value === "" || value === "none" ||
    (typeof value === "object" && Object.keys(value).length === 0);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Throws, in words that begin the same everywhere. */
export function refuse(why: string): never {
  throw new RangeError(`Cannot load the adapter: ${why}`);
}
