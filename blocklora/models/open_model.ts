/**
 * Opens a model from a directory, a file or the hub.
 *
 * @module
 */

import { dirname, resolve } from "node:path";
import { openaiPreprocess, type PreprocessConfig } from "../../clip/config.ts";
import { loadWeights } from "../../clip/load_weights.ts";
import type { Model } from "../../clip/model.ts";
import { Tokenizer } from "../../clip/tokenizer.ts";
import { addedTokens } from "../../clip/tokenizer_json.ts";
import { declaredWeights, type PrecisionChoice } from "../../clip/weights.ts";
import { readJson, readText } from "../system/files.ts";
import { resolveModel, type ResolveOptions } from "./hub.ts";
import type { HubRevision } from "./hub_cache.ts";
import { layoutIn, weightPaths } from "./model_files.ts";
import { definitionOf, type Kind, kindOfFile, preprocessOf, readStated } from "./stated.ts";
import { fingerprintOf, openAll, openTensors, shapesOf } from "./tensor_files.ts";

/** The directory of the embedded model, which comes with the project. */
export const EMBEDDED_MODEL: URL = new URL("../../clip/emoji-clip-tiny/", import.meta.url);

/** Options of {@linkcode openModel}. */
export interface OpenOptions extends ResolveOptions {
  /** The directory of the tokenizer's files, for a model that comes without them. */
  readonly tokenizer?: string;
  /** How the model's matrices are stored on the GPU. The default is as in its files. */
  readonly precision?: PrecisionChoice;
  /** Called with a note if the model's files leave something open, and what is assumed instead. */
  readonly onNote?: (note: string) => void;
}

/** A model, its tokenizer and the preprocessing of its images. */
export interface OpenedModel {
  /** The model. */
  readonly model: Model;
  /** Its tokenizer. */
  readonly tokenizer: Tokenizer;
  /** How images are preprocessed. */
  readonly preprocess: PreprocessConfig;
  /** The directory or file that it was read from. */
  readonly path: string;
  /** The directory of its configuration and tokenizer. */
  readonly directory: string;
  /** The kind of files that describe it; `"openai"` if there are none. */
  readonly kind: Kind;
  /**
   * The revision on the hub that it was fetched from; null for a model that was named by its path.
   */
  readonly hub: HubRevision | null;
  /** Identifies the model: a hash of its configuration, tokenizer, preprocessing and weights. */
  readonly fingerprint: string;
}

/**
 * Opens a model: a directory in Hugging Face's layout or open_clip's, a file of weights with the
 * tokenizer and configuration beside it, or a hub id. Weights may be in safetensors or PyTorch
 * files. A file that names its tensors as openai/CLIP does needs no configuration.
 *
 * @throws {Error} If anything is missing, broken or does not fit. The message is one line.
 */
export async function openModel(spec: string, options: OpenOptions = {}): Promise<OpenedModel> {
  const { path, weights: beside, hub } = await resolveModel(spec, options);
  const isFile = (await Deno.stat(path)).isFile;
  const directory = isFile ? dirname(path) : path;
  const layout = isFile ? null : await layoutIn(directory, beside);
  const sources = await openAll(layout ? await weightPaths(beside, layout) : [path]);
  try {
    const files = await Promise.all(sources.map(openTensors));
    const stated = await readStated(directory);
    const shapes = shapesOf(files);
    const kind = layout?.kind ?? kindOfFile(shapes.keys(), stated);
    const { config, imageSize, build } = definitionOf(kind, stated, shapes);
    const statedPreprocess = preprocessOf(kind, stated, imageSize);
    const preprocess = statedPreprocess ?? openaiPreprocess(imageSize);
    if (kind === "openai") {
      options.onNote?.(
        `${path} comes without a configuration: it is taken for one of openai/CLIP's`,
      );
    } else if (!statedPreprocess) {
      options.onNote?.(
        `${directory} has no preprocessor_config.json: its images are prepared as openai/CLIP's`,
      );
    }
    if (preprocess.crop !== imageSize) {
      throw new RangeError(
        `Cannot use ${directory}: its images are cropped to ${preprocess.crop}, ` +
          `the model takes ${imageSize}`,
      );
    }
    const { tokenizer, content } = await openTokenizer(options.tokenizer ?? directory);
    const description = JSON.stringify({ config, preprocess, content });
    const [weights, fingerprint] = await Promise.all([
      loadWeights(files, declaredWeights(build), { precision: options.precision }),
      fingerprintOf(sources, description),
    ]);
    const paths = { path: resolve(path), directory: resolve(directory) };
    return { model: build(weights), tokenizer, preprocess, ...paths, kind, hub, fingerprint };
  } finally {
    for (const source of sources) source[Symbol.dispose]();
  }
}

/** The tokenizer in a directory, and the contents of its files, which identify it. */
async function openTokenizer(
  directory: string,
): Promise<{ tokenizer: Tokenizer; content: unknown }> {
  const config = await readJson(directory, "tokenizer_config.json");
  const listed = await readJson(directory, "added_tokens.json");
  const added = addedTokens(config, listed);
  const json = await readJson(directory, "tokenizer.json");
  if (json !== null) {
    return { tokenizer: Tokenizer.fromTokenizerJson(json, added), content: [json, added] };
  }
  const vocabulary = await readJson(directory, "vocab.json");
  const merges = await readText(directory, "merges.txt");
  if (vocabulary !== null && merges !== null) {
    const tokenizer = Tokenizer.fromVocabulary(vocabulary as Record<string, number>, merges, added);
    return { tokenizer, content: [vocabulary, merges, added] };
  }
  throw new Error(
    `Cannot find a tokenizer in ${directory}: ` +
      "it has neither tokenizer.json nor vocab.json with merges.txt, " +
      "name a directory that has with --tokenizer",
  );
}
