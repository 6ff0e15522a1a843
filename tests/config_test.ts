import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import {
  ARCHITECTURES,
  type ClipConfig,
  configFromOpenai,
  openaiPreprocess,
  parseConfig,
  parsePreprocessor,
} from "../clip/config.ts";
import { weightShapes } from "../clip/clip.ts";
import { openaiSource } from "../clip/openai_weights.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import type { Shape } from "../tensor/shape.ts";
import { fixtures, shared, skip } from "./fixtures.ts";

/** The values of `CLIPConfig()` in Transformers. */
const DEFAULTS: ClipConfig = {
  vision: {
    width: 768,
    layers: 12,
    heads: 12,
    mlpWidth: 3072,
    activation: "quick_gelu",
    layerNormEps: 1e-5,
    imageSize: 224,
    patchSize: 32,
  },
  text: {
    width: 512,
    layers: 12,
    heads: 8,
    mlpWidth: 2048,
    activation: "quick_gelu",
    layerNormEps: 1e-5,
    vocabulary: 49408,
    context: 77,
    endToken: 49407,
    endRule: "first-end",
  },
  embedding: 512,
};

const FULL = {
  model_type: "clip",
  projection_dim: 20,
  text_config: {
    hidden_size: 24,
    intermediate_size: 40,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    max_position_embeddings: 10,
    vocab_size: 50,
    hidden_act: "gelu",
    layer_norm_eps: 1e-6,
    eos_token_id: 49,
  },
  vision_config: {
    hidden_size: 32,
    intermediate_size: 56,
    num_hidden_layers: 3,
    num_attention_heads: 2,
    image_size: 30,
    patch_size: 7,
    hidden_act: "gelu_new",
    layer_norm_eps: 1,
  },
};

type Parts = Record<string, Record<string, unknown> | null>;

/** The full configuration, with some of its fields changed. */
function changed(changes: Parts): Record<string, unknown> {
  const config: Record<string, unknown> = structuredClone(FULL);
  for (const [section, fields] of Object.entries(changes)) {
    config[section] = fields && { ...config[section] as object, ...fields };
  }
  return config;
}

function refused(parse: () => unknown, message: string): void {
  const error = assertThrows(parse, RangeError);
  assertEquals(error.message, message);
  assertMatch(message, /^Cannot [^\n]*[^\n.]$/);
}

const refusedConfig = (json: unknown, why: string) =>
  refused(() => parseConfig(json), `Cannot read config.json: ${why}`);

Deno.test("parseConfig() reads every field", () => {
  assertEquals(parseConfig(FULL), {
    vision: {
      width: 32,
      layers: 3,
      heads: 2,
      mlpWidth: 56,
      activation: "gelu_new",
      layerNormEps: 1,
      imageSize: 30,
      patchSize: 7,
    },
    text: {
      width: 24,
      layers: 2,
      heads: 3,
      mlpWidth: 40,
      activation: "gelu",
      layerNormEps: 1e-6,
      vocabulary: 50,
      context: 10,
      endToken: 49,
      endRule: "first-end",
    },
    embedding: 20,
  });
});

Deno.test("parseConfig() fills in the defaults of Transformers", () => {
  const empty = { model_type: "clip" };
  assertEquals(parseConfig(empty), DEFAULTS);
  assertEquals(parseConfig({ ...empty, text_config: {}, vision_config: {} }), DEFAULTS);
  const nulls = {
    text_config: null,
    vision_config: null,
    text_config_dict: null,
    vision_config_dict: null,
  };
  assertEquals(parseConfig({ ...empty, ...nulls }), DEFAULTS);
  const { text } = parseConfig({ ...empty, text_config: { hidden_size: 768 } });
  assertEquals(text, { ...DEFAULTS.text, width: 768 });
});

Deno.test("parseConfig() prefers the `_dict` of old files, and fills in its defaults", () => {
  const { text_config, vision_config, ...rest } = FULL;
  const old = { ...rest, text_config_dict: text_config, vision_config_dict: vision_config };
  assertEquals(parseConfig(old), parseConfig(FULL));
  // The first file of clip-vit-large-patch14 had both, and its `_dict` was incomplete.
  const both = {
    ...FULL,
    text_config: { ...text_config, vocab_size: 7 },
    text_config_dict: { hidden_size: 768, num_attention_heads: 12, intermediate_size: 3072 },
  };
  assertEquals(parseConfig(both), {
    ...parseConfig(FULL),
    text: { ...DEFAULTS.text, width: 768, heads: 12, mlpWidth: 3072 },
  });
  refusedConfig(
    { ...both, text_config_dict: { vocab_size: -1 } },
    "text_config_dict.vocab_size is -1, expected a positive integer",
  );
});

