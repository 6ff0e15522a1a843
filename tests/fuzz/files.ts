/**
 * The files that are mutated, as they should be.
 *
 * @module
 */

import encodeJpeg from "@jsquash/jpeg/encode.js";
import encodeWebp from "@jsquash/webp/encode.js";
import { dirname, join } from "node:path";
import { EMBEDDED_DATA } from "../../blocklora/data/open_data.ts";
import { saveAdapters } from "../../blocklora/methods/checkpoint.ts";
import { attach, METHODS, presetConfig } from "../../blocklora/methods/lookup.ts";
import { EMBEDDED_MODEL, openModel } from "../../blocklora/models/open_model.ts";
import type { ClipConfig } from "../../clip/config.ts";
import { init } from "../../tensor/device.ts";
import { encodeSafetensors } from "../../tensor/encode_safetensors.ts";
import { encodeTorch } from "../encode_torch.ts";
import { randomWeights, TINY } from "../reference.ts";
import { runOf } from "../results.ts";

/** The configuration that Transformers writes for a model. */
function configOf({ vision, text, embedding }: ClipConfig): unknown {
  const tower = (tower: ClipConfig["vision" | "text"]) => ({
    hidden_size: tower.width,
    num_hidden_layers: tower.layers,
    num_attention_heads: tower.heads,
    intermediate_size: tower.mlpWidth,
    hidden_act: tower.activation,
    layer_norm_eps: tower.layerNormEps,
  });
  return {
    model_type: "clip",
    projection_dim: embedding,
    vision_config: {
      ...tower(vision),
      image_size: vision.imageSize,
      patch_size: vision.patchSize,
      num_channels: 3,
    },
    text_config: {
      ...tower(text),
      vocab_size: text.vocabulary,
      max_position_embeddings: text.context,
      eos_token_id: text.endToken,
    },
  };
}

/** Writes every subject's files below a directory, as they should be. */
export async function prepare(root: string): Promise<void> {
  const encoder = new TextEncoder();
  const write = async (path: string, content: unknown) => {
    const bytes = content instanceof Uint8Array
      ? content
      : encoder.encode(typeof content === "string" ? content : JSON.stringify(content));
    await Deno.mkdir(dirname(join(root, path)), { recursive: true });
    await Deno.writeFile(join(root, path), bytes);
  };
  const embedded = (name: string) => Deno.readFile(new URL(name, EMBEDDED_MODEL));
  const vocabulary = JSON.parse(new TextDecoder().decode(await embedded("vocab.json")));
  const merges = new TextDecoder().decode(await embedded("merges.txt"));
  const text = { ...TINY.text, vocabulary: 2049, context: 24, endToken: 2047 };
  const config: ClipConfig = { ...TINY, text };
  const tensors = randomWeights(config);
  const weights = encodeSafetensors(tensors);
  const preprocessor = { crop_size: 16, size: { shortest_edge: 16 } };

  await write("transformers/config.json", configOf(config));
  await write("transformers/preprocessor_config.json", preprocessor);
  await write("transformers/vocab.json", vocabulary);
  await write("transformers/merges.txt", merges);
  await write("transformers/tokenizer_config.json", await embedded("tokenizer_config.json"));
  await write("transformers/added_tokens.json", { "<smile>": 2048 });
  await write("transformers/model.safetensors", weights);

  await write("sharded/config.json", configOf(config));
  await write("sharded/model-00001-of-00001.safetensors", weights);
  await write("sharded/model.safetensors.index.json", {
    weight_map: Object.fromEntries(
      Object.keys(tensors).map((name) => [name, "model-00001-of-00001.safetensors"]),
    ),
  });
  await write("sharded/tokenizer.json", {
    added_tokens: [{ id: 2047, content: "<|endoftext|>", special: true, normalized: false }],
    normalizer: {
      type: "Sequence",
      normalizers: [{ type: "NFC" }, { type: "Lowercase" }],
    },
    model: {
      type: "BPE",
      end_of_word_suffix: "</w>",
      vocab: vocabulary,
      merges: merges.split("\n").slice(1).filter((line) => line !== ""),
    },
  });
  for (const name of ["open_clip", "torch"]) {
    await write(`${name}/vocab.json`, vocabulary);
    await write(`${name}/merges.txt`, merges);
  }
  await write("open_clip/open_clip_config.json", {
    model_cfg: {
      embed_dim: config.embedding,
      vision_cfg: {
        image_size: 16,
        patch_size: 8,
        width: 32,
        head_width: 16,
        layers: 3,
        mlp_ratio: 1.75,
      },
      text_cfg: {
        mlp_ratio: 5 / 3,
        context_length: 24,
        vocab_size: 2049,
        width: 24,
        heads: 3,
        layers: 2,
      },
    },
    preprocess_cfg: { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] },
  });
  await write("open_clip/open_clip_model.safetensors", weights);
  await write("torch/config.json", configOf(config));
  await write("torch/pytorch_model.bin", encodeTorch(tensors));

  await init();
  const { model } = await openModel(join(root, "transformers"));
  for (const method of METHODS) {
    const adapters = attach(model, presetConfig(method), 1);
    const saved = await saveAdapters(adapters, { name: "tiny", model }, {
      extra: { classes: ["a"] },
    });
    await write(`${method.name}/adapter_config.json`, saved.config);
    await write(`${method.name}/adapter_model.safetensors`, saved.weights);
    adapters.release();
  }
  model.release();

  const png = await Deno.readFile(new URL("test/bag/00095.png", EMBEDDED_DATA));
  for (const root of ["data", "folders"]) {
    for (const path of ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"]) {
      await write(`${root}/${path}`, png);
    }
  }
  await write("folders/classnames.json", { a: "ankle boot", b: "bag" });
  await write("data/split.json", {
    train: [["train/a/1.png", 0, "boot"], ["train/b/1.png", 1, "bag"]],
    test: [["test/a/1.png", 0, "boot"], ["test/b/1.png", 1, "bag"]],
  });
  await write(
    "run/result.json",
    runOf({
      data: "things",
      images: ["test/bag/00095.png", "test/bag/00678.png", "test/bag/002.png", "test/bag/003.png"],
      identity: { model: "0", train: "1", test: "2" },
    }),
  );
  const pixels = new ImageData(
    Uint8ClampedArray.from({ length: 21 * 13 * 4 }, (_, i) => i),
    21,
    13,
  );
  await write("png/image.png", png);
  await write("jpeg/image.jpg", new Uint8Array(await encodeJpeg(pixels)));
  await write("webp/image.webp", new Uint8Array(await encodeWebp(pixels)));
}
