/**
 * The public interface of this folder: the models, and what turns texts and pictures into their
 * inputs.
 *
 * @module
 */

export * from "./clip.ts";
export * from "./config.ts";
export * from "./families.ts";
export * from "./image.ts";
export * from "./layers.ts";
export { loadWeights } from "./load_weights.ts";
export * from "./model.ts";
export * from "./open_clip.ts";
export * from "./text.ts";
export * from "./tokenizer.ts";
export type { AddedToken } from "./tokenizer_json.ts";
export * from "./tower.ts";
export * from "./vision.ts";
export {
  type Precision,
  type PrecisionChoice,
  storedAs,
  Weights,
  type WeightsOrigin,
  type WeightSource,
} from "./weights.ts";
