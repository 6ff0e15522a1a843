/**
 * The public API of this folder: few-shot methods, and the code that trains and uses them.
 *
 * @module
 */

export type { AdaptedSite, MethodCost } from "./cost/formulas.ts";
export * from "./methods/adapter_config.ts";
export type { AdapterMethod } from "./methods/adapter_method.ts";
export * from "./methods/adapters.ts";
export { BlockLora } from "./methods/block_lora.ts";
export { saveAdapters } from "./methods/checkpoint.ts";
export type { HostTensor, HostTensors } from "./methods/host_tensors.ts";
export { Lora } from "./methods/lora.ts";
export { DenseLora } from "./methods/lora_dense.ts";
export { LowRank, type LowRankOptions } from "./methods/low_rank.ts";
export * from "./methods/method.ts";
export type { PeftConfig } from "./methods/peft_config.ts";
export * from "./methods/recipe.ts";
export { attach, loadAdapters, methodNamed, methodOf, METHODS } from "./methods/lookup.ts";
export {
  ADAPTABLE,
  type Adaptable,
  type AdaptedLayers,
  chosenSites,
  DEFAULT_LAYERS,
  ENCODERS,
  layersAt,
  type Site,
  sites,
} from "./methods/sites.ts";
export type { Flag, Flags, FlagValue, FlagValues } from "./system/flag.ts";
export * from "./training/classifier.ts";
export * from "./training/trainer.ts";
