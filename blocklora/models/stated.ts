/**
 * What the files beside a model's weights say of it.
 *
 * @module
 */

import { CLIP_FAMILY, clipDefinition } from "../../clip/clip.ts";
import { configFromOpenai, type PreprocessConfig } from "../../clip/config.ts";
import { familyOf } from "../../clip/families.ts";
import { isObject } from "../../clip/json.ts";
import type { ModelDefinition } from "../../clip/model.ts";
import { parseOpenClip } from "../../clip/open_clip.ts";
import { isOpenai } from "../../clip/openai_weights.ts";
import { readJson } from "../system/files.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Layout } from "./model_files.ts";

/** Whose files describe a model; `"openai"` if none do, as with the archives of openai/CLIP. */
export type Kind = Layout["kind"] | "openai";

/** What the files beside weights say; null for those that are missing. */
export interface Stated {
  /** `config.json`. */
  readonly config: unknown;
  /** `open_clip_config.json`. */
  readonly openClip: unknown;
  /** `processor_config.json`. */
  readonly processor?: unknown;
  /** `preprocessor_config.json`. */
  readonly preprocessor?: unknown;
}

/** Reads what the files of a directory say. */
export async function readStated(directory: string): Promise<Stated> {
  const [config, openClip, processor, preprocessor] = await Promise.all(
    [
      "config.json",
      "open_clip_config.json",
      "processor_config.json",
      "preprocessor_config.json",
    ].map((name) => readJson(directory, name)),
  );
  return { config, openClip, processor, preprocessor };
}

/**
 * Whose files describe a file of weights, by the names of its tensors: a file of openai/CLIP's may
 * lie beside the configuration of any other model.
 */
export function kindOfFile(names: Iterable<string>, { config, openClip }: Stated): Kind {
  if (!isOpenai(names)) return config === null ? "openai" : "transformers";
  return openClip !== null ? "open_clip" : familyOf(config) ? "transformers" : "openai";
}

/**
 * The model that the files of one kind describe; where none do, the one whose weights have these
 * names and shapes, as openai/CLIP calls them. If no kind is asked for, Hugging Face's files count
 * where their family is known, else open_clip's.
 *
 * @throws {Error} If the files describe no model that can be run.
 */
export function definitionOf(
  kind: Kind | null,
  { config, openClip }: Stated,
  shapes: ReadonlyMap<string, Shape> = new Map(),
): ModelDefinition {
  if (kind === "openai") return clipDefinition(configFromOpenai(shapes));
  const family = familyOf(config);
  const isOpenClip = kind === "open_clip" || (!kind && !family && openClip !== null);
  if (isOpenClip) return clipDefinition(parseOpenClip(openClip).config);
  // What no family knows is refused as no CLIP.
  return (family ?? CLIP_FAMILY).define(config);
}

/** How a model's images are prepared; null if its files do not say. */
export function preprocessOf(
  kind: Kind,
  { config, openClip, processor, preprocessor }: Stated,
  imageSize: number,
): PreprocessConfig | null {
  if (kind === "open_clip") return parseOpenClip(openClip).preprocess;
  const family = familyOf(config) ?? CLIP_FAMILY;
  if (isObject(processor) && processor.image_processor != null) {
    return family.preprocess(processor.image_processor, imageSize, "processor_config.json");
  }
  if (preprocessor != null) return family.preprocess(preprocessor, imageSize);
  return openClip === null ? null : parseOpenClip(openClip).preprocess;
}