Deno.test("parseConfig() takes the largest id for the end where eos_token_id is 2", () => {
  for (const [id, endRule] of [[2, "largest-id"], [0, "first-end"], [49407, "first-end"]]) {
    const { text } = parseConfig(changed({ text_config: { eos_token_id: id } }));
    assertEquals([text.endToken, text.endRule], [id, endRule]);
  }
});

Deno.test("parseConfig() refuses sizes that are not positive integers", () => {
  const sizes = {
    text_config: [
      "hidden_size",
      "intermediate_size",
      "num_hidden_layers",
      "num_attention_heads",
      "max_position_embeddings",
      "vocab_size",
    ],
    vision_config: [
      "hidden_size",
      "intermediate_size",
      "num_hidden_layers",
      "num_attention_heads",
      "image_size",
      "patch_size",
    ],
  };
  for (const [section, fields] of Object.entries(sizes)) {
    for (const field of fields) {
      for (const value of [0, -1, 1.5, "8", null, true, [8], 2 ** 53]) {
        refusedConfig(
          changed({ [section]: { [field]: value } }),
          `${section}.${field} is ${JSON.stringify(value)}, expected a positive integer`,
        );
      }
    }
  }
  refusedConfig(
    { ...FULL, projection_dim: 0 },
    "projection_dim is 0, expected a positive integer",
  );
});

Deno.test("parseConfig() refuses values that do not go together, or are not supported", () => {
  const cases: [Parts, string][] = [
    [
      { vision_config: { num_attention_heads: 5 } },
      "vision_config.num_attention_heads is 5, expected a divisor of the width, 32",
    ],
    [
      { text_config: { hidden_size: 25 } },
      "text_config.num_attention_heads is 3, expected a divisor of the width, 25",
    ],
    [
      { vision_config: { patch_size: 31 } },
      "vision_config.patch_size is 31, expected at most the image size, 30",
    ],
    [{ vision_config: { num_channels: 4 } }, "vision_config.num_channels is 4, expected 3"],
    [
      { text_config: { hidden_act: "relu" } },
      'text_config.hidden_act is "relu", expected one of quick_gelu, gelu, gelu_new',
    ],
    [
      { vision_config: { hidden_act: null } },
      "vision_config.hidden_act is null, expected one of quick_gelu, gelu, gelu_new",
    ],
    [
      { text_config: { layer_norm_eps: 0 } },
      "text_config.layer_norm_eps is 0, expected a positive number",
    ],
    [
      { vision_config: { layer_norm_eps: "1e-5" } },
      'vision_config.layer_norm_eps is "1e-5", expected a positive number',
    ],
    [
      { text_config: { eos_token_id: -1 } },
      "text_config.eos_token_id is -1, expected a token's number",
    ],
    [
      { text_config: { eos_token_id: [2] } },
      "text_config.eos_token_id is [2], expected a token's number",
    ],
  ];
  for (const [changes, why] of cases) refusedConfig(changed(changes), why);
  // A patch need not divide the image: the remainder is ignored, as in Transformers.
  assertEquals(parseConfig(changed({ vision_config: { patch_size: 30 } })).vision.patchSize, 30);
});

Deno.test("parseConfig() refuses what is not the configuration of a CLIP", () => {
  for (const type of ["siglip", "chinese_clip", "clip_text_model", "clipseg", 1, null]) {
    const why = `model_type is ${JSON.stringify(type)}, expected "clip"`;
    refusedConfig({ ...FULL, model_type: type }, why);
  }
  refusedConfig({}, 'model_type is missing, expected "clip"');
  for (const json of [null, undefined, [], "clip", 1]) {
    refusedConfig(json, "the file is not a JSON object");
  }
  refusedConfig({ ...FULL, text_config: [] }, "text_config is not a JSON object");
  refusedConfig({ ...FULL, vision_config: "x" }, "vision_config is not a JSON object");
});

/** The names and shapes that openai/CLIP's state dict has for a model. */
function openaiShapes(config: ClipConfig): Map<string, Shape> {
  const shapes = new Map<string, Shape>();
  for (const [name, shape] of weightShapes(config)) {
    const { name: other, third, transposed } = openaiSource(name);
    const full = third === undefined ? shape : shape.with(0, 3 * shape[0]);
    shapes.set(other, transposed ? full.toReversed() : full);
  }
  return shapes;
}

Deno.test("configFromOpenai() infers every published model", () => {
  assertEquals(Object.keys(ARCHITECTURES).length, 4);
  for (const config of Object.values(ARCHITECTURES)) {
    assertEquals(configFromOpenai(openaiShapes(config)), config);
  }
});

