/** A model's weights are named once, and told from those of every other model. */

import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { saveAdapters } from "../blocklora/methods/checkpoint.ts";
import { attach, loadAdapters } from "../blocklora/methods/lookup.ts";
import { Clip, weightShapes } from "../clip/clip.ts";
import type { PrecisionChoice } from "../clip/weights.ts";
import { WeightsHash } from "../clip/weights_hash.ts";
import { encodeSafetensors, type TensorToSave } from "../tensor/encode_safetensors.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { gpuTest } from "./gpu.ts";
import { byOpenaiNames, clipOf, encoded, randomWeights, TINY } from "./reference.ts";

type Tensors = Record<string, TensorToSave>;

async function hashOf(
  files: readonly Tensors[],
  precision: PrecisionChoice = "auto",
): Promise<string> {
  const clip = await Clip.load(TINY, await Promise.all(files.map(encoded)), { precision });
  const { sha256 } = clip.weights.origin!;
  clip.release();
  return sha256!;
}

/** The same weights with one number changed by its last bits. */
function changed(weights: Tensors, name: string): Tensors {
  const data = Float32Array.from(weights[name].data);
  data[data.length - 1] *= 1 + 2 ** -20;
  return { ...weights, [name]: { ...weights[name], data } };
}

const stored = (weights: Tensors, dtype: "F16" | "BF16"): Tensors =>
  Object.fromEntries(Object.entries(weights).map(([name, each]) => [name, { ...each, dtype }]));

Deno.test("weightShapes() asks the towers themselves, and needs no GPU", () => {
  const shapes = weightShapes(TINY);
  assertEquals(shapes.get("logit_scale"), []);
  assertEquals(shapes.get("visual_projection.weight"), [TINY.embedding, TINY.vision.width]);
  const { mlpWidth, width, layers } = TINY.text;
  const last = `text_model.encoder.layers.${layers - 1}.mlp.fc1.weight`;
  assertEquals(shapes.get(last), [mlpWidth, width]);
  assert(!shapes.has(`text_model.encoder.layers.${layers}.mlp.fc1.weight`));
});

gpuTest("a weight is taken by its name and its shape", async () => {
  const clip = await clipOf(TINY);
  const norm = clip.weights.at("vision_model").at("post_layernorm");
  assertEquals(norm.get("bias", [TINY.vision.width]).shape, [TINY.vision.width]);
  assertThrows(() => norm.get("gain", [1]), RangeError, '"vision_model.post_layernorm.gain"');
  assertThrows(() => norm.get("bias", [1]), RangeError, "[1] is needed");
  clip.release();
});

gpuTest(
  "the hash depends on every value, and on no layout or precision",
  async () => {
    const weights = randomWeights(TINY);
    const hash = await hashOf([weights]);
    assertEquals(hash.length, 64);
    assertEquals(await hashOf([weights], "f16"), hash);
    assertEquals(await hashOf([byOpenaiNames(TINY, weights)]), hash);
    const entries = Object.entries(weights);
    const shards = [entries.filter((_, i) => i % 2), entries.filter((_, i) => i % 2 === 0)];
    assertEquals(await hashOf(shards.map((shard) => Object.fromEntries(shard.toReversed()))), hash);
    for (
      const name of [
        "logit_scale",
        "text_projection.weight",
        "text_model.encoder.layers.0.self_attn.k_proj.weight",
        "text_model.embeddings.token_embedding.weight",
        "vision_model.encoder.layers.1.mlp.fc2.bias",
      ]
    ) {
      assertNotEquals(await hashOf([changed(weights, name)]), hash, name);
    }
  },
);

