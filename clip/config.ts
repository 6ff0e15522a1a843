/**
 * The sizes of a CLIP model and its image preprocessing. They are read from Hugging Face's JSON
 * files, inferred from OpenAI's weights, or looked up by the name of a published model.
 *
 * @module
 */

import type { Shape } from "../tensor/shape.ts";
import { type Json, LARGEST_IMAGE, MOST_LAYERS, object, positive, triple, wrong } from "./json.ts";

const ACTIVATIONS: readonly Activation[] = ["quick_gelu", "gelu", "gelu_new"];

/**
 * The activation of a tower's MLPs: `x · sigmoid(1.702 x)`, exact GELU, or its tanh approximation.
 */
export type Activation = "quick_gelu" | "gelu" | "gelu_new";

/** The sizes of a transformer. */
export interface TowerConfig {
  /** Width of the hidden states. */
  readonly width: number;
  /** Number of blocks. */
  readonly layers: number;
  /** Number of attention heads, a divisor of the width. */
  readonly heads: number;
  /** Width of the hidden layer of each MLP. */
  readonly mlpWidth: number;
  /** The activation of the MLPs. */
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
  /** Number of tokens in the vocabulary. */
  readonly vocabulary: number;
  /** The largest number of tokens in a prompt. */
  readonly context: number;
  /** The id of the end-of-text token. */
  readonly endToken: number;
  /** Where a text ends: at its largest id, or at the first `endToken`. */
  readonly endRule: "largest-id" | "first-end";
}

/** The sizes of a CLIP model. */
export interface ClipConfig {
  /** The image tower. */
  readonly vision: VisionConfig;
  /** The text tower. */
  readonly text: TextConfig;
  /** Width of the embedding space that both towers project into. */
  readonly embedding: number;
}

/** How an image is turned into the input of a tower. */
export interface PreprocessConfig {
  /** The size that the shorter side is resized to, in pixels. */
  readonly resize: number;
  /** Height and width of the central crop, in pixels. */
  readonly crop: number;
  /** The mean that is subtracted from red, green and blue. Their values range from 0 to 1. */
  readonly mean: readonly [number, number, number];
  /** The standard deviation that the differences are divided by. */
  readonly std: readonly [number, number, number];
  /**
   * How a crop that would begin at half a pixel is rounded: to even (`"round"`, as in torchvision)
   * or down (`"floor"`, as in Hugging Face's processor).
   */
  readonly cropRule: "round" | "floor";
}

/**
 * The `eos_token_id` of Hugging Face's old checkpoints. It means that a text ends at its largest
 * id.
 */
const LEGACY_END = 2;
const LAST_TOKEN = 49407;
const CONFIG = "config.json";
const PREPROCESSOR = "preprocessor_config.json";

/**
 * Reads Hugging Face's `config.json` of a `CLIPModel`. Fields that it omits take the defaults of
 * Transformers (`configuration_clip.py`).
 *
 * @throws {RangeError} If the file does not describe a CLIP model, or a size is impossible.
 */
export function parseConfig(json: unknown): ClipConfig {
  const root = object(json, CONFIG, "the file");
  if (root.model_type !== "clip") throw wrong(CONFIG, "model_type", root.model_type, '"clip"');
  const [vision, visionName] = section(root, "vision_config");
  const [text, textName] = section(root, "text_config");
  const { num_channels: channels = 3 } = vision;
  if (channels !== 3) throw wrong(CONFIG, `${visionName}.num_channels`, channels, "3");
  const imageSize = size(vision, visionName, "image_size", 224, LARGEST_IMAGE);
  const patchSize = size(vision, visionName, "patch_size", 32);
  if (patchSize > imageSize) {
    const most = `at most the image size, ${imageSize}`;
    throw wrong(CONFIG, `${visionName}.patch_size`, patchSize, most);
  }
  const { eos_token_id: endToken = LAST_TOKEN } = text;
  if (!Number.isSafeInteger(endToken) || endToken as number < 0) {
    throw wrong(CONFIG, `${textName}.eos_token_id`, endToken, "a token's number");
  }
  return {
    vision: { ...tower(vision, visionName, 768, 12), imageSize, patchSize },
    text: {
      ...tower(text, textName, 512, 8),
      vocabulary: size(text, textName, "vocab_size", LAST_TOKEN + 1),
      context: size(text, textName, "max_position_embeddings", 77),
      endToken: endToken as number,
      endRule: endToken === LEGACY_END ? "largest-id" : "first-end",
    },
    embedding: size(root, "", "projection_dim", 512),
  };
}

