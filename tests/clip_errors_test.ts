/** Models and inputs that do not fit are refused in one line, and leave nothing on the GPU. */

import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import type { Clip } from "../clip/clip.ts";
import { type ClipConfig, configFromOpenai, parseConfig } from "../clip/config.ts";
import { weightShapes } from "../clip/clip.ts";
import { openaiSource } from "../clip/openai_weights.ts";
import { tensor } from "../tensor/create.ts";
import { memory } from "../tensor/memory.ts";
import type { TensorToSave } from "../tensor/encode_safetensors.ts";
import { numel, type Shape } from "../tensor/shape.ts";
import { gpuTest } from "./gpu.ts";
import { clipOf, logitsOf, randomWeights, TINY } from "./reference.ts";

function assertOneLine({ message }: Error): void {
  assertMatch(message, /^Cannot [^\n]*[^\n.]$/);
}

function blank(dtype: TensorToSave["dtype"], ...shape: number[]): TensorToSave {
  return { dtype, shape, data: new Float32Array(numel(shape)) };
}

const PROJECTION = "text_model.encoder.layers.1.self_attn.v_proj.weight";

gpuTest("Clip.load() refuses weights that do not fit, and keeps none of them", async () => {
  const weights = randomWeights(TINY);
  const { logit_scale: _, ...scaleless } = weights;
  const blockless = Object.fromEntries(
    Object.entries(weights).filter(([name]) => !name.includes("vision_model.encoder.layers.2.")),
  );
  const cases: [string, Record<string, TensorToSave>, string][] = [
    ["missing", scaleless, '"logit_scale" is missing from its weights'],
    ["a missing block", blockless, "and 13 more are missing"],
    [
      "misshapen",
      { ...weights, [PROJECTION]: blank("F32", 24, 23) },
      `Cannot load "${PROJECTION}": the file holds [24,23], the model needs [24,24]`,
    ],
    [
      "transposed",
      { ...weights, "text_projection.weight": blank("F32", 24, 20) },
      "the file holds [24,20], the model needs [20,24]",
    ],
    [
      "with an axis too many",
      { ...weights, [PROJECTION]: blank("F32", 24, 24, 1) },
      "the file holds [24,24,1]",
    ],
    [
      "unknown",
      { ...weights, "visual_projection.bias": blank("F32", 20) },
      '"visual_projection.bias" is not known',
    ],
    ["not floats", { ...weights, [PROJECTION]: blank("I32", 24, 24) }, "as floats: it is I32"],
    ["none", {}, "are missing"],
  ];
  for (const [what, tensors, message] of cases) {
    const before = memory().liveBuffers;
    const error = await assertRejects(() => clipOf(TINY, tensors), Error, message);
    assertOneLine(error);
    assertEquals(memory().liveBuffers, before, what);
  }
});

gpuTest("Clip.load() refuses a configuration that does not fit its weights", async () => {
  const weights = randomWeights(TINY);
  const { vision, text } = TINY;
  const cases: [Partial<ClipConfig>, string][] = [
    [{ vision: { ...vision, layers: 4 } }, "and 13 more are missing"],
    [{ vision: { ...vision, layers: 2 } }, "and 13 more are not known"],
    [{ text: { ...text, layers: 1 } }, "are not known, the configuration has no such weights"],
    [{ vision: { ...vision, width: 34 } }, "the file holds [32], the model needs [34]"],
    [{ vision: { ...vision, mlpWidth: 57 } }, "the file holds [56,32], the model needs [57,32]"],
    [{ vision: { ...vision, patchSize: 4 } }, "the model needs [32,3,4,4]"],
    [{ vision: { ...vision, imageSize: 24 } }, "the file holds [5,32], the model needs [10,32]"],
    [{ text: { ...text, vocabulary: 51 } }, "the file holds [50,24], the model needs [51,24]"],
    [{ text: { ...text, context: 11 } }, "the file holds [10,24], the model needs [11,24]"],
    [{ embedding: 21 }, "the file holds [20,32], the model needs [21,32]"],
  ];
  for (const [changes, message] of cases) {
    const attempt = () => clipOf({ ...TINY, ...changes }, weights);
    assertOneLine(await assertRejects(attempt, RangeError, message));
  }
});

Deno.test("parseConfig() refuses heads that do not divide the width", () => {
  const config = {
    model_type: "clip",
    text_config: {},
    vision_config: { hidden_size: 768, num_attention_heads: 7 },
  };
  assertOneLine(assertThrows(() => parseConfig(config), RangeError, "num_attention_heads is 7"));
});