Deno.test("configFromOpenai() infers sizes that nobody published", () => {
  const base = ARCHITECTURES["vit-b-32"];
  const config: ClipConfig = {
    vision: { ...base.vision, width: 192, heads: 3, layers: 11, mlpWidth: 500, imageSize: 96 },
    text: {
      ...base.text,
      width: 130,
      heads: 2,
      layers: 1,
      vocabulary: 99,
      context: 5,
      endToken: 98,
    },
    embedding: 33,
  };
  assertEquals(configFromOpenai(openaiShapes(config)), config);
});

Deno.test("configFromOpenai() refuses ResNets, and tensors that do not fit together", () => {
  const base = openaiShapes(ARCHITECTURES["vit-b-32"]);
  const cases: [string, Shape | null, string][] = [
    [
      "visual.layer1.0.conv1.weight",
      [64, 64, 1, 1],
      "it is a ResNet CLIP; only ViT CLIPs are supported",
    ],
    [
      "visual.attnpool.positional_embedding",
      [50, 2048],
      "it is a ResNet CLIP; only ViT CLIPs are supported",
    ],
    [
      "visual.conv1.weight",
      [768, 4, 32, 32],
      '"visual.conv1.weight" is [768,4,32,32], expected square patches of 3 channels',
    ],
    [
      "visual.conv1.weight",
      [768, 3, 32, 16],
      '"visual.conv1.weight" is [768,3,32,16], expected square patches of 3 channels',
    ],
    [
      "visual.conv1.weight",
      [32, 3, 32, 32],
      '"visual.conv1.weight" is 32 wide, which 0 heads do not divide',
    ],
    [
      "positional_embedding",
      [77, 191],
      '"positional_embedding" is 191 wide, which 2 heads do not divide',
    ],
    [
      "visual.positional_embedding",
      [49, 768],
      '"visual.positional_embedding" has 49 rows, expected one more than a square',
    ],
    [
      "visual.positional_embedding",
      [1, 768],
      '"visual.positional_embedding" has 1 rows, expected one more than a square',
    ],
  ];
  const advice = "it needs a config.json beside it or the names of openai/CLIP's weights";
  for (const name of ["visual.conv1.weight", "token_embedding.weight", "text_projection"]) {
    cases.push([name, null, `"${name}" is missing, ${advice}`]);
  }
  for (const shape of [[], [512], [512, 0], [1, 512, 512]]) {
    cases.push(["text_projection", shape, `"text_projection" is [${shape}], ${advice}`]);
  }
  const first = "transformer.resblocks.0.mlp.c_fc.weight";
  cases.push([first, null, `"${first}" is missing, ${advice}`]);
  for (const [name, shape, why] of cases) {
    const shapes = new Map(base);
    if (shape) shapes.set(name, shape);
    else shapes.delete(name);
    refused(() => configFromOpenai(shapes), `Cannot load the model: ${why}`);
  }
});

Deno.test("ARCHITECTURES has the sizes of OpenAI's models", () => {
  const [b32, b16, l14, l336] = ["vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336"].map((name) =>
    ARCHITECTURES[name]
  );
  const { text } = DEFAULTS;
  assertEquals(b32, { ...DEFAULTS, text: { ...text, endRule: "largest-id" } });
  assertEquals(b16, { ...b32, vision: { ...b32.vision, patchSize: 16 } });
  assertEquals(l14, {
    vision: {
      ...b32.vision,
      width: 1024,
      layers: 24,
      heads: 16,
      mlpWidth: 4096,
      patchSize: 14,
    },
    text: { ...b32.text, width: 768, heads: 12, mlpWidth: 3072 },
    embedding: 768,
  });
  assertEquals(l336, { ...l14, vision: { ...l14.vision, imageSize: 336 } });
  // As many parameters as PyTorch counts in each.
  const counts = [b32, b16, l14, l336].map((config) => {
    const shapes = [...weightShapes(config).values()];
    return shapes.reduce((sum, shape) => sum + shape.reduce((n, size) => n * size, 1), 0);
  });
  assertEquals(counts, [151277313, 149620737, 427616513, 427944193]);
});

const MEAN = [0.48145466, 0.4578275, 0.40821073] as const;
const STD = [0.26862954, 0.26130258, 0.27577711] as const;

Deno.test("openaiPreprocess() is OpenAI's, for any size", () => {
  assertEquals(openaiPreprocess(336), {
    resize: 336,
    crop: 336,
    mean: MEAN,
    std: STD,
    cropRule: "round",
  });
});

