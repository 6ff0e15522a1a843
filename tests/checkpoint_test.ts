/** Adapters are saved to files and loaded again. */

import {
  assert,
  assertEquals,
  assertGreater,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  type AdapterConfig,
  DEFAULT_ADAPTER,
  type LowRankAdapters,
} from "../blocklora/methods/adapter_config.ts";
import type { Adapters } from "../blocklora/methods/adapters.ts";
import { attach } from "../blocklora/methods/lookup.ts";
import { sites } from "../blocklora/methods/sites.ts";
import { saveAdapters } from "../blocklora/methods/checkpoint.ts";
import type { SavedAdapters } from "../blocklora/methods/method.ts";
import { loadAdapters } from "../blocklora/methods/lookup.ts";
import type { Clip } from "../clip/clip.ts";
import { currentEngine } from "../tensor/engine.ts";
import { memory } from "../tensor/memory.ts";
import { Random } from "../tensor/random.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { encodeSafetensors, type TensorToSave } from "../tensor/encode_safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { gpuTest } from "./gpu.ts";
import {
  clipOf,
  Comparison,
  encoded,
  logitsOf,
  randomInputs,
  randomWeights,
  TINY,
} from "./reference.ts";

const LORA: AdapterConfig = { ...DEFAULT_ADAPTER, method: "lora", rank: 4, blocks: 1 };
const BLOCKS: AdapterConfig = { ...DEFAULT_ADAPTER, rank: 8, blocks: 4, alpha: 3 };
const CONFIGS: Record<string, AdapterConfig> = {
  "LoRA": LORA,
  "LoRA, alpha / r": { ...LORA, rank: 3, alpha: 2, scaling: "linear" },
  "Block-LoRA": BLOCKS,
  "Block-LoRA, alpha / r": { ...BLOCKS, rank: 6, blocks: 3, scaling: "linear", dropout: 0 },
  "Block-LoRA of one block": { ...BLOCKS, rank: 2, blocks: 1 },
  "LoRA on parts": {
    ...LORA,
    projections: ["o", "fc1", "fc2"],
    encoder: "vision",
    position: [0, 2],
  },
  "Block-LoRA in the text tower": { ...BLOCKS, projections: ["v"], encoder: "text" },
};

/** Makes every matrix of every block random, as training would. */
function randomize(adapters: Adapters): void {
  const random = new Random(3, "adapters");
  for (const matrix of adapters.parameters) {
    const values = Float32Array.from({ length: matrix.size }, () => 0.3 * random.normal());
    currentEngine().queue.write(matrix.binding.buffer, 0, values);
  }
}

async function matricesOf(adapters: LowRankAdapters): Promise<unknown> {
  const each = [...adapters.byModule].map(async ([module, { tensors, scale }]) => ({
    module,
    scale,
    values: await Promise.all(Object.values(tensors).map((matrix) => matrix.data())),
  }));
  return await Promise.all(each);
}

async function opened({ weights }: Pick<SavedAdapters, "weights">): Promise<SafetensorsFile> {
  return await SafetensorsFile.open(bytesSource(weights, "adapter_model.safetensors"));
}

async function reload(clip: Clip, saved: SavedAdapters): Promise<LowRankAdapters> {
  const { adapters } = await loadAdapters(clip, await opened(saved), JSON.parse(saved.config));
  return adapters as LowRankAdapters;
}

function assertLogits(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  new Comparison().numbers("logits", actual, expected, { atol: 1e-4, rtol: 0 });
}