/** The weights of {@linkcode TINY} as OpenAI names and lays them out. */
function openaiWeights(): Record<string, TensorToSave> {
  const named: Record<string, TensorToSave> = {};
  for (const [name, shape] of weightShapes(TINY)) {
    const { name: other, third, transposed } = openaiSource(name);
    const held = transposed
      ? shape.toReversed()
      : third === undefined
      ? shape
      : shape.with(0, 3 * shape[0]);
    named[other] = blank("F32", ...held);
  }
  return named;
}

gpuTest("Clip.load() names both names of OpenAI's weights", async () => {
  const weights = openaiWeights();
  (await clipOf(TINY, weights)).release();
  const joined = "visual.transformer.resblocks.0.attn.in_proj_weight";
  const cases: [Record<string, TensorToSave>, string][] = [
    [
      { ...weights, [joined]: blank("F32", 95, 32) },
      `Cannot load "${joined}" as "vision_model.encoder.layers.0.self_attn.q_proj.weight": ` +
      "the file holds [95,32], the model needs [96,32]",
    ],
    [
      { ...weights, "text_projection": blank("F32", 20, 24) },
      "the file holds [20,24], the model needs [24,20]",
    ],
    [{ ...weights, "visual.ln_mid.bias": blank("F32", 32) }, '"visual.ln_mid.bias" is not known'],
    [
      Object.fromEntries(Object.entries(weights).filter(([name]) => name !== joined)),
      `"${joined}" is missing`,
    ],
  ];
  for (const [tensors, message] of cases) {
    const error = await assertRejects(() => clipOf(TINY, tensors), RangeError, message);
    assertOneLine(error);
  }
});

Deno.test("configFromOpenai() refuses a ResNet CLIP, and what is not a CLIP", () => {
  const resnet = new Map<string, Shape>([
    ["visual.conv1.weight", [32, 3, 3, 3]],
    ["visual.layer1.0.conv1.weight", [64, 64, 1, 1]],
    ["visual.attnpool.positional_embedding", [50, 2048]],
    ["text_projection", [512, 1024]],
  ]);
  assertOneLine(assertThrows(() => configFromOpenai(resnet), RangeError, "ResNet CLIP"));
  const bert = new Map<string, Shape>([["bert.pooler.dense.weight", [768, 768]]]);
  assertOneLine(assertThrows(() => configFromOpenai(bert), RangeError, "visual.conv1.weight"));
});

gpuTest("imageFeatures() refuses images that are not of the model's size", async () => {
  const clip = await clipOf(TINY);
  for (const shape of [[2, 3, 15, 16], [2, 3, 32, 32], [2, 1, 16, 16], [3, 16, 16]]) {
    const pixels = tensor(new Float32Array(numel(shape)), shape);
    const error = assertThrows(() => clip.imageFeatures(pixels), RangeError, "[B,3,16,16]");
    assertOneLine(error);
    pixels.release();
  }
  clip.release();
});

gpuTest("prompts() refuses prompts that are too long, and ids beyond the vocabulary", async () => {
  const clip = await clipOf(TINY);
  const refused = (ids: number[], rows: number, message: string) =>
    assertOneLine(
      assertThrows(() => clip.text.prompts(Int32Array.from(ids), rows), RangeError, message),
    );
  refused(new Array(22).fill(1), 2, "2 prompts of 11 tokens: the model's context is 10 tokens");
  refused(new Array(15).fill(1), 2, "2 prompts of 7.5 tokens");
  refused([], 1, "1 prompts of 0 tokens");
  refused([], 0, "0 prompts");
  refused([48, 50, 49], 1, "Cannot encode token 50: the model's vocabulary has 50 tokens");
  refused([48, -1, 49], 1, "Cannot encode token -1");
  // The longest prompt and the last token are accepted.
  clip.text.prompts(Int32Array.from({ length: 10 }, (_, i) => 40 + i), 1).release();
  clip.release();
});

async function held(use: (clip: Clip) => Promise<unknown>): Promise<number> {
  const before = memory().liveBuffers;
  const clip = await clipOf(TINY);
  const loaded = memory().liveBuffers - before;
  await use(clip);
  assertEquals(memory().liveBuffers - before, loaded);
  clip.release();
  assertEquals(memory().liveBuffers, before);
  return loaded;
}

gpuTest("a model holds one buffer for each weight, and none after its release", async () => {
  assertEquals(await held(logitsOf), weightShapes(TINY).size);
  let late: Clip;
  await held((clip) => Promise.resolve(late = clip));
  const pixels = tensor(new Float32Array(3 * 16 * 16), [1, 3, 16, 16]);
  assertOneLine(assertThrows(() => late.imageFeatures(pixels), Error, "a released tensor"));
  pixels.release();
});
