import { assert, assertEquals, assertThrows } from "@std/assert";
import { ARCHITECTURES } from "../clip/config.ts";
import { parseOpenClip } from "../clip/open_clip.ts";

/** Configurations as in open_clip's `model_configs/`. */
const TEXT = { context_length: 77, vocab_size: 49408, width: 512, heads: 8, layers: 12 };
const B_32 = {
  embed_dim: 512,
  vision_cfg: { image_size: 224, layers: 12, width: 768, patch_size: 32 },
  text_cfg: TEXT,
};

const configOf = (model_cfg: unknown) => parseOpenClip({ model_cfg }).config;

Deno.test("parseOpenClip() reads the models that LAION and DataComp publish", () => {
  const openai = ARCHITECTURES["vit-b-32"];
  assertEquals(configOf({ ...B_32, quick_gelu: true }), openai);
  const { vision, text, embedding } = configOf(B_32);
  assertEquals([vision.activation, text.activation], ["gelu", "gelu"]);
  assertEquals({ vision, text, embedding }, {
    ...openai,
    vision: { ...openai.vision, activation: "gelu" },
    text: { ...openai.text, activation: "gelu" },
  });

  const huge = configOf({
    embed_dim: 1024,
    vision_cfg: { image_size: 224, layers: 32, width: 1280, head_width: 80, patch_size: 14 },
    text_cfg: { ...TEXT, width: 1024, heads: 16, layers: 24 },
  });
  assertEquals([huge.vision.heads, huge.vision.mlpWidth, huge.text.heads], [16, 5120, 16]);
  const giant = configOf({
    embed_dim: 1024,
    vision_cfg: {
      ...{ image_size: 224, layers: 40, width: 1408, head_width: 88, mlp_ratio: 4.3637 },
      patch_size: 14,
    },
    text_cfg: { ...TEXT, width: 1024, heads: 16, layers: 24 },
  });
  assertEquals([giant.vision.heads, giant.vision.mlpWidth], [16, 6144]);
  const bigG = configOf({
    embed_dim: 1280,
    vision_cfg: {
      ...{ image_size: 224, layers: 48, width: 1664, head_width: 104, mlp_ratio: 4.9231 },
      patch_size: 14,
    },
    text_cfg: { ...TEXT, width: 1280, heads: 20, layers: 32 },
  });
  assertEquals([bigG.vision.heads, bigG.vision.mlpWidth, bigG.embedding], [16, 8192, 1280]);
});

Deno.test("parseOpenClip() fills in open_clip's defaults, and reads what changes numbers", () => {
  const { vision, text } = configOf({ embed_dim: 4, vision_cfg: {}, text_cfg: {} });
  assertEquals([vision.width, vision.layers, vision.heads, vision.mlpWidth], [768, 12, 12, 3072]);
  assertEquals([vision.imageSize, vision.patchSize, vision.layerNormEps], [224, 16, 1e-5]);
  assertEquals([text.width, text.layers, text.heads, text.mlpWidth], [512, 12, 8, 2048]);
  assertEquals([text.context, text.vocabulary, text.endRule], [77, 49408, "largest-id"]);

  const other = configOf({
    ...{ embed_dim: 4, custom_text: true, init_logit_scale: 2.5, nonscalar_logit_scale: true },
    vision_cfg: {
      ...{ image_size: [32, 32], patch_size: 8, layers: 1, width: 48, head_width: 16 },
      ...{ norm_kwargs: { eps: 1e-6 }, act_kwargs: { approximate: "tanh" }, patch_dropout: 0.5 },
      ...{ timm_model_name: null, ls_init_value: null, output_tokens: true },
    },
    text_cfg: {
      ...{ width: 32, heads: 2, layers: 1, pool_type: "eos", eos_id: 7, pad_id: 1 },
      ...{ hf_tokenizer_name: "someone/name", norm_kwargs: {}, act_kwargs: null },
    },
  });
  assertEquals([other.vision.heads, other.vision.layerNormEps], [3, 1e-6]);
  assertEquals([other.vision.activation, other.text.activation], ["gelu_new", "gelu"]);
  assertEquals([other.text.endRule, other.text.endToken], ["first-end", 7]);
});

