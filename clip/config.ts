/**
 * The sizes of a CLIP model and how its images are prepared: read from Hugging Face's JSON files, inferred from OpenAI's
 * weights, or known by a published model's name.
 *
 * @module
 */

import type { Shape } from "../tensor/shape.ts";

const ACTIVATIONS: readonly Activation[] = ["quick_gelu", "gelu", "gelu_new"];

/** The activation of a tower's MLPs: `x · sigmoid(1.702 x)`, exact GELU, or its tanh approximation. */
export type Activation = "quick_gelu" | "gelu" | "gelu_new";

/** The sizes of a transformer. */
export interface TowerConfig {
  /** Width of the hidden states. */
  readonly width: number;
  /** How many blocks there are. */
  readonly layers: number;
  /** Attention heads; they divide the width. */
  readonly heads: number;
  /** Width inside the MLPs. */
  readonly mlpWidth: number;
  /** What the MLPs apply in between. */
  readonly activation: Activation;
  /** The ε of the layer norms. */
  readonly layerNormEps: number;
}

/** The sizes of the image tower. */
export interface VisionConfig extends TowerConfig {
  /** Height and width of the images, in pixels. */
  readonly imageSize: number;
  /** Height and width of a patch, in pixels. */
  readonly patchSize: number;
}

/** The sizes of the text tower. */
export interface TextConfig extends TowerConfig {
  /** How many tokens there are. */
  readonly vocabulary: number;
  /** The most tokens of a prompt. */
  readonly context: number;
  /** The id that ends a text. */
  readonly endToken: number;
  /** Where a text ends: at its largest id, or where `endToken` first stands. */
  readonly endRule: "largest-id" | "first-end";
}

/** The sizes of a CLIP model. */
export interface ClipConfig {
  /** The image tower. */
  readonly vision: VisionConfig;
  /** The text tower. */
  readonly text: TextConfig;
  /** Width of the space that both project into. */
  readonly embedding: number;
}

/** How an image becomes a tower's input. */
export interface PreprocessConfig {
  /** What the shorter side is resized to, in pixels. */
  readonly resize: number;
  /** Height and width of the crop from the middle, in pixels. */
  readonly crop: number;
  /** What is taken off red, green and blue, of values from 0 to 1. */
  readonly mean: readonly [number, number, number];
  /** What they are then divided by. */
  readonly std: readonly [number, number, number];
  /** How half a pixel of the crop's corner is rounded: to even, as torchvision does, or down, as Hugging Face does. */
  readonly cropRule: "round" | "floor";
}

type Json = Readonly<Record<string, unknown>>;

/** Hugging Face's `eos_token_id` of old checkpoints, which means that a text ends at its largest id. */
const LEGACY_END = 2;
const LAST_TOKEN = 49407;

/**
 * Reads Hugging Face's `config.json` of a `CLIPModel`. What it leaves out has the value that Transformers gives it
 * (`configuration_clip.py`).
 *
 * @throws {RangeError} If it is not a CLIP's, or a size is impossible.
 */
