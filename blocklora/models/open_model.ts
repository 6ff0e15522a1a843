/**
 * A model from a directory, a file or the hub.
 *
 * @module
 */

import { dirname, join, resolve } from "node:path";
import { Clip } from "../../clip/clip.ts";
import {
  type ClipConfig,
  configFromOpenai,
  openaiPreprocess,
  parseConfig,
  parsePreprocessor,
  type PreprocessConfig,
} from "../../clip/config.ts";
import { isObject } from "../../clip/json.ts";
import { parseOpenClip } from "../../clip/open_clip.ts";
import { Tokenizer } from "../../clip/tokenizer.ts";
import { addedTokens } from "../../clip/tokenizer_json.ts";
import { isOpenai } from "../../clip/openai_weights.ts";
import type { PrecisionChoice } from "../../clip/weights.ts";
import { SafetensorsFile } from "../../tensor/safetensors.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { ByteSource, TensorFile } from "../../tensor/tensor_file.ts";
import { TorchFile } from "../../tensor/torch_file.ts";
import { namesIn, openFile, readJson, readText } from "../system/files.ts";
import { resolveModel, type ResolveOptions } from "./hub.ts";
import type { HubRevision } from "./hub_cache.ts";
import { isClip, isIndex, type Layout, layoutOf, shardsOf } from "./model_files.ts";

/** Where the model is that comes with the project. */
export const EMBEDDED_MODEL: URL = new URL("../../clip/emoji-clip-tiny/", import.meta.url);

/** Where to look, besides the model's own directory, and how to load. */
export interface OpenOptions extends ResolveOptions {
  /** The directory of the tokenizer's files, for a model that comes without. */
  readonly tokenizer?: string;
  /** How the model's matrices are stored on the GPU; as in its files by default. */
  readonly precision?: PrecisionChoice;
  /** Told what the model's files leave open, and what is assumed then. */
  readonly onNote?: (note: string) => void;
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
  /** The directory of what describes it. */
  readonly directory: string;
  /** Whose files describe it; `"openai"` if none do. */
  readonly kind: Kind;
  /**
   * The revision of the hub that this is a copy of; null for a model that was named by its path.
   */
  readonly hub: HubRevision | null;
  /**
   * Tells it from every other: a hash of its sizes, its tokenizer, how its images are prepared, and
   * its weights.
   */
  readonly fingerprint: string;
}

/**
 * Opens a model: a directory in Hugging Face's layout or open_clip's, one file of weights with what
 * belongs to it beside it, or a hub id. Weights are safetensors or PyTorch's; a file with
 * openai/CLIP's names needs no configuration.
 *
 * @throws {Error} In one line, if anything is missing, broken or does not fit.
 */
export async function openModel(spec: string, options: OpenOptions = {}): Promise<OpenedModel> {
  const { path, weights, hub } = await resolveModel(spec, options);
  const isFile = (await Deno.stat(path)).isFile;
  const directory = isFile ? dirname(path) : path;
  const layout = isFile ? null : await layoutIn(directory, weights);
  const sources = await openAll(layout ? await pathsOf(weights, layout) : [path]);
  try {
    const files = await Promise.all(sources.map(openTensors));
    const stated = await readStated(directory);
    const shapes = shapesOf(files);
    const kind = layout?.kind ?? kindOfFile(shapes.keys(), stated);
    const config = kind === "openai" ? configFromOpenai(shapes) : configOf(kind, stated);
    const { imageSize } = config.vision;
    const stating = preprocessOf(kind, stated, imageSize);
    const preprocess = stating ?? openaiPreprocess(imageSize);
    if (kind === "openai") {
      options.onNote?.(
        `${path} comes without a configuration: it is taken for one of openai/CLIP's`,
      );
    } else if (!stating) {
      options.onNote?.(
        `${directory} has no preprocessor_config.json: its images are prepared as openai/CLIP's`,
      );
    }
    if (preprocess.crop !== imageSize) {
      throw new RangeError(
        `Cannot use ${directory}: its images are cropped to ${preprocess.crop}, the model takes ${imageSize}`,
      );
    }
    const { tokenizer, content } = await openTokenizer(options.tokenizer ?? directory);
    const settings = JSON.stringify({ config, preprocess, content });
    const [clip, fingerprint] = await Promise.all([
      Clip.load(config, files, { precision: options.precision }),
      fingerprintOf(sources, settings),
    ]);
    const paths = { path: resolve(path), directory: resolve(directory) };
    return { clip, tokenizer, preprocess, ...paths, kind, hub, fingerprint };
  } finally {
    for (const source of sources) source[Symbol.dispose]();
  }
}