/**
 * A tower's section of the file, and the name of the section. If an old file has two, the one whose
 * name ends in `_dict` counts.
 */
function section(root: Json, name: string): [Json, string] {
  const old = `${name}_dict`;
  const used = root[old] == null ? name : old;
  return [object(root[used] ?? {}, CONFIG, used), used];
}

function tower(json: Json, section: string, width: number, heads: number): TowerConfig {
  const sizes = {
    width: size(json, section, "hidden_size", width),
    layers: size(json, section, "num_hidden_layers", 12, MOST_LAYERS),
    heads: size(json, section, "num_attention_heads", heads),
    mlpWidth: size(json, section, "intermediate_size", 4 * width),
  };
  if (sizes.width % sizes.heads !== 0) {
    const divisor = `a divisor of the width, ${sizes.width}`;
    throw wrong(CONFIG, `${section}.num_attention_heads`, sizes.heads, divisor);
  }
  const { hidden_act: activation = "quick_gelu", layer_norm_eps: layerNormEps = 1e-5 } = json;
  if (!ACTIVATIONS.includes(activation as Activation)) {
    throw wrong(CONFIG, `${section}.hidden_act`, activation, `one of ${ACTIVATIONS.join(", ")}`);
  }
  if (typeof layerNormEps !== "number" || !(layerNormEps > 0 && layerNormEps < Infinity)) {
    throw wrong(CONFIG, `${section}.layer_norm_eps`, layerNormEps, "a positive number");
  }
  return { ...sizes, activation: activation as Activation, layerNormEps };
}

function size(json: Json, section: string, key: string, preset: number, most?: number): number {
  const name = section ? `${section}.${key}` : key;
  return positive(key in json ? json[key] : preset, name, CONFIG, most);
}

/**
 * Infers the sizes of a model from the names and shapes of openai/CLIP's state dict. Like
 * `build_model` of its `clip/model.py`, it assumes heads that are 64 wide.
 *
 * @throws {RangeError} If the names and shapes are not those of a ViT CLIP.
 */
export function configFromOpenai(shapes: ReadonlyMap<string, Shape>): ClipConfig {
  const fail = (why: string) => new RangeError(`Cannot load the model: ${why}`);
  const names = [...shapes.keys()];
  if (names.some((name) => /^visual\.(layer\d|attnpool)\./.test(name))) {
    throw fail("it is a ResNet CLIP; only ViT CLIPs are supported");
  }
  const shapeOf = (name: string, rank: number) => {
    const shape = shapes.get(name);
    if (shape?.length === rank && shape.every((size) => size > 0)) return shape;
    throw fail(
      `"${name}" ${shape ? `is [${shape}]` : "is missing"}, ` +
        "it needs a config.json beside it or the names of openai/CLIP's weights",
    );
  };
  const tower = (width: number, prefix: string, source: string): TowerConfig => {
    const heads = Math.floor(width / 64);
    if (width % heads !== 0) {
      throw fail(`"${source}" is ${width} wide, which ${heads} heads do not divide`);
    }
    const blocks = names.filter((name) =>
      name.startsWith(prefix) && name.endsWith(".attn.in_proj_weight")
    );
    const [mlpWidth] = shapeOf(`${prefix}0.mlp.c_fc.weight`, 2);
    return {
      width,
      layers: blocks.length,
      heads,
      mlpWidth,
      activation: "quick_gelu",
      layerNormEps: 1e-5,
    };
  };
  const patch = shapeOf("visual.conv1.weight", 4);
  const [width, channels, patchSize] = patch;
  if (channels !== 3 || patch[3] !== patchSize) {
    throw fail(`"visual.conv1.weight" is [${patch}], expected square patches of 3 channels`);
  }
  const [positions] = shapeOf("visual.positional_embedding", 2);
  const across = Math.round(Math.sqrt(positions - 1));
  if (across === 0 || across ** 2 !== positions - 1) {
    throw fail(
      `"visual.positional_embedding" has ${positions} rows, expected one more than a square`,
    );
  }
  const [context, textWidth] = shapeOf("positional_embedding", 2);
  const [vocabulary] = shapeOf("token_embedding.weight", 2);
  const [, embedding] = shapeOf("text_projection", 2);
  return {
    vision: {
      ...tower(width, "visual.transformer.resblocks.", "visual.conv1.weight"),
      imageSize: across * patchSize,
      patchSize,
    },
    text: {
      ...tower(textWidth, "transformer.resblocks.", "positional_embedding"),
      vocabulary,
      context,
      endToken: vocabulary - 1,
      endRule: "largest-id",
    },
    embedding,
  };
}