for (const [name, config] of Object.entries(CONFIGS)) {
  gpuTest(`saved, loaded, merged and exported adapters give the same logits: ${name}`, async () => {
    const clip = await clipOf(TINY);
    const plain = await logitsOf(clip);
    const adapters = attach(clip, config, 1);
    assertLogits(await logitsOf(clip), plain);
    randomize(adapters);
    const adapted = await logitsOf(clip);
    assertGreater(Math.max(...adapted.map((logit, i) => Math.abs(logit - plain[i]))), 1);

    const model = { name: "tiny", model: clip };
    const saved = await saveAdapters(adapters, model);
    const exported = await saveAdapters(adapters, model, { format: "peft" });
    assertEquals(await saveAdapters(adapters, model), saved);
    const matrices = await matricesOf(adapters);

    adapters.merge();
    assertLogits(await logitsOf(clip), adapted);
    assertEquals(await saveAdapters(adapters, model), saved);
    adapters.release();
    assertEquals(await logitsOf(clip), plain);

    const loaded = await reload(clip, saved);
    assertEquals(await logitsOf(clip), adapted);
    assertEquals(await matricesOf(loaded), matrices);
    assertEquals(loaded.config, config);
    assertEquals(await saveAdapters(loaded, model), saved);
    loaded.release();

    const imported = await reload(clip, exported);
    assertEquals(imported.config.method, "lora");
    assertEquals(imported.config.rank, config.rank / config.blocks);
    assertLogits(await logitsOf(clip), adapted);
    assertEquals(await saveAdapters(imported, model, { format: "peft" }), exported);
    imported.release();
    clip.release();
  });

  gpuTest(`PEFT's formula gives the exported change: ${name}`, async () => {
    const clip = await clipOf(TINY);
    const adapters = attach(clip, config, 1);
    randomize(adapters);
    const saved = await saveAdapters(adapters, { name: "tiny", model: clip }, { format: "peft" });
    const json = JSON.parse(saved.config);
    assertEquals(json.peft_type, "LORA");
    assert(!("octograd" in json) && !("blocks" in json));
    const file = await opened(saved);
    const { r, lora_alpha, use_rslora, target_modules } = json;
    const scale = lora_alpha / (use_rslora ? Math.sqrt(r) : r);
    const targeted = sites(clip).map(({ module }) => module).filter((module) =>
      target_modules.some((target: string) => `.${module}`.endsWith(`.${target}`))
    );
    assertEquals(targeted, [...adapters.byModule.keys()]);
    assertEquals(file.tensors.size, 2 * targeted.length);
    for (const [module, adapter] of adapters.byModule) {
      const change = adapter.weightDelta();
      const [outputs, inputs] = change.shape;
      const [a, b] = await Promise.all(
        ["A", "B"].map((matrix) => file.floats(`base_model.model.${module}.lora_${matrix}.weight`)),
      );
      const expected = Array.from({ length: outputs * inputs }, (_, i) => {
        const [row, column] = [Math.floor(i / inputs), i % inputs];
        let total = 0;
        for (let k = 0; k < r; k++) total += b[row * r + k] * a[k * inputs + column];
        return scale * total;
      });
      const tolerance = { atol: 1e-5, rtol: 1e-5 };
      new Comparison().numbers(module, await change.data(), expected, tolerance);
      change.release();
    }
    adapters.release();
    clip.release();
  });
}

for (const format of ["octograd", "peft"] as const) {
  for (const name of ["LoRA", "Block-LoRA"]) {
    gpuTest(`another process gives the same logits: ${name}, ${format}`, async () => {
      const weights = randomWeights(TINY);
      const clip = await clipOf(TINY, weights);
      const adapters = attach(clip, CONFIGS[name], 1);
      randomize(adapters);
      const adapted = await logitsOf(clip);
      const extra = { classes: ["a cat", "a dog"], template: "a {}" };
      const saved = await saveAdapters(adapters, { name: "tiny", model: clip }, { format, extra });
      const { pixels, ids, prompts: rows } = randomInputs(TINY);
      const { imageSize } = TINY.vision;
      const shape = [pixels.length / (3 * imageSize ** 2), 3, imageSize, imageSize];

      const directory = await Deno.makeTempDir();
      try {
        const inputs = { pixels: Array.from(pixels), shape, ids: Array.from(ids), rows };
        const files = {
          "model.safetensors": encodeSafetensors(weights),
          "sizes.json": JSON.stringify(TINY),
          "inputs.json": JSON.stringify(inputs),
          "adapter_model.safetensors": saved.weights,
          "adapter_config.json": saved.config,
        };
        for (const [file, content] of Object.entries(files)) {
          const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
          await Deno.writeFile(`${directory}/${file}`, bytes);
        }
        const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
          args: [
            "run",
            "--no-config",
            "--allow-read",
            new URL("checkpoint_child.ts", import.meta.url).href,
            directory,
          ],
        }).output();
        assert(success, new TextDecoder().decode(stderr));
        const there = JSON.parse(new TextDecoder().decode(stdout));
        assertLogits(there.logits, adapted);
        assertEquals(there.extra, format === "octograd" ? extra : {});
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
      adapters.release();
      clip.release();
    });
  }
}

