/**
 * What the files beside a model's weights say of it.
 *
 * @module
 */

import {
  type ClipConfig,
  parseConfig,
  parsePreprocessor,
  type PreprocessConfig,
} from "../../clip/config.ts";
import { isObject } from "../../clip/json.ts";
import { parseOpenClip } from "../../clip/open_clip.ts";
import { isOpenai } from "../../clip/openai_weights.ts";
import { readJson } from "../system/files.ts";
import { isClip, type Layout } from "./model_files.ts";

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
  return openClip !== null ? "open_clip" : isClip(config) ? "transformers" : "openai";
}

/**
 * The sizes of a model, as the files of one kind state them. If no kind is asked for, Hugging
 * Face's count where they are a CLIP's, else open_clip's.
 *
 * @throws {Error} If the files describe no model that can be run.
 */
export function configOf(kind: Layout["kind"] | null, { config, openClip }: Stated): ClipConfig {
  const isOpenClip = kind === "open_clip" || (!kind && !isClip(config) && openClip !== null);
  return isOpenClip ? parseOpenClip(openClip).config : parseConfig(config);
}

/** How a model's images are prepared; null if its files do not say. */
export function preprocessOf(
  kind: Kind,
  { openClip, processor, preprocessor }: Stated,
  imageSize: number,
): PreprocessConfig | null {
  if (kind === "open_clip") return parseOpenClip(openClip).preprocess;
  if (isObject(processor) && processor.image_processor != null) {
    return parsePreprocessor(processor.image_processor, imageSize, "processor_config.json");
  }
  if (preprocessor != null) return parsePreprocessor(preprocessor, imageSize);
  return openClip === null ? null : parseOpenClip(openClip).preprocess;
}