Deno.test("parseOpenClip() prepares images as open_clip does", () => {
  const of = (preprocess_cfg?: unknown) =>
    parseOpenClip({ model_cfg: B_32, preprocess_cfg }).preprocess;
  const plain = of();
  assertEquals([plain.resize, plain.crop, plain.cropRule], [224, 224, "round"]);
  assertEquals(plain.mean, [0.48145466, 0.4578275, 0.40821073]);
  const [mean, std] = [[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]];
  // The size that counts is the model's; open_clip ignores keys that it does not know.
  const given = of({ mean, std, size: 336, mode: "RGB", fill_color: 0, what_is_to_come: 1 });
  assertEquals([given.resize, given.crop, [...given.mean], [...given.std]], [224, 224, mean, std]);
  for (
    const [change, why] of [
      [
        { interpolation: "bilinear" },
        'preprocess_cfg.interpolation is "bilinear", expected "bicubic"',
      ],
      [{ resize_mode: "squash" }, 'preprocess_cfg.resize_mode is "squash"'],
      [{ resize_mode: "longest" }, 'preprocess_cfg.resize_mode is "longest"'],
      [{ mean: [0.5] }, "preprocess_cfg.mean is [0.5], expected three numbers"],
      [{ std: [0, 1, 1] }, "preprocess_cfg.std is [0,1,1], expected three positive numbers"],
    ] as [unknown, string][]
  ) {
    assertThrows(() => of(change), RangeError, why);
  }
});

Deno.test("parseOpenClip() refuses other models, and names the key that differs", () => {
  const vision = (change: Record<string, unknown>) => ({
    ...B_32,
    vision_cfg: { ...B_32.vision_cfg, ...change },
  });
  const text = (change: Record<string, unknown>) => ({ ...B_32, text_cfg: { ...TEXT, ...change } });
  for (
    const [model, why] of [
      [vision({ timm_model_name: "vit_base_patch16_siglip_224" }), "vision_cfg.timm_model_name"],
      [
        vision({ layers: [3, 4, 6, 3] }),
        "vision_cfg.layers is [3,4,6,3], expected one number: a ResNet",
      ],
      [vision({ pool_type: "avg" }), "vision_cfg.pool_type"],
      [vision({ no_ln_pre: true }), "vision_cfg.no_ln_pre"],
      [vision({ pos_embed_type: "sin_cos_2d" }), "vision_cfg.pos_embed_type"],
      [vision({ attentional_pool: true }), "vision_cfg.attentional_pool"],
      [vision({ ls_init_value: 0.1 }), "vision_cfg.ls_init_value"],
      [vision({ qk_norm: true }), "vision_cfg.qk_norm"],
      [vision({ block_type: "custom" }), "vision_cfg.block_type"],
      [vision({ what_is_to_come: 1 }), "vision_cfg.what_is_to_come is not known"],
      [vision({ image_size: [224, 196] }), "vision_cfg.image_size is [224,196], expected a square"],
      [vision({ head_width: 100 }), "vision_cfg.head_width"],
      [vision({ head_width: 1000 }), "vision_cfg.head_width"],
      [vision({ width: 0 }), "vision_cfg.width"],
      [vision({ mlp_ratio: "4" }), "vision_cfg.mlp_ratio"],
      [vision({ norm_kwargs: { eps: 0 } }), "vision_cfg.norm_kwargs.eps"],
      [vision({ norm_kwargs: { elementwise_affine: false } }), "vision_cfg.norm_kwargs"],
      [vision({ act_kwargs: { approximate: "sin" } }), "vision_cfg.act_kwargs"],
      [{ ...vision({ act_kwargs: { approximate: "tanh" } }), quick_gelu: true }, "act_kwargs"],
      [text({ hf_model_name: "xlm-roberta-base" }), "text_cfg.hf_model_name"],
      [text({ no_causal_mask: true }), "text_cfg.no_causal_mask"],
      [text({ embed_cls: true }), "text_cfg.embed_cls"],
      [text({ proj_type: "none" }), "text_cfg.proj_type"],
      [text({ proj_bias: true }), "text_cfg.proj_bias"],
      [text({ pool_type: "last" }), "text_cfg.pool_type"],
      [text({ pool_type: "eos" }), "text_cfg.eos_id is missing"],
      [text({ tokenizer_kwargs: { clean: "canonicalize" } }), "text_cfg.tokenizer_kwargs"],
      [text({ heads: 7 }), "text_cfg.heads"],
      [{ ...B_32, multimodal_cfg: {} }, "model_cfg.multimodal_cfg"],
      [{ ...B_32, init_logit_bias: -10 }, "model_cfg.init_logit_bias"],
      [{ ...B_32, quick_gelu: "yes" }, "model_cfg.quick_gelu"],
      [{ ...B_32, embed_dim: undefined }, "model_cfg.embed_dim is missing"],
      [{ ...B_32, text_cfg: undefined }, "model_cfg.text_cfg is not a JSON object"],
      [undefined, "model_cfg is not a JSON object"],
    ] as [unknown, string][]
  ) {
    const { message } = assertThrows(() => configOf(model), RangeError, why);
    assert(message.startsWith("Cannot read open_clip_config.json: ") && !/[.\n]$|\n/.test(message));
  }
});
