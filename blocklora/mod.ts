/**
 * The public face of this folder: few-shot methods, and what trains and uses them.
 *
 * @module
 */

export * from "./methods/adapter_config.ts";
export { Adapters, type LayerAdapter, type LayerConfig } from "./methods/adapters.ts";
export { BlockLora } from "./methods/block_lora.ts";
export { saveAdapters } from "./methods/checkpoint.ts";
export { Lora } from "./methods/lora.ts";
export { DenseLora } from "./methods/lora_dense.ts";
export { LowRank, type LowRankOptions } from "./methods/low_rank.ts";
export * from "./methods/method.ts";
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
export * from "./training/classifier.ts";
export * from "./training/trainer.ts";