/** How a directory is laid out whose weights may be in another. */
async function layoutIn(directory: string, weights: string): Promise<Layout> {
  const names = [...await namesIn(directory), ...await namesIn(weights)];
  const config = await readJson(directory, "config.json");
  const layout = layoutOf(names, config);
  if (layout) return layout;
  // Of another kind of model, and not merely without its weights?
  if (config !== null && !names.includes("open_clip_config.json")) parseConfig(config);
  throw new Error(
    `Cannot find weights in ${directory}: it has neither model.safetensors nor model.safetensors.index.json, ` +
      "nor pytorch_model.bin or its index, nor open_clip_config.json with open_clip_model.safetensors",
  );
}

async function pathsOf(directory: string, { weights }: Layout): Promise<string[]> {
  const names = isIndex(weights) ? await shardsOf(directory, weights) : [weights];
  return names.map((name) => join(directory, name));
}

type OpenFile = ByteSource & Disposable;

async function openAll(paths: readonly string[]): Promise<OpenFile[]> {
  const opened = await Promise.allSettled(paths.map(openFile));
  const sources = opened.flatMap((file) => file.status === "fulfilled" ? [file.value] : []);
  const failed = opened.find((file) => file.status === "rejected");
  if (!failed) return sources;
  for (const source of sources) source[Symbol.dispose]();
  throw failed.reason;
}

/** Opens a file of tensors by what it holds, whatever it is called. */
export async function openTensors(source: ByteSource): Promise<TensorFile> {
  const [first, second, , , , , , , ninth] = await source.read(0, Math.min(9, source.size));
  const isZip = first === 0x50 && second === 0x4B;
  const isPickle = first === 0x80;
  // Safetensors begin with eight bytes of any value, then a bracket.
  if (ninth !== 0x7B && (isZip || isPickle)) return await TorchFile.open(source);
  return await SafetensorsFile.open(source);
}

/** The shapes of all tensors of some files, by name. */
export function shapesOf(files: readonly TensorFile[]): Map<string, Shape> {
  return new Map(
    files.flatMap(({ tensors }) => [...tensors].map(([name, { shape }]) => [name, shape] as const)),
  );
}

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
 * Whose files describe a file of weights: a file of openai/CLIP's may lie beside the configuration
 * of any other model.
 */
export function kindOfFile(names: Iterable<string>, { config, openClip }: Stated): Kind {
  if (!isOpenai(names)) return config === null ? "openai" : "transformers";
  return openClip !== null ? "open_clip" : isClip(config) ? "transformers" : "openai";
}

type Kind = Layout["kind"] | "openai";

/**
 * The sizes of a model, as the files of one kind state them; if neither is asked for, those of a
 * CLIP count first.
 */
export function configOf(kind: Layout["kind"] | null, { config, openClip }: Stated): ClipConfig {
  const isOpenClip = kind === "open_clip" || (!kind && !isClip(config) && openClip !== null);
  return isOpenClip ? parseOpenClip(openClip).config : parseConfig(config);
}

function preprocessOf(
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

/** The tokenizer in a directory, and all that makes it what it is. */
async function openTokenizer(
  directory: string,
): Promise<{ tokenizer: Tokenizer; content: unknown }> {
  const config = await readJson(directory, "tokenizer_config.json");
  const listed = await readJson(directory, "added_tokens.json");
  const added = addedTokens(config, listed);
  const whole = await readJson(directory, "tokenizer.json");
  if (whole !== null) {
    return { tokenizer: Tokenizer.fromTokenizerJson(whole, added), content: [whole, added] };
  }
  const vocabulary = await readJson(directory, "vocab.json");
  const merges = await readText(directory, "merges.txt");
  if (vocabulary !== null && merges !== null) {
    const tokenizer = Tokenizer.fromVocabulary(vocabulary as Record<string, number>, merges, added);
    return { tokenizer, content: [vocabulary, merges, added] };
  }
  throw new Error(
    `Cannot find a tokenizer in ${directory}: it has neither tokenizer.json nor vocab.json with merges.txt, ` +
      "name a directory that has with --tokenizer",
  );
}

/** Files are hashed in parts of this many bytes, which need not fit into memory together. */
const PART_BYTES = 1 << 24;

/** A hash of settings and of files. */
async function fingerprintOf(sources: readonly ByteSource[], settings: string): Promise<string> {
  const hashes = [await sha256(new TextEncoder().encode(settings))];
  for (const source of sources) {
    for (let at = 0; at < source.size; at += PART_BYTES) {
      hashes.push(await sha256(await source.read(at, Math.min(PART_BYTES, source.size - at))));
    }
    hashes.push(String(source.size));
  }
  return (await sha256(new TextEncoder().encode(hashes.join()))).slice(0, 32);
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}
