/**
 * Reads the files beside a model's weights that describe the model.
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

/**
 * The kind of files that describe a model; `"openai"` if there are none, as with the archives of
 * openai/CLIP.
 */
export type Kind = Layout["kind"] | "openai";

/** The parsed contents of the files that describe a model; null for missing files. */
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

/** Reads the files in a directory that describe a model. */
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
 * The kind of files that describe a weight file. It depends on the names of the tensors, because a
 * weight file of openai/CLIP may be in the same directory as the configuration of another model.
 */
export function kindOfFile(names: Iterable<string>, { config, openClip }: Stated): Kind {
  if (!isOpenai(names)) return config === null ? "openai" : "transformers";
  return openClip !== null ? "open_clip" : familyOf(config) ? "transformers" : "openai";
}

/**
 * The model that files of the given kind describe. For `"openai"`, the model whose weights have
 * these `shapes`, under openai/CLIP's names. If `kind` is null, Hugging Face's files are used if
 * their model family is known, else open_clip's.
 *
 * @throws {Error} If the files do not describe a supported model.
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
  // For an unknown family, this throws an error that says that it is not a CLIP model.
  return (family ?? CLIP_FAMILY).define(config);
}

/** How the images of a model are preprocessed; null if its files do not say. */
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