/** A PEFT adapter on one layer of the text tower and one of the image tower. */
function peftFiles(rank = 2): {
  tensors: Record<string, TensorToSave>;
  config: Record<string, unknown>;
} {
  const random = new Random(9, "peft");
  const matrix = (...shape: number[]): TensorToSave => ({
    dtype: "F32",
    shape,
    data: Float32Array.from({ length: shape[0] * shape[1] }, () => random.normal()),
  });
  return {
    tensors: {
      [FIRST("A")]: matrix(rank, 24),
      [FIRST("B")]: matrix(24, rank),
      [SECOND("A")]: matrix(rank, 32),
      [SECOND("B")]: matrix(56, rank),
    },
    config: {
      peft_type: "LORA",
      r: rank,
      lora_alpha: 6,
      lora_dropout: 0.1,
      use_rslora: false,
      target_modules: ["q_proj", "fc1"],
      bias: "none",
      // What else PEFT 0.21 writes.
      ...{ alora_invocation_tokens: null, arrow_config: null, auto_mapping: null },
      ...{ base_model_name_or_path: "some/clip", corda_config: null, eva_config: null },
      ...{ exclude_modules: null, fan_in_fan_out: false, inference_mode: true, lora_bias: false },
      ...{ init_lora_weights: true, layer_replication: null, layers_pattern: null },
      ...{ layers_to_transform: null, loftq_config: {}, megatron_config: null, revision: null },
      ...{ megatron_core: "megatron.core", modules_to_save: null, qalora_group_size: 16 },
      ...{ rank_pattern: {}, alpha_pattern: {}, target_parameters: null, task_type: null },
      ...{ trainable_token_indices: null, use_dora: false, use_qalora: false },
      ...{ ensure_weight_tying: false, kasa_config: null, lora_ga_config: null },
      ...{ monteclora_config: null, use_bdlora: null, velora_config: null },
      ...{ peft_version: "0.21.0", runtime_config: { ephemeral_gpu_offload: false } },
    },
  };
}

const FIRST = (matrix: string) =>
  `base_model.model.text_model.encoder.layers.1.self_attn.q_proj.lora_${matrix}.weight`;
const SECOND = (matrix: string) =>
  `base_model.model.vision_model.encoder.layers.0.mlp.fc1.lora_${matrix}.weight`;

gpuTest("loadAdapters() follows PEFT's patterns of ranks and alphas", async () => {
  const clip = await clipOf(TINY);
  const { tensors, config } = peftFiles(2);
  const wider = peftFiles(5).tensors;
  const { adapters } = await loadAdapters(
    clip,
    await encoded({ ...tensors, [FIRST("A")]: wider[FIRST("A")], [FIRST("B")]: wider[FIRST("B")] }),
    {
      ...config,
      target_modules: ".*\\.(q_proj|fc1)",
      rank_pattern: { "text_model.*q_proj": 5, "proj": 7 },
      alpha_pattern: { "layers.0.mlp.fc1": 10, "fc1": 1 },
    },
  );
  const { byModule, config: found } = adapters as LowRankAdapters;
  const scales = [...byModule.values()].map(({ scale }) => scale);
  assertEquals(scales, [6 / 5, 10 / 2]);
  assertEquals(found.encoder, "both");
  assertEquals(found.projections, ["q", "fc1"]);
  assertEquals(found.dropout, 0.1);
  const adapted = await logitsOf(clip);

  // Ranks and scales that differ survive both formats.
  for (const format of ["octograd", "peft"] as const) {
    const saved = await saveAdapters(adapters, { name: "tiny", model: clip }, { format });
    const again = await reload(clip, saved);
    assertEquals(await logitsOf(clip), adapted);
    assertEquals(await matricesOf(again), await matricesOf(adapters as LowRankAdapters));
    again.release();
  }
  adapters.release();
  clip.release();
});

