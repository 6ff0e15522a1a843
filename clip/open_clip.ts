/**
 * Reads open_clip's files: the sizes of a model and how its images are prepared
 * (github.com/mlfoundations/open_clip, `src/open_clip/model.py` and `transform.py`).
 *
 * @module
 */

import {
  type Activation,
  type ClipConfig,
  openaiPreprocess,
  type PreprocessConfig,
  type TowerConfig,
} from "./config.ts";
import {
  isObject,
  type Json,
  LARGEST_IMAGE,
  MOST_LAYERS,
  object,
  positive,
  triple,
  wrong,
} from "./json.ts";

const FILE = "open_clip_config.json";

/**
 * Keys that change nothing here if they have these values, or any value where it says `ANY`. They
 * are for other kinds of models, for tokenizers and for training. A key that is neither here nor in
 * `READ` is rejected.
 */
const ANY = Symbol("any value");
const BLOCKS = {
  ...{ ls_init_value: null, block_type: [null, "default"], final_ln_after_pool: ANY },
  ...{ qk_norm: false, scaled_cosine_attn: false, scale_heads: false, scale_attn_inner: false },
  ...{ scale_attn: false, scale_fc: false, output_tokens: ANY },
};
const NEUTRAL: Readonly<Record<"model_cfg" | "vision_cfg" | "text_cfg", Json>> = {
  model_cfg: {
    ...{ custom_text: ANY, init_logit_scale: ANY, init_logit_bias: null, multimodal_cfg: null },
    ...{ nonscalar_logit_scale: ANY, cast_dtype: ANY, output_dict: ANY },
  },
  vision_cfg: {
    ...BLOCKS,
    ...{ patch_dropout: ANY, attentional_pool: false, attn_pooler_queries: ANY },
    ...{ attn_pooler_heads: ANY, no_ln_pre: false, pos_embed_type: "learnable" },
    ...{ pool_type: "tok", image_seq_len: null, timm_model_name: [null, ""] },
    ...{ timm_model_pretrained: ANY, timm_pool: ANY, timm_proj: ANY, timm_proj_bias: ANY },
    ...{ timm_drop: ANY, timm_drop_path: ANY, timm_model_kwargs: ANY },
  },
  text_cfg: {
    ...BLOCKS,
    ...{ text_arch: "clip", variable_text: false, embed_cls: false, no_causal_mask: false },
    ...{ proj_bias: false, proj_type: "linear", pad_id: ANY, bos_id: ANY },
    ...{ hf_model_name: [null, ""], hf_model_pretrained: ANY, hf_proj_type: ANY },
    ...{ hf_pooler_type: ANY, hf_tokenizer_name: ANY, tokenizer_mode: [null, ""] },
    ...{ tokenizer_kwargs: [null, {}], tokenizer_type: "", tiktoken_name: ANY },
  },
};
const READ = {
  model_cfg: ["embed_dim", "vision_cfg", "text_cfg", "quick_gelu"],
  vision_cfg: [
    ...["layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size"],
    ...["act_kwargs", "norm_kwargs"],
  ],
  text_cfg: [
    ...["context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"],
    ...["pool_type", "eos_id", "act_kwargs", "norm_kwargs"],
  ],
};

/**
 * Reads the `open_clip_config.json` of a CLIP with two transformers. Fields that it omits take
 * open_clip's defaults, such as exact GELU, heads of 64, and a text that ends at its largest id.
 *
 * @throws {RangeError} If the file is for another kind of model, or a size is impossible.
 */
export function parseOpenClip(
  json: unknown,
): { config: ClipConfig; preprocess: PreprocessConfig } {
  const root = object(json, FILE, "the file");
  const model = section(root, "model_cfg", "model_cfg");
  const [vision, text] = [
    section(model, "vision_cfg", "model_cfg.vision_cfg"),
    section(model, "text_cfg", "model_cfg.text_cfg"),
  ];
  const { quick_gelu: quick = false } = model;
  if (typeof quick !== "boolean") throw wrong(FILE, "model_cfg.quick_gelu", quick, "true or false");
  const imageSize = square(vision.image_size ?? 224, "model_cfg.vision_cfg.image_size");
  const visionTower = tower(vision, "vision_cfg", 768, quick);
  const patchSize = square(vision.patch_size ?? 16, "model_cfg.vision_cfg.patch_size");
  if (patchSize > imageSize) {
    const most = `at most the image size, ${imageSize}`;
    throw wrong(FILE, "model_cfg.vision_cfg.patch_size", patchSize, most);
  }
  return {
    config: {
      vision: { ...visionTower, imageSize, patchSize },
      text: {
        ...tower(text, "text_cfg", 512, quick),
        vocabulary: sizeOf(text, "text_cfg", "vocab_size", 49408),
        context: sizeOf(text, "text_cfg", "context_length", 77),
        ...endOf(text),
      },
      embedding: positive(model.embed_dim, "model_cfg.embed_dim", FILE),
    },
    preprocess: preprocessOf(root.preprocess_cfg ?? {}, imageSize),
  };
}

/**
 * Returns a section of the file. Throws if it has a key that is not known or a value that is not
 * supported.
 */
