/** Holds a method to what PEFT computes, by fixtures of one layout for every method. */

import { assert, assertEquals } from "@std/assert";
import { crossEntropy } from "../autograd/ops/cross_entropy.ts";
import { AdamW } from "../autograd/optim/adam.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import type { Adapters } from "../blocklora/methods/adapters.ts";
import { saveAdapters } from "../blocklora/methods/checkpoint.ts";
import { loadAdapters } from "../blocklora/methods/lookup.ts";
import { Clip } from "../clip/clip.ts";
import { parseConfig } from "../clip/config.ts";
import { tensor } from "../tensor/create.ts";
import { memory } from "../tensor/memory.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { fixtures, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";
import { Comparison, floatTensor, openSafetensors, readJson } from "./reference.ts";

interface Manifest {
  readonly labels: readonly number[];
  readonly logit_scale: number;
  readonly optimizer: {
    readonly learning_rate: number;
    readonly weight_decay: number;
    readonly steps: number;
  };
}

/** PEFT computed in float64; float32 may differ by `atol`, and by `rtol` of each value. */
const TOLERANCE = { atol: 1e-4, rtol: 1e-4 };

/**
 * Tests a folder of fixtures: features, logits, loss and gradients; ten steps of AdamW; the merged
 * weights; and that adapters saved here load again, in both formats.
 */
export function testPeftCase(name: string, method: string): void {
  const directory = fixtures(`peft/${name}`);
  if (!directory) return skip(`PEFT's ${name}`);
  const at = new URL("../", directory);
  gpuTest(`${method} agrees with PEFT: ${name}`, async () => {
    const before = memory().liveBuffers;
    const manifest = await readJson(new URL("manifest.json", at)) as Manifest;
    const model = new URL("../clip/b/", at);
    const config = parseConfig(await readJson(new URL("config.json", model)));
    const weights = await openSafetensors(new URL("model.safetensors", model));
    const clip = await Clip.load(config, [weights]);
    const batch = await openSafetensors(new URL("../lora/batch.safetensors", at));
    const pixels = await floatTensor(batch, "pixel_values");
    const [rows] = batch.tensors.get("input_ids")!.shape;
    const prompts = clip.text.prompts(await batch.integers("input_ids"), rows);
    const labels = keep(tensor(Int32Array.from(manifest.labels)));
    const plain = await valuesOf(() => clip.imageFeatures(pixels));

    const file = await openSafetensors(new URL("adapter_model.safetensors", directory));
    const out = await openSafetensors(new URL("out.safetensors", directory));
    const json = await readJson(new URL("adapter_config.json", directory));
    const { adapters } = await loadAdapters(clip, file, json);
    assertEquals(adapters.config.method, method);

    const compared = new Comparison();
    const forward = () => {
      const images = clip.imageFeatures(pixels);
      const texts = clip.textFeatures(prompts);
      const logits = clip.logits(images, texts, manifest.logit_scale);
      return { images, texts, logits, loss: crossEntropy(logits, labels) };
    };
    const check = async (what: string, made: Tensor, key: string, tolerance = TOLERANCE) =>
      compared.numbers(what, await made.data(), await out.floats(key), tolerance);
    const outputs = scope(forward);
    await check("image features", outputs.images, "out.image_features");
    await check("text features", outputs.texts, "out.text_features");
    // Logits are cosines times a hundred.
    await check("logits", outputs.logits, "out.logits", { atol: 1e-3, rtol: 1e-4 });
    for (const made of [outputs.images, outputs.texts, outputs.logits, outputs.loss]) {
      made.release();
    }

    const named = [...adapters.byModule].flatMap(([module, { tensors }]) =>
      Object.entries(tensors).map(([matrix, parameter]) => ({
        parameter,
        // PEFT's modules have the adapter's name, "default", before the last name or after it.
        key: `base_model.model.${module}.${
          matrix.endsWith(".weight")
            ? matrix.replace(/\.weight$/, ".default.weight")
            : matrix.startsWith("vera")
            ? `${matrix}.default`
            : `${matrix}.default.weight`
        }`,
      }))
    );
    const parameters = named.map(({ parameter }) => parameter);
    const optimizer = new AdamW(parameters, {
      learningRate: manifest.optimizer.learning_rate,
      weightDecay: manifest.optimizer.weight_decay,
    });
    const losses: number[] = [];
    for (let step = 1; step <= manifest.optimizer.steps; step++) {
      const { value, grads } = valueAndGrad(() => scope(() => forward().loss), parameters);
      losses.push(await value.item());
      if (step === 1) {
        for (const [i, { key }] of named.entries()) await check(key, grads[i], `grad.${key}`);
      }
      optimizer.step(grads);
      for (const made of [value, ...grads]) made.release();
      if (step !== 1 && step !== manifest.optimizer.steps) continue;
      for (const { key, parameter } of named) {
        await check(`${key}, step ${step}`, parameter, `step${step}.${key}`);
      }
    }
    optimizer.release();
    const expected = await out.floats("out.losses");
    compared.numbers("losses", losses, expected, { atol: 1e-4, rtol: 1e-3 });
    assertEquals(new Set(losses).size, losses.length);

    const adapted = await valuesOf(() => clip.imageFeatures(pixels));
    assert(adapted.some((value, i) => Math.abs(value - plain[i]) > 1e-2));
    adapters.merge();
    const merged = await valuesOf(() => clip.imageFeatures(pixels));
    const wanted = await out.floats("out.merged_image_features");
    compared.numbers("merged image features", merged, wanted, TOLERANCE);
    adapters.unmerge();
    assertEquals(await valuesOf(() => clip.imageFeatures(pixels)), adapted);
    for (const format of ["octograd", "peft"] as const) {
      const again = await reloaded(clip, adapters, format);
      assertEquals(await valuesOf(() => clip.imageFeatures(pixels)), adapted, format);
      assertEquals(again.config, adapters.config);
      again.release();
    }
    adapters.release();
    assertEquals(await valuesOf(() => clip.imageFeatures(pixels)), plain);
    compared.report(`PEFT's ${name}`);
    for (const each of [pixels, prompts, labels, clip]) each.release();
    assertEquals(memory().liveBuffers, before);
  });
}

async function valuesOf(make: () => Tensor): Promise<Float32Array> {
  const made = scope(make);
  const values = await made.data();
  made.release();
  return values as Float32Array;
}

async function reloaded(
  clip: Clip,
  adapters: Adapters,
  format: "octograd" | "peft",
): Promise<Adapters> {
  const { weights, config } = await saveAdapters(adapters, { name: "b", model: clip }, { format });
  const file = await SafetensorsFile.open(bytesSource(weights, "adapter_model.safetensors"));
  return (await loadAdapters(clip, file, JSON.parse(config))).adapters;
}