gpuTest("loadAdapters() reads half precision", async () => {
  const clip = await clipOf(TINY);
  const { tensors, config } = peftFiles();
  const names = Object.keys(tensors);
  const halves = names.map((name) => [name, { ...tensors[name], dtype: "BF16" as const }]);
  const { adapters } = await loadAdapters(clip, await encoded(Object.fromEntries(halves)), config);
  const data = await adapters.parameters[0].data();
  const { data: full } = tensors[FIRST("A")];
  new Comparison().numbers("A", data, full, { atol: 0, rtol: 2 ** -8 });
  adapters.release();
  clip.release();
});

gpuTest("loadAdapters() reads what does not change PEFT's numbers", async () => {
  const clip = await clipOf(TINY);
  const { tensors, config } = peftFiles();
  for (
    const changes of [
      ...[false, "Gaussian", "eva", "orthogonal", "mica"].map((start) => ({
        init_lora_weights: start,
      })),
      { velora_config: { num_groups: 64, scale: 1, init_type: "random" } },
      { ensure_weight_tying: true },
      { eva_config: { rho: 2 }, layers_to_transform: [0, 1], layers_pattern: "layers" },
    ]
  ) {
    const file = await encoded(tensors);
    const { adapters } = await loadAdapters(clip, file, { ...config, ...changes });
    assertEquals((adapters as LowRankAdapters).byModule.size, 2);
    adapters.release();
  }
  clip.release();
});