function section(parent: Json, name: keyof typeof NEUTRAL, path: string): Json {
  const section = object(parent[name], FILE, path);
  for (const [key, value] of Object.entries(section)) {
    if (READ[name].includes(key)) continue;
    if (!Object.hasOwn(NEUTRAL[name], key)) {
      throw new RangeError(
        `Cannot read ${FILE}: ${path}.${key} is not known here, ` +
          "it may change what the model computes",
      );
    }
    const neutral = NEUTRAL[name][key];
    if (neutral === ANY) continue;
    const allowed = Array.isArray(neutral) ? neutral : [neutral];
    if (allowed.some((other) => JSON.stringify(other) === JSON.stringify(value))) continue;
    throw wrong(FILE, `${path}.${key}`, value, JSON.stringify(allowed[0]));
  }
  return section;
}

function sizeOf(
  json: Json,
  section: string,
  key: string,
  preset: number,
  most?: number,
): number {
  return positive(json[key] ?? preset, `model_cfg.${section}.${key}`, FILE, most);
}

/** Reads a size that is one number, or the same number twice. */
function square(value: unknown, name: string): number {
  const [side, other] = Array.isArray(value) && value.length === 2 ? value : [value, value];
  if (side !== other) throw wrong(FILE, name, value, "a square");
  return positive(side, name, FILE, LARGEST_IMAGE);
}

function tower(
  json: Json,
  section: "vision_cfg" | "text_cfg",
  preset: number,
  quick: boolean,
): TowerConfig {
  const path = `model_cfg.${section}`;
  if (Array.isArray(json.layers)) {
    throw wrong(FILE, `${path}.layers`, json.layers, "one number: a ResNet CLIP is not read");
  }
  const width = sizeOf(json, section, "width", preset);
  const heads = section === "text_cfg"
    ? sizeOf(json, section, "heads", 8)
    : Math.floor(width / sizeOf(json, section, "head_width", 64));
  if (heads === 0 || width % heads !== 0) {
    const key = section === "text_cfg" ? "heads" : "head_width";
    throw wrong(FILE, `${path}.${key}`, json[key], `a divisor of the width, ${width}`);
  }
  const { mlp_ratio: ratio = 4 } = json;
  if (typeof ratio !== "number" || !(ratio > 0)) {
    throw wrong(FILE, `${path}.mlp_ratio`, ratio, "a positive number");
  }
  return {
    width,
    heads,
    layers: sizeOf(json, section, "layers", 12, MOST_LAYERS),
    mlpWidth: positive(Math.floor(width * ratio), `${path}.width × mlp_ratio`, FILE),
    activation: activationOf(json.act_kwargs ?? {}, quick, path),
    layerNormEps: epsilonOf(json.norm_kwargs ?? {}, path),
  };
}

function activationOf(options: unknown, quick: boolean, path: string): Activation {
  const settings = JSON.stringify(options);
  if (settings === "{}") return quick ? "quick_gelu" : "gelu";
  if (!quick && settings === '{"approximate":"none"}') return "gelu";
  if (!quick && settings === '{"approximate":"tanh"}') return "gelu_new";
  throw wrong(FILE, `${path}.act_kwargs`, options, quick ? "none" : '{"approximate": "tanh"}');
}

function epsilonOf(options: unknown, path: string): number {
  const { eps = 1e-5, ...unknown } = isObject(options) ? options : { unknown: options };
  if (Object.keys(unknown).length > 0) {
    throw wrong(FILE, `${path}.norm_kwargs`, options, '{"eps": …} alone');
  }
  if (typeof eps === "number" && eps > 0 && eps < Infinity) return eps;
  throw wrong(FILE, `${path}.norm_kwargs.eps`, eps, "a positive number");
}

/** Where a text ends: at its largest id, or at the first `eos_id`. */
function endOf(
  { pool_type: pool = "argmax", eos_id: id, vocab_size: size = 49408 }: Json,
): { endRule: "largest-id" | "first-end"; endToken: number } {
  if (pool === "argmax") return { endRule: "largest-id", endToken: size as number - 1 };
  if (pool !== "eos") throw wrong(FILE, "model_cfg.text_cfg.pool_type", pool, '"argmax" or "eos"');
  const isToken = Number.isSafeInteger(id) && id as number >= 0;
  if (!isToken) throw wrong(FILE, "model_cfg.text_cfg.eos_id", id, "a token's number");
  return { endRule: "first-end", endToken: id as number };
}

/**
 * Reads how images are prepared. Like open_clip, it resizes them to the model's image size,
 * whatever size the file gives, and ignores keys that it does not know.
 */
function preprocessOf(json: unknown, imageSize: number): PreprocessConfig {
  const settings = object(json, FILE, "preprocess_cfg");
  const steps = { mode: "RGB", interpolation: "bicubic", resize_mode: "shortest" };
  for (const [key, wanted] of Object.entries(steps)) {
    const value = settings[key] ?? wanted;
    if (value !== wanted) throw wrong(FILE, `preprocess_cfg.${key}`, value, `"${wanted}"`);
  }
  const preset = openaiPreprocess(imageSize);
  return {
    ...preset,
    mean: triple(settings.mean ?? preset.mean, "preprocess_cfg.mean", FILE),
    std: triple(settings.std ?? preset.std, "preprocess_cfg.std", FILE, Number.MIN_VALUE),
  };
}