export function parseConfig(json: unknown): ClipConfig {
  const root = object(json, "config.json", "the file");
  if (root.model_type !== "clip") {
    throw wrong("config.json", "model_type", root.model_type, '"clip"');
  }
  const part = (name: string) =>
    object(root[name] ?? root[`${name}_dict`] ?? {}, "config.json", name);
  const [text, vision] = [part("text_config"), part("vision_config")];
  const whole = (json: Json, section: string, name: string, preset: number) =>
    positive(json[name] ?? preset, `${section}.${name}`);
  const tower = (
    json: Json,
    section: string,
    width: number,
    mlp: number,
    heads: number,
  ): TowerConfig => {
    const sizes = {
      width: whole(json, section, "hidden_size", width),
      layers: whole(json, section, "num_hidden_layers", 12),
      heads: whole(json, section, "num_attention_heads", heads),
      mlpWidth: whole(json, section, "intermediate_size", mlp),
    };
    if (sizes.width % sizes.heads !== 0) {
      throw wrong(
        "config.json",
        `${section}.num_attention_heads`,
        sizes.heads,
        `a divisor of the width ${sizes.width}`,
      );
    }
    const activation = json.hidden_act ?? "quick_gelu";
    if (!ACTIVATIONS.includes(activation as Activation)) {
      throw wrong("config.json", `${section}.hidden_act`, activation, ACTIVATIONS.join(", "));
    }
    const layerNormEps = json.layer_norm_eps ?? 1e-5;
    if (typeof layerNormEps !== "number" || !(layerNormEps > 0)) {
      throw wrong("config.json", `${section}.layer_norm_eps`, layerNormEps, "a positive number");
    }
    return { ...sizes, activation: activation as Activation, layerNormEps };
  };
  const channels = vision.num_channels ?? 3;
  if (channels !== 3) throw wrong("config.json", "vision_config.num_channels", channels, "3");
  const visionConfig: VisionConfig = {
    ...tower(vision, "vision_config", 768, 3072, 12),
    imageSize: whole(vision, "vision_config", "image_size", 224),
    patchSize: whole(vision, "vision_config", "patch_size", 32),
  };
  if (visionConfig.patchSize > visionConfig.imageSize) {
    const most = `at most the image size ${visionConfig.imageSize}`;
    throw wrong("config.json", "vision_config.patch_size", visionConfig.patchSize, most);
  }
  const vocabulary = whole(text, "text_config", "vocab_size", 49408);
  const end = text.eos_token_id ?? LAST_TOKEN;
  if (!Number.isSafeInteger(end) || (end as number) < 0) {
    throw wrong("config.json", "text_config.eos_token_id", end, "a token's number");
  }
  return {
    vision: visionConfig,
    text: {
      ...tower(text, "text_config", 512, 2048, 8),
      vocabulary,
      context: whole(text, "text_config", "max_position_embeddings", 77),
      endToken: end as number,
      endRule: end === LEGACY_END ? "largest-id" : "first-end",
    },
    embedding: whole(root, "", "projection_dim", 512),
  };
}

/**
 * The sizes of a model from the names and shapes of openai/CLIP's state dict (`build_model` of its `clip/model.py`).
 *
 * @throws {RangeError} If they are not those of a ViT CLIP.
 */
export function configFromOpenai(shapes: ReadonlyMap<string, Shape>): ClipConfig {
  if (shapes.has("visual.layer1.0.conv1.weight")) {
    throw new RangeError(
      "Cannot load the model: it is a ResNet CLIP, only those with a vision transformer are supported",
    );
  }
  const shape = (name: string, rank: number) => {
    const found = shapes.get(name);
    if (found?.length === rank && found.every((size) => size > 0)) return found;
    const what = found ? `is [${found}]` : "is missing";
    throw new RangeError(
      `Cannot load the model: "${name}" ${what}, it needs a config.json beside it or the names of openai/CLIP's weights`,
    );
  };
  const blocks = (prefix: string) => {
    const numbers = [...shapes.keys()]
      .map((name) =>
        name.startsWith(prefix) ? /^(\d+)\./.exec(name.slice(prefix.length))?.[1] : undefined
      )
      .filter((number) => number !== undefined);
    return new Set(numbers).size;
  };
  const [width, , patchSize] = shape("visual.conv1.weight", 4);
  const [positions] = shape("visual.positional_embedding", 2);
  const [context, textWidth] = shape("positional_embedding", 2);
  const [vocabulary] = shape("token_embedding.weight", 2);
  const [, embedding] = shape("text_projection", 2);
  const tower = (width: number, prefix: string): TowerConfig => ({
    width,
    layers: blocks(prefix),
    heads: Math.max(1, Math.floor(width / 64)),
    mlpWidth: shape(`${prefix}0.mlp.c_fc.weight`, 2)[0],
    activation: "quick_gelu",
    layerNormEps: 1e-5,
  });
  return {
    vision: {
      ...tower(width, "visual.transformer.resblocks."),
      imageSize: Math.round(Math.sqrt(positions - 1)) * patchSize,
      patchSize,
    },
    text: {
      ...tower(textWidth, "transformer.resblocks."),
      vocabulary,
      context,
      endToken: vocabulary - 1,
      endRule: "largest-id",
    },
    embedding,
  };
}

