/**
 * Which of the files that lie together are a model: in Hugging Face's layout or in open_clip's.
 *
 * @module
 */

import { join } from "node:path";
import { CLIP_FAMILY } from "../../clip/clip.ts";
import { familyOf } from "../../clip/families.ts";
import { isObject } from "../../clip/json.ts";
import { namesIn, readJson } from "../system/files.ts";

/** Files that come with the weights, of which a model may lack some. */
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

/** Where the weights may be, in the order in which transformers and open_clip look. */
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

/** Every file that a model may be made of, but for the shards that an index names. */
export const MODEL_FILES: readonly string[] = [
  ...SMALL_FILES,
  ...new Set([...WEIGHTS.transformers, ...WEIGHTS.open_clip]),
];

/** How the files of a model are laid out. */
export interface Layout {
  /** Whose files they are. */
  readonly kind: keyof typeof WEIGHTS;
  /** The file of the weights, or the index of several. */
  readonly weights: string;
}

/**
 * The layout of files that lie together, null if there are no weights among them. `config` is the
 * parsed `config.json`, null without one: open_clip's models often have one of another kind.
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

/** Whether a file is the index of several. */
export function isIndex(name: string): boolean {
  return name.endsWith(".index.json");
}

/**
 * The files that an index names.
 *
 * @throws {Error} If it names none, or some that are not beside it.
 */
export async function shardsOf(directory: string, name: string): Promise<string[]> {
  const index = await readJson(directory, name);
  const map = isObject(index) ? index.weight_map : undefined;
  const shards: unknown[] = [...new Set(Object.values(isObject(map) ? map : {}))];
  // A name becomes a path, and may not lead out of the directory.
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
 * The layout of a directory whose weights may be in another.
 *
 * @throws {Error} If there are no weights, or they are of another kind of model.
 */
export async function layoutIn(directory: string, weights: string): Promise<Layout> {
  const names = [...await namesIn(directory), ...await namesIn(weights)];
  const config = await readJson(directory, "config.json");
  const layout = layoutOf(names, config);
  if (layout) return layout;
  // A model of another kind is refused as that, and not for its lack of weights.
  if (config !== null && !names.includes("open_clip_config.json")) CLIP_FAMILY.define(config);
  throw new Error(
    `Cannot find weights in ${directory}: ` +
      "it has neither model.safetensors nor model.safetensors.index.json, " +
      "nor pytorch_model.bin or its index, " +
      "nor open_clip_config.json with open_clip_model.safetensors",
  );
}

/** The files of the weights in a directory that is laid out so. */
export async function weightPaths(directory: string, { weights }: Layout): Promise<string[]> {
  const names = isIndex(weights) ? await shardsOf(directory, weights) : [weights];
  return names.map((name) => join(directory, name));
}