Deno.test("parsePreprocessor() reads both layouts, and fills in what is left out", () => {
  const expected = { resize: 50, crop: 48, mean: MEAN, std: STD, cropRule: "floor" } as const;
  const layouts = [
    { size: 50, crop_size: 48 },
    { size: { shortest_edge: 50 }, crop_size: { height: 48, width: 48 } },
    { size: 50, crop_size: { height: 48, width: 48 }, image_mean: null, image_std: null },
    { size: { shortest_edge: 50, longest_edge: null }, crop_size: 48 },
  ];
  for (const layout of layouts) assertEquals(parsePreprocessor(layout, 7), expected);
  assertEquals(parsePreprocessor({}, 24), { ...expected, resize: 24, crop: 24 });
  const given = {
    crop_size: 50,
    size: 50,
    image_mean: [0, 0.5, 1],
    image_std: [0.5, 1, 2],
    do_resize: true,
    do_center_crop: true,
    do_rescale: true,
    do_normalize: true,
    do_convert_rgb: true,
    resample: 3,
    rescale_factor: 0.00392156862745098,
  };
  const changed = { crop: 50, mean: [0, 0.5, 1], std: [0.5, 1, 2] };
  assertEquals(parsePreprocessor(given, 224), { ...expected, ...changed } as unknown);
});

Deno.test("parsePreprocessor() refuses what is not supported", () => {
  const cases: [unknown, string][] = [
    [{ do_resize: false }, "do_resize is false, expected true"],
    [{ do_resize: null }, "do_resize is null, expected true"],
    [{ do_center_crop: false }, "do_center_crop is false, expected true"],
    [{ do_rescale: false }, "do_rescale is false, expected true"],
    [{ do_normalize: false }, "do_normalize is false, expected true"],
    [{ do_normalize: 1 }, "do_normalize is 1, expected true"],
    [{ resample: 2 }, "resample is 2, expected 3, bicubic"],
    [{ resample: null }, "resample is null, expected 3, bicubic"],
    [{ rescale_factor: 1 }, "rescale_factor is 1, expected 1/255"],
    [{ rescale_factor: "x" }, 'rescale_factor is "x", expected 1/255'],
    [{ size: 0 }, "size is 0, expected a positive integer"],
    [{ size: "224" }, 'size is "224", expected a positive integer'],
    [{ crop_size: 22.5 }, "crop_size is 22.5, expected a positive integer"],
    [
      { size: { height: 224, width: 224 } },
      'size is {"height":224,"width":224}, expected a number or {shortest_edge}',
    ],
    [
      { size: { shortest_edge: 224, longest_edge: 500 } },
      'size is {"shortest_edge":224,"longest_edge":500}, expected a number or {shortest_edge}',
    ],
    [{ size: [224, 224] }, "size is [224,224], expected a number or {shortest_edge}"],
    [{ size: {} }, "size is {}, expected a number or {shortest_edge}"],
    [{ size: { shortest_edge: -1 } }, "size.shortest_edge is -1, expected a positive integer"],
    [
      { crop_size: { height: 224, width: 225 } },
      'crop_size is {"height":224,"width":225}, expected a number or {height,width} of a square',
    ],
    [
      { crop_size: { height: 224 } },
      'crop_size is {"height":224}, expected a number or {height,width} of a square',
    ],
    [
      { crop_size: { shortest_edge: 224 } },
      'crop_size is {"shortest_edge":224}, expected a number or {height,width} of a square',
    ],
    [
      { crop_size: { height: 0, width: 0 } },
      "crop_size.height is 0, expected a positive integer",
    ],
    [{ image_mean: 0.5 }, "image_mean is 0.5, expected three numbers"],
    [{ image_mean: [0.5] }, "image_mean is [0.5], expected three numbers"],
    [{ image_mean: [0, 0, "0"] }, 'image_mean is [0,0,"0"], expected three numbers'],
    [{ image_std: [1, 0, 1] }, "image_std is [1,0,1], expected three positive numbers"],
    [{ image_std: [1, -1, 1] }, "image_std is [1,-1,1], expected three positive numbers"],
    [[], "the file is not a JSON object"],
    [null, "the file is not a JSON object"],
  ];
  for (const [json, why] of cases) {
    const message = `Cannot read preprocessor_config.json: ${why}`;
    refused(() => parsePreprocessor(json, 224), message);
  }
});

/**
 * Every weight of the configuration is there, of its shape; a scalar may be stored as `[]` or
 * `[1]`.
 */
