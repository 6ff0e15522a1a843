/**
 * A model from a directory, a file or the hub.
 *
 * @module
 */

import { dirname, join } from "node:path";
import { Clip } from "../clip/clip.ts";
import {
  configFromOpenai,
  openaiPreprocess,
  parseConfig,
  parsePreprocessor,
  type PreprocessConfig,
} from "../clip/config.ts";
import { Tokenizer } from "../clip/tokenizer.ts";
import { isOpenai, type PrecisionChoice } from "../clip/weights.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { openFile, reasonOf } from "./file_source.ts";
import { resolveModel, type ResolveOptions } from "./hub.ts";

/** Where the model is that comes with the project. */
export const EMBEDDED_MODEL: URL = new URL("../clip/emoji-clip-tiny/", import.meta.url);

/** Where to look, besides the model's own directory, and how to load. */
export interface OpenOptions extends ResolveOptions {
  /** The directory of the tokenizer's files, for a model that comes without. */
  readonly tokenizer?: string;
  /** How the model's matrices are stored on the GPU; as in its files by default. */
  readonly precision?: PrecisionChoice;
}

/** A model with what turns words and pictures into its inputs. */
export interface OpenedModel {
  /** The model. */
  readonly clip: Clip;
  /** Its tokenizer. */
  readonly tokenizer: Tokenizer;
  /** How its images are prepared. */
  readonly preprocess: PreprocessConfig;
  /** The directory or file that it was read from. */
  readonly path: string;
}

/**
 * Opens a model: a directory in Hugging Face's layout, one safetensors file with openai/CLIP's names (its tokenizer's
 * files beside it), or a hub id.
 *
 * @throws {Error} In one line, if anything is missing, broken or does not fit.
 */
export async function openModel(spec: string, options: OpenOptions = {}): Promise<OpenedModel> {
  const path = await resolveModel(spec, options);
  const isFile = (await Deno.stat(path)).isFile;
  const directory = isFile ? dirname(path) : path;
  const sources = await Promise.all((isFile ? [path] : await weightFiles(directory)).map(openFile));
  try {
    const files = await Promise.all(sources.map((source) => SafetensorsFile.open(source)));
    const shapes = new Map(
      files.flatMap(({ tensors }) =>
        [...tensors].map(([name, { shape }]) => [name, shape] as const)
      ),
    );
    const json = await readJson(directory, "config.json");
    const config = json !== null && !(isFile && isOpenai(shapes.keys()))
      ? parseConfig(json)
      : configFromOpenai(shapes);
    const { imageSize } = config.vision;
    const processor = await readJson(directory, "preprocessor_config.json");
    const preprocess = processor === null
      ? openaiPreprocess(imageSize)
      : parsePreprocessor(processor, imageSize);
    if (preprocess.crop !== imageSize) {
      throw new RangeError(
        `Cannot use ${directory}: preprocessor_config.json crops to ${preprocess.crop}, the model takes ${imageSize}`,
      );
    }
    const tokenizer = await openTokenizer(options.tokenizer ?? directory);
    const clip = await Clip.load(config, files, { precision: options.precision });
    return { clip, tokenizer, preprocess, path };
  } finally {
    for (const source of sources) source[Symbol.dispose]();
  }
}

async function weightFiles(directory: string): Promise<string[]> {
  const index = await readJson(directory, "model.safetensors.index.json") as
    | { weight_map?: Record<string, string> }
    | null;
  if (index === null) {
    const path = join(directory, "model.safetensors");
    if (await exists(path)) return [path];
    throw new Error(
      `Cannot find weights in ${directory}: it has neither model.safetensors nor model.safetensors.index.json`,
    );
  }
  const names = [...new Set(Object.values(index.weight_map ?? {}))];
  if (names.length === 0 || names.some((name) => typeof name !== "string" || /[/\\]/.test(name))) {
    throw new Error(
      `Cannot read ${
        join(directory, "model.safetensors.index.json")
      }: its weight_map names no files`,
    );
  }
  return names.sort().map((name) => join(directory, name));
}

async function openTokenizer(directory: string): Promise<Tokenizer> {
  const vocabulary = await readJson(directory, "vocab.json");
  const merges = await readText(directory, "merges.txt");
  if (vocabulary !== null && merges !== null) {
    return Tokenizer.fromVocabulary(vocabulary as Record<string, number>, merges);
  }
  const whole = await readJson(directory, "tokenizer.json");
  if (whole !== null) return Tokenizer.fromTokenizerJson(whole);
  throw new Error(
    `Cannot find a tokenizer in ${directory}: it has neither vocab.json with merges.txt nor tokenizer.json, ` +
      "name a directory that has with --tokenizer",
  );
}

/** Whether a path leads to something. */
export async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

async function readText(directory: string, name: string): Promise<string | null> {
  const path = join(directory, name);
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new Error(`Cannot read ${path}: ${reasonOf(error)}`);
  }
}

/** The content of a JSON file, or null where there is none. */
export async function readJson(directory: string, name: string): Promise<unknown> {
  const content = await readText(directory, name);
  if (content === null) return null;
  try {
    return JSON.parse(content);
  } catch (error) {
    throw new Error(
      `Cannot read ${join(directory, name)}: it is not JSON (${(error as Error).message})`,
    );
  }
}