/** The mean and the standard deviation with which openai/CLIP normalizes pixels. */
const MEAN = [0.48145466, 0.4578275, 0.40821073] as const;
const STD = [0.26862954, 0.26130258, 0.27577711] as const;

/**
 * How openai/CLIP prepares images for a model of that image size (`_transform` of its
 * `clip/clip.py`).
 */
export function openaiPreprocess(imageSize: number): PreprocessConfig {
  return { resize: imageSize, crop: imageSize, mean: MEAN, std: STD, cropRule: "round" };
}

/** The names that Hugging Face's files give to the classes that preprocess a CLIP's images. */
const PROCESSORS: readonly unknown[] = [
  "CLIPImageProcessor",
  "CLIPImageProcessorFast",
  "CLIPImageProcessorPil",
  "CLIPFeatureExtractor",
];

/**
 * Reads Hugging Face's `preprocessor_config.json`, or the `image_processor` section of a
 * `processor_config.json`. `file` is the name that errors give it. Sizes that it omits are
 * `imageSize`; other omitted fields take the defaults of `CLIPImageProcessor`.
 *
 * @throws {RangeError} If the file is not a CLIP's, or asks for what is not supported, such as a
 * filter other than bicubic, no resizing or no crop.
 */
export function parsePreprocessor(
  json: unknown,
  imageSize: number,
  file: string = PREPROCESSOR,
): PreprocessConfig {
  const root = object(json, file, "the file");
  for (const name of ["image_processor_type", "feature_extractor_type"]) {
    if (root[name] == null || PROCESSORS.includes(root[name])) continue;
    throw wrong(file, name, root[name], `"${PROCESSORS[0]}"`);
  }
  for (const step of ["do_resize", "do_center_crop", "do_rescale", "do_normalize"]) {
    if (step in root && root[step] !== true) throw wrong(file, step, root[step], "true");
  }
  for (const step of ["do_pad", "use_square_size"]) {
    if (root[step]) throw wrong(file, step, root[step], "false");
  }
  const { resample = 3, rescale_factor: factor = 1 / 255 } = root;
  if (resample !== 3) throw wrong(file, "resample", resample, "3, bicubic");
  if (typeof factor !== "number" || !(Math.abs(factor * 255 - 1) < 1e-6)) {
    throw wrong(file, "rescale_factor", factor, "1/255");
  }
  return {
    resize: side(root, "size", ["shortest_edge"], imageSize, file),
    crop: side(root, "crop_size", ["height", "width"], imageSize, file),
    mean: triple(root.image_mean ?? MEAN, "image_mean", file),
    std: triple(root.image_std ?? STD, "image_std", file, Number.MIN_VALUE),
    cropRule: "floor",
  };
}

/** Reads a size: a number, or an object that has exactly `keys`, all with the same value. */
function side(
  root: Json,
  name: string,
  keys: readonly string[],
  preset: number,
  file: string,
): number {
  const value = root[name] ?? preset;
  if (typeof value !== "object") return positive(value, name, file, LARGEST_IMAGE);
  const given = Object.entries(value as Json).filter(([, size]) => size !== null);
  const fits = given.length === keys.length && keys.every((key) => key in (value as Json));
  if (!fits || given.some(([, size]) => size !== given[0][1])) {
    const layout = keys.length > 1 ? `{${keys}} of a square` : `{${keys}}`;
    throw wrong(file, name, value, `a number or ${layout}`);
  }
  return positive(given[0][1], `${name}.${given[0][0]}`, file, LARGEST_IMAGE);
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

/**
 * OpenAI's published models with a vision transformer, by name (`model-card.md` of openai/CLIP).
 */
export const ARCHITECTURES: Readonly<Record<string, ClipConfig>> = {
  "vit-b-32": published(32, 224, false),
  "vit-b-16": published(16, 224, false),
  "vit-l-14": published(14, 224, true),
  "vit-l-14-336": published(14, 336, true),
};