/** What openai/CLIP takes off its pixels, and divides them by. */
const MEAN = [0.48145466, 0.4578275, 0.40821073] as const;
const STD = [0.26862954, 0.26130258, 0.27577711] as const;

/** How openai/CLIP prepares images of a size (`_transform` of its `clip/clip.py`). */
export function openaiPreprocess(imageSize: number): PreprocessConfig {
  return { resize: imageSize, crop: imageSize, mean: MEAN, std: STD, cropRule: "round" };
}

/**
 * Reads Hugging Face's `preprocessor_config.json`; what it leaves out is as `CLIPImageProcessor` has it, for a model of
 * the given image size.
 *
 * @throws {RangeError} If it asks for what is not done here: another filter than bicubic, no resizing, no crop.
 */
export function parsePreprocessor(json: unknown, imageSize: number): PreprocessConfig {
  const file = "preprocessor_config.json";
  const root = object(json, file, "the file");
  for (const step of ["do_resize", "do_center_crop", "do_rescale", "do_normalize"]) {
    if (root[step] === false) throw wrong(file, step, false, "true");
  }
  if ((root.resample ?? 3) !== 3) throw wrong(file, "resample", root.resample, "3, bicubic");
  const factor = root.rescale_factor ?? 1 / 255;
  if (typeof factor !== "number" || Math.abs(factor * 255 - 1) > 1e-6) {
    throw wrong(file, "rescale_factor", factor, "1/255");
  }
  const side = (value: unknown, name: string, keys: readonly string[]): number => {
    if (typeof value !== "object" || value === null) {
      return positive(value ?? imageSize, name, file);
    }
    const sizes = keys.map((key) => (value as Json)[key]).filter((size) => size !== undefined);
    if (new Set(sizes).size !== 1) {
      throw wrong(file, name, JSON.stringify(value), "one size, of a square");
    }
    return positive(sizes[0], name, file);
  };
  const colours = (name: string, preset: readonly number[]) => {
    const values = root[name] ?? preset;
    const proper = Array.isArray(values) && values.length === 3 &&
      values.every((v) => Number.isFinite(v));
    if (!proper || (name === "image_std" && values.includes(0))) {
      throw wrong(file, name, JSON.stringify(values), "three numbers");
    }
    return values as unknown as readonly [number, number, number];
  };
  return {
    resize: side(root.size, "size", ["shortest_edge"]),
    crop: side(root.crop_size, "crop_size", ["height", "width"]),
    mean: colours("image_mean", MEAN),
    std: colours("image_std", STD),
    cropRule: "floor",
  };
}

function published(patchSize: number, imageSize: number, large: boolean): ClipConfig {
  const tower = (width: number, layers: number): TowerConfig => ({
    width,
    layers,
    heads: width / 64,
    mlpWidth: 4 * width,
    activation: "quick_gelu",
    layerNormEps: 1e-5,
  });
  return {
    vision: { ...(large ? tower(1024, 24) : tower(768, 12)), imageSize, patchSize },
    text: {
      ...tower(large ? 768 : 512, 12),
      vocabulary: LAST_TOKEN + 1,
      context: 77,
      endToken: LAST_TOKEN,
      endRule: "largest-id",
    },
    embedding: large ? 768 : 512,
  };
}

/** The models that OpenAI published with a vision transformer, by name (`model-card.md` of openai/CLIP). */
export const ARCHITECTURES: Readonly<Record<string, ClipConfig>> = {
  "vit-b-32": published(32, 224, false),
  "vit-b-16": published(16, 224, false),
  "vit-l-14": published(14, 224, true),
  "vit-l-14-336": published(14, 336, true),
};

function wrong(file: string, name: string, value: unknown, wanted: string): RangeError {
  const shown = typeof value === "string" && !value.startsWith("{") ? `"${value}"` : String(value);
  return new RangeError(
    `Cannot read ${file}: ${name.replace(/^\./, "")} is ${shown}, expected ${wanted}`,
  );
}

function object(value: unknown, file: string, name: string): Json {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw new RangeError(`Cannot read ${file}: ${name} is not a JSON object`);
}

function positive(value: unknown, name: string, file = "config.json"): number {
  if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
  throw wrong(file, name, value, "a positive whole number");
}
