/**
 * The registry of model families. A new family adds one line to it.
 *
 * @module
 */

import { CLIP_FAMILY } from "./clip.ts";
import { isObject } from "./json.ts";
import type { ModelFamily } from "./model.ts";

/** All supported model families. */
export const FAMILIES: readonly ModelFamily[] = [CLIP_FAMILY];

/** The family that a parsed `config.json` belongs to, or null if it is not supported. */
export function familyOf(config: unknown): ModelFamily | null {
  const type = isObject(config) ? config.model_type : undefined;
  return FAMILIES.find(({ modelType }) => modelType === type) ?? null;
}
