/**
 * The registry of models: what a new one adds a line to.
 *
 * @module
 */

import { CLIP_FAMILY } from "./clip.ts";
import { isObject } from "./json.ts";
import type { ModelFamily } from "./model.ts";

/** Every family of models that is known here. */
export const FAMILIES: readonly ModelFamily[] = [CLIP_FAMILY];

/** The family of a parsed `config.json`; null if none here is. */
export function familyOf(config: unknown): ModelFamily | null {
  const type = isObject(config) ? config.model_type : undefined;
  return FAMILIES.find(({ modelType }) => modelType === type) ?? null;
}