gpuTest("loadAdapters() refuses what would give wrong numbers, and leaves the model", async () => {
  const clip = await clipOf(TINY);
  const plain = await logitsOf(clip);
  const { tensors, config } = peftFiles();
  const { [FIRST("B")]: firstUp, ...loneA } = tensors;
  const of = (changes: Record<string, unknown>) => ({ ...config, ...changes });
  const also = (name: string, ...shape: number[]) => ({
    ...tensors,
    [name]: {
      dtype: "F32" as const,
      shape,
      data: new Float32Array(shape.reduce((count, size) => count * size, 1)),
    },
  });
  const layer = "base_model.model.text_model.encoder.layers.1.self_attn.q_proj";
  const cases: [string, Record<string, TensorToSave>, unknown, string][] = [
    ["no object", tensors, [1], "configuration is not an object"],
    ["null", tensors, null, "configuration is not an object"],
    ["AdaLoRA", tensors, of({ peft_type: "ADALORA" }), 'peft_type is "ADALORA"'],
    ["no type", tensors, of({ peft_type: undefined }), "peft_type is undefined"],
    ["DoRA", tensors, of({ use_dora: true }), 'lora_magnitude_vector" is missing'],
    ["bias", tensors, of({ bias: "lora_only" }), 'bias is "lora_only"'],
    ["lora_bias", tensors, of({ lora_bias: true }), "lora_bias is true"],
    ["full modules", tensors, of({ modules_to_save: ["visual_projection"] }), "modules_to_save"],
    ["transposed", tensors, of({ fan_in_fan_out: true }), "fan_in_fan_out is true"],
    ["repeated layers", tensors, of({ layer_replication: [[0, 1]] }), "layer_replication"],
    ["LoftQ", tensors, of({ loftq_config: { bits: 4 } }), "loftq_config"],
    // All else that PEFT's LoRA could do from 0.12 to 0.21.
    ...Object.entries({
      alora_invocation_tokens: [1, 2],
      arrow_config: { top_k: 3 },
      corda_config: { corda_method: "ipm" },
      kasa_config: { beta: 1e-4 },
      lora_ga_config: { direction: "ArB2r" },
      monteclora_config: { num_samples: 8 },
      target_parameters: ["q_proj.weight"],
      trainable_token_indices: [7],
      use_bdlora: { nblocks: 2 },
      use_qalora: true,
    }).map(([key, value]): [string, typeof tensors, unknown, string] => [
      key,
      tensors,
      of({ [key]: value }),
      `its ${key} is ${JSON.stringify(value)}, which is not supported`,
    ]),
    ...["pissa", "OLoRA", "loftq", "corda", "lora_ga"].map(
      (start): [string, typeof tensors, unknown, string] => [
        start,
        tensors,
        of({ init_lora_weights: start }),
        `its init_lora_weights is "${start}", which changed the model too`,
      ],
    ),
    ["what is to come", tensors, of({ use_marvel: 2 }), "use_marvel is 2"],
    ["PiSSA", tensors, of({ init_lora_weights: "pissa_niter_4" }), "convert it to plain LoRA"],
    ["no rank", tensors, of({ r: undefined }), "r is undefined"],
    ["a rank of zero", tensors, of({ r: 0 }), "r is 0"],
    ["another rank", tensors, of({ r: 4 }), "rank 4 on this model's layer of [24,24] needs [4,24]"],
    ["a rank pattern", tensors, of({ rank_pattern: { fc1: 3 } }), "needs [3,32]"],
    ["a broken rank pattern", tensors, of({ rank_pattern: { fc1: 0 } }), "r is 0"],
    ["words for ranks", tensors, of({ rank_pattern: { fc1: "3" } }), "rank_pattern is"],
    ["a broken pattern", tensors, of({ rank_pattern: { "(": 3 } }), "not a regular expression"],
    ...["(a+)+$", "(.*)*(.*)*(.*)*q", "((x|[)])y?)*z", "(a|a)*b", "(\\w{2,})+", ".*.*.*.*.*x"]
      .flatMap(
        (pattern): [string, typeof tensors, ReturnType<typeof of>, string][] => [
          [`the targets ${pattern}`, tensors, of({ target_modules: pattern }), "take forever"],
          [
            `the ranks of ${pattern}`,
            tensors,
            of({ rank_pattern: { [pattern]: 3 } }),
            "take forever",
          ],
        ],
      ),
    ["no alpha", tensors, of({ lora_alpha: "6" }), 'lora_alpha is "6"'],
    ["much dropout", tensors, of({ lora_dropout: 1 }), "lora_dropout is 1"],
    ["blocks in LoRA", tensors, of({ blocks: 2 }), "it has blocks"],
    ["no blocks", tensors, of({ peft_type: "BLOCK_LORA" }), "blocks is undefined"],
    [
      "parts of LoRA as blocks",
      tensors,
      of({ peft_type: "BLOCK_LORA", blocks: 2 }),
      "is not known, the parts are lora_A.weight, lora_B.0.weight, lora_B.1.weight",
    ],
    ["other targets", tensors, of({ target_modules: ["q_proj"] }), "not among its target_modules"],
    ["no tensors", {}, config, "holds no adapter"],
    ["a lone A", loneA, config, `"${layer}.lora_B.weight" is missing`],
    [
      "a magnitude",
      also(`${layer}.lora_magnitude_vector`, 24),
      config,
      'lora_magnitude_vector" is not known',
    ],
    [
      "an embedding",
      also("base_model.model.text_model.embeddings.token_embedding.lora_embedding_A", 2, 50),
      config,
      "is for no layer that this model can adapt",
    ],
    [
      "a patch embedding",
      also("base_model.model.vision_model.embeddings.patch_embedding.lora_A.weight", 2, 32),
      config,
      "no layer",
    ],
    ["another prefix", also("text_model.q_proj.lora_A.weight", 2, 24), config, "no layer"],
    [
      "a deeper model's",
      also(FIRST("A").replace("layers.1", "layers.2"), 2, 24),
      config,
      "is it for another model?",
    ],
    ["a wider model's", { ...tensors, [FIRST("B")]: also("B", 48, 2).B }, config, "needs [24,2]"],
  ];
  for (const [what, files, json, message] of cases) {
    const attempt = async () => await loadAdapters(clip, await encoded(files), json);
    const error = await assertRejects(attempt, RangeError, message);
    assert(error.message.startsWith("Cannot load the adapter: "), `${what}: ${error.message}`);
    assert(!/[\n.]$|\n/.test(error.message), `${what}: ${error.message}`);
  }
  assert(firstUp);
  assertEquals(await logitsOf(clip), plain);
  assert(sites(clip).every(({ linear }) => linear.adapter === null));
  clip.release();
});