function assertFits(config: ClipConfig, held: ReadonlyMap<string, Shape>): void {
  for (const [name, shape] of weightShapes(config)) {
    const found = held.get(name);
    assertEquals(shape.length === 0 && found?.[0] === 1 ? [] : found, shape, name);
  }
}

const readJson = async (url: URL) => JSON.parse(await Deno.readTextFile(url));
const clip = fixtures("clip");
const models = clip
  ? [...Deno.readDirSync(clip)].filter(({ isDirectory }) => isDirectory)
    .map(({ name }) => new URL(`${name}/`, clip))
  : [];

if (models.length === 0) skip("the configurations of fixtures/clip");
else {
  Deno.test("parseConfig() and configFromOpenai() read the reference models", async () => {
    let inferred = 0;
    for (const directory of models) {
      const names = new Set([...Deno.readDirSync(directory)].map(({ name }) => name));
      const { openai_args: sizes, vision_heads, eot, eos_first_id } = await readJson(
        new URL("manifest.json", directory),
      );
      const expected: ClipConfig = {
        vision: {
          width: sizes.vision_width,
          layers: sizes.vision_layers,
          heads: vision_heads,
          mlpWidth: 4 * sizes.vision_width,
          activation: "quick_gelu",
          layerNormEps: 1e-5,
          imageSize: sizes.image_resolution,
          patchSize: sizes.vision_patch_size,
        },
        text: {
          width: sizes.transformer_width,
          layers: sizes.transformer_layers,
          heads: sizes.transformer_heads,
          mlpWidth: 4 * sizes.transformer_width,
          activation: "quick_gelu",
          layerNormEps: 1e-5,
          vocabulary: sizes.vocab_size,
          context: sizes.context_length,
          endToken: eot,
          endRule: "first-end",
        },
        embedding: sizes.embed_dim,
      };
      const parse = async (name: string) => parseConfig(await readJson(new URL(name, directory)));
      const ending = (endToken: number, endRule: "first-end" | "largest-id"): ClipConfig => ({
        ...expected,
        text: { ...expected.text, endToken, endRule },
      });
      assertEquals(await parse("config.json"), expected);
      assertEquals(await parse("config_legacy_eos2.json"), ending(2, "largest-id"));
      assertEquals(await parse("config_eos_first.json"), ending(eos_first_id, "first-end"));
      const processor = await readJson(new URL("preprocessor_config.json", directory));
      const { imageSize } = expected.vision;
      const preprocess = { ...openaiPreprocess(imageSize), cropRule: "floor" as const };
      assertEquals(parsePreprocessor(processor, imageSize), preprocess);
      const shapesOf = async (name: string) => {
        const source = bytesSource(await Deno.readFile(new URL(name, directory)), name);
        const { tensors } = await SafetensorsFile.open(source);
        return new Map([...tensors].map(([name, { shape }]) => [name, shape]));
      };
      const shapes = await shapesOf("model.safetensors");
      assertFits(expected, shapes);
      if (!names.has("openai.safetensors")) continue;
      const config = configFromOpenai(await shapesOf("openai.safetensors"));
      assertEquals(config, ending(sizes.vocab_size - 1, "largest-id"));
      inferred++;
    }
    console.log(`${models.length} models, ${inferred} of them also from OpenAI's names`);
  });
}

const published = shared("models/openai-clip-tokenizer/");
if (!published) skip("the configuration of openai/clip-vit-base-patch32");
else {
  Deno.test("parseConfig() reads openai/clip-vit-base-patch32 as it was published", async () => {
    const config = parseConfig(await readJson(new URL("config.vit-b-32.json", published)));
    const { text, ...rest } = ARCHITECTURES["vit-b-32"];
    assertEquals(config, { ...rest, text: { ...text, endToken: 2, endRule: "largest-id" } });
    const processor = await readJson(new URL("preprocessor_config.json", published));
    const preprocess = { ...openaiPreprocess(224), cropRule: "floor" as const };
    assertEquals(parsePreprocessor(processor, 224), preprocess);
  });
}

Deno.test("the embedded model's configuration fits its weights", async () => {
  const directory = new URL("../clip/emoji-clip-tiny/", import.meta.url);
  const config = parseConfig(await readJson(new URL("config.json", directory)));
  const bytes = await Deno.readFile(new URL("model.safetensors", directory));
  const { tensors } = await SafetensorsFile.open(bytesSource(bytes));
  assertFits(config, new Map([...tensors].map(([name, { shape }]) => [name, shape])));
  const { imageSize } = config.vision;
  const processor = await readJson(new URL("preprocessor_config.json", directory));
  assertEquals(parsePreprocessor(processor, imageSize).crop, imageSize);
});
