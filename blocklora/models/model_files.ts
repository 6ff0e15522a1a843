/**
 * Finds the files of a model in a directory, in Hugging Face's layout or in open_clip's.
 *
 * @module
 */

import { join } from "node:path";
import { CLIP_FAMILY } from "../../clip/clip.ts";
import { familyOf } from "../../clip/families.ts";
import { isObject } from "../../clip/json.ts";
import { namesIn, readJson } from "../system/files.ts";

/** Files that come with the weights. A model may lack some of them. */
export const SMALL_FILES = [
  "config.json",
  "open_clip_config.json",
  "preprocessor_config.json",
  "processor_config.json",
  "tokenizer.json",
  "vocab.json",
  "merges.txt",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
] as const;

/** Possible names of the weight file, in the order in which transformers and open_clip try them. */
const WEIGHTS = {
  transformers: [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
  ],
  open_clip: [
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
  ],
} as const;

/** All files that a model may consist of, except for the shards that an index names. */
export const MODEL_FILES: readonly string[] = [
  ...SMALL_FILES,
  ...new Set([...WEIGHTS.transformers, ...WEIGHTS.open_clip]),
];

/** How the files of a model are laid out. */
export interface Layout {
  /** The library whose layout it is. */
  readonly kind: keyof typeof WEIGHTS;
  /** The file of the weights, or the index of several files. */
  readonly weights: string;
}

/**
 * The layout of the files in a directory; null if there are no weights among them. `config` is the
 * parsed `config.json`, or null. It is needed because open_clip models often have a `config.json`
 * that is not transformers'.
 */
export function layoutOf(names: Iterable<string>, config: unknown): Layout | null {
  const held = new Set(names);
  const kinds = !held.has("open_clip_config.json")
    ? ["transformers"] as const
    : familyOf(config)
    ? ["transformers", "open_clip"] as const
    : ["open_clip"] as const;
  for (const kind of kinds) {
    const weights = WEIGHTS[kind].find((name) => held.has(name));
    if (weights) return { kind, weights };
  }
  return null;
}

/** Whether a file is an index of several weight files. */
export function isIndex(name: string): boolean {
  return name.endsWith(".index.json");
}

/**
 * The weight files that an index names.
 *
 * @throws {Error} If it names no files, or a file that is not in the same directory.
 */
export async function shardsOf(directory: string, name: string): Promise<string[]> {
  const index = await readJson(directory, name);
  const map = isObject(index) ? index.weight_map : undefined;
  const shards: unknown[] = [...new Set(Object.values(isObject(map) ? map : {}))];
  // The names become paths, which must not lead out of the directory.
  const isShard = (shard: unknown) =>
    typeof shard === "string" && /^[\w-][^/\\:]*\.(safetensors|bin)$/.test(shard);
  if (shards.length > 0 && shards.every(isShard)) return (shards as string[]).sort();
  throw new Error(
    `Cannot read ${
      join(directory, name)
    }: its weight_map must name safetensors or bin files beside it`,
  );
}

/**
 * The layout of a model in `directory`. Its weights may be in another directory, `weights`.
 *
 * @throws {Error} If there are no weights, or the model is not a CLIP model.
 */
export async function layoutIn(directory: string, weights: string): Promise<Layout> {
  const names = [...await namesIn(directory), ...await namesIn(weights)];
  const config = await readJson(directory, "config.json");
  const layout = layoutOf(names, config);
  if (layout) return layout;
  // If it is another kind of model, this throws an error that says so, instead of one about missing
  // weights.
  if (config !== null && !names.includes("open_clip_config.json")) CLIP_FAMILY.define(config);
  throw new Error(
    `Cannot find weights in ${directory}: ` +
      "it has neither model.safetensors nor model.safetensors.index.json, " +
      "nor pytorch_model.bin or its index, " +
      "nor open_clip_config.json with open_clip_model.safetensors",
  );
}

/** The paths of the weight files in a directory with the given layout. */
export async function weightPaths(directory: string, { weights }: Layout): Promise<string[]> {
  const names = isIndex(weights) ? await shardsOf(directory, weights) : [weights];
  return names.map((name) => join(directory, name));
}