gpuTest(
  "loadAdapters() refuses a block that is missing, and ranks that blocks do not divide",
  async () => {
    const clip = await clipOf(TINY);
    const adapters = attach(clip, BLOCKS, 1);
    const saved = await saveAdapters(adapters, { name: "tiny", model: clip });
    adapters.release();
    const file = await opened(saved);
    const json = JSON.parse(saved.config);
    assertEquals([json.peft_type, json.r, json.blocks, json.lora_alpha], ["BLOCK_LORA", 8, 4, 3]);
    assertEquals(json.target_modules, ["k_proj", "q_proj", "v_proj"]);
    await assertRejects(() => loadAdapters(clip, file, { ...json, r: 9 }), RangeError, "multiple");
    await assertRejects(() => loadAdapters(clip, file, { ...json, r: 16 }), RangeError, "needs");
    const few = { ...json, blocks: 3, r: 6 };
    await assertRejects(() => loadAdapters(clip, file, few), RangeError, "lora_B.3.weight");
    const many = { ...json, blocks: 5, r: 10 };
    await assertRejects(
      () => loadAdapters(clip, file, many),
      RangeError,
      'lora_B.4.weight" is missing',
    );
    clip.release();
  },
);

gpuTest(
  "loadAdapters() tells the model, even rounded, from another of the same sizes",
  async () => {
    const weights = randomWeights(TINY);
    const clip = await clipOf(TINY, weights);
    const adapters = attach(clip, LORA, 1);
    const saved = await saveAdapters(adapters, { name: "tiny", model: clip });
    const exported = await saveAdapters(adapters, { name: "tiny", model: clip }, {
      format: "peft",
    });
    adapters.release();
    clip.release();

    const other = await clipOf(TINY, randomWeights(TINY, 2));
    const error = await assertRejects(() => reload(other, saved), RangeError);
    assertStringIncludes(error.message, "made for a model of the same sizes with other weights");
    // PEFT's format does not say which weights the adapter was made for.
    (await reload(other, exported)).release();
    other.release();

    for (const dtype of ["F16", "BF16"] as const) {
      const rounded = await clipOf(
        TINY,
        Object.fromEntries(Object.entries(weights).map(([name, w]) => [name, { ...w, dtype }])),
      );
      (await reload(rounded, saved)).release();
      rounded.release();
    }
  },
);

gpuTest("saveAdapters() saves extra fields with the adapters", async () => {
  const clip = await clipOf(TINY);
  const adapters = attach(clip, LORA, 1);
  const extra = { model: "tiny", classes: ["über", "b"], recipe: { rate: 5e-3, steps: [1, 2] } };
  const saved = await saveAdapters(adapters, { name: "tiny", model: clip }, { extra });
  adapters.release();
  const json = JSON.parse(saved.config);
  assertEquals(json.base_model_name_or_path, "tiny");
  const loaded = await loadAdapters(clip, await opened(saved), json);
  assertEquals(loaded.extra, extra);
  loaded.adapters.release();
  clip.release();
});

gpuTest("adapters with NaN or infinity are neither saved nor loaded", async () => {
  const clip = await clipOf(TINY);
  const adapters = attach(clip, BLOCKS, 1);
  const model = { name: "tiny", model: clip };
  const saved = await saveAdapters(adapters, model);
  const buffer = adapters.parameters[1].binding.buffer;
  for (const value of [NaN, Infinity]) {
    currentEngine().queue.write(buffer, 8, Float32Array.of(value));
    await assertRejects(() => saveAdapters(adapters, model), RangeError, `holds ${value}`);
  }
  adapters.release();
  const plain = await logitsOf(clip);
  const { liveBuffers } = memory();
  const weights = saved.weights.slice();
  new DataView(weights.buffer).setFloat32(weights.length - 4, NaN, true);
  await assertRejects(() => reload(clip, { ...saved, weights }), RangeError, "holds NaN");
  assertEquals(memory().liveBuffers, liveBuffers);
  assertEquals(await logitsOf(clip), plain);
  clip.release();
});