gpuTest("files of F32, F16 and BF16 with the same values hash alike", async () => {
  // These numbers have at most eight bits, so all three types hold them exactly.
  const coarse = Object.fromEntries(
    Object.entries(randomWeights(TINY)).map(([name, each]) => {
      const data = Float32Array.from(each.data, (value) => Math.round(value * 32) / 32);
      return [name, { ...each, data }];
    }),
  );
  const hash = await hashOf([coarse]);
  for (const dtype of ["F16", "BF16"] as const) {
    assertEquals(await hashOf([stored(coarse, dtype)]), hash, dtype);
  }
  assertNotEquals(await hashOf([stored(randomWeights(TINY), "F16")]), hash);
});

/** More values than fit two of the blocks that are hashed at once. */
const MANY = Float32Array.from({ length: 2 ** 19 + 7 }, (_, i) => i);

Deno.test("WeightsHash does not depend on the pieces in which the values come", async () => {
  const hashOfPieces = async (size: number) => {
    const hash = new WeightsHash();
    hash.begin("many", [MANY.length], false);
    for (let at = 0; at < MANY.length; at += size) {
      const piece = MANY.slice(at, at + size);
      await hash.add(piece);
      piece.fill(0); // a reader may use its memory again
    }
    hash.end();
    return await hash.digest();
  };
  const hash = await hashOfPieces(MANY.length);
  for (const size of [1000, 2 ** 18 - 1, 2 ** 18, 2 ** 18 + 1]) {
    assertEquals(await hashOfPieces(size), hash, `pieces of ${size}`);
  }
});

Deno.test("WeightsHash lets no more blocks wait than were added last", async () => {
  const { subtle } = crypto;
  const digest = subtle.digest.bind(subtle);
  let [waiting, most] = [0, 0];
  subtle.digest = async (...of) => {
    most = Math.max(most, ++waiting);
    try {
      return await digest(...of);
    } finally {
      waiting--;
    }
  };
  try {
    const hash = new WeightsHash();
    for (let weight = 0; weight < 20; weight++) {
      hash.begin(`${weight}`, [MANY.length], false);
      await hash.add(MANY);
      hash.end();
    }
    await hash.digest();
  } finally {
    subtle.digest = digest;
  }
  // At most the blocks of one weight; a browser may have hashed some of them by then.
  assert(most <= 3, `${most} blocks are waiting`);
});

gpuTest(
  "adapters know their model by all its weights, and accept a rounded copy",
  async () => {
    const weights = randomWeights(TINY);
    const clip = await clipOf(TINY, weights);
    const adapters = attach(clip, DEFAULT_ADAPTER, 1);
    const saved = await saveAdapters(adapters, { name: "tiny", model: clip });
    adapters.release();
    clip.release();
    const load = async (tensors: Tensors, change = (config: unknown) => config) => {
      const source = bytesSource(saved.weights, "adapter_model.safetensors");
      const other = await Clip.load(TINY, [
        await SafetensorsFile.open(bytesSource(encodeSafetensors(tensors), "model.safetensors")),
      ]);
      try {
        const file = await SafetensorsFile.open(source);
        const { adapters, extra } = await loadAdapters(
          other,
          file,
          change(JSON.parse(saved.config)),
        );
        adapters.release();
        return Object.keys(extra);
      } finally {
        other.release();
      }
    };
    assertEquals(await load(weights), []);
    const message = "with other weights";
    const other = changed(weights, "text_model.encoder.layers.0.mlp.fc1.weight");
    await assertRejects(() => load(other), RangeError, message);
    // Rounded to another type, all values differ a little.
    for (const dtype of ["F16", "BF16"] as const) await load(stored(weights, dtype));
    await assertRejects(() => load(stored(randomWeights(TINY, 2), "F16")), RangeError, message);
    // Version 0.1 saved only a sample of weights that no adapter changes.
    const asOld = (config: unknown) => {
      const { octograd, ...peft } = config as { octograd: Record<string, unknown> };
      return { ...peft, octograd: { visualProjection: octograd.visualProjection } };
    };
    await load(weights, asOld);
    await load(other, asOld);
    await assertRejects(() => load(randomWeights(TINY, 2), asOld), RangeError, message);
  },
);
