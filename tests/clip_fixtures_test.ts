/** Every case of the `clip` fixtures: small models in two namings, held to PyTorch. */

import { assert, assertEquals } from "@std/assert";
import { crossEntropy } from "../autograd/ops/cross_entropy.ts";
import { l2Normalize } from "../autograd/ops/normalize.ts";
import { add, mulScalar } from "../autograd/ops/pointwise.ts";
import { mean } from "../autograd/ops/reduce.ts";
import { argmax } from "../autograd/ops/top_k.ts";
import { reshape, slice, transpose } from "../autograd/ops/view.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import type { Clip } from "../clip/clip.ts";
import { parseConfig } from "../clip/config.ts";
import { type Prompts, TextTower } from "../clip/text.ts";
import { tensor } from "../tensor/create.ts";
import type { SafetensorsFile } from "../tensor/safetensors.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { fixtures, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";
import {
  Comparison,
  directoriesIn,
  floatTensor,
  openClip,
  openSafetensors,
  readJson,
  type Tolerance,
} from "./reference.ts";

interface Manifest {
  readonly logit_scale: number;
  readonly loss: number;
  readonly tolerance: {
    readonly rtol: number;
    readonly loss_atol: number;
    readonly outputs: Readonly<Record<string, { atol: number }>>;
    readonly gradients: Readonly<Record<string, { atol: number }>>;
  };
}

interface Renaming {
  readonly hf: string;
  readonly openai: string;
  /** `same`, `transpose` or `rows a..b`. */
  readonly op: string;
}

/** One model's files. */
class Case {
  readonly directory: URL;
  readonly manifest: Manifest;
  readonly io: SafetensorsFile;

  constructor(directory: URL, manifest: Manifest, io: SafetensorsFile) {
    this.directory = directory;
    this.manifest = manifest;
    this.io = io;
  }

  static async open(directory: URL): Promise<Case> {
    return new Case(
      directory,
      await readJson(new URL("manifest.json", directory)),
      await openSafetensors(new URL("io.safetensors", directory)),
    );
  }

  /**
   * The tolerance of an output; if the manifest has none, that of the output computed the same way.
   */
  tolerance(output: string): Tolerance {
    const { rtol, outputs } = this.manifest.tolerance;
    const atol = (name: string) => outputs[name].atol;
    if (output in outputs) return { rtol, atol: atol(output) };
    if (output.endsWith(".text_features")) return { rtol, atol: atol("text_features") };
    if (output === "zeroshot_weights") return { rtol, atol: atol("text_embeds") };
    // The same cosines, at a scale of 100.
    const scale = 100 / Math.exp(this.manifest.logit_scale);
    return { rtol, atol: scale * atol("logits_per_image") };
  }

  async prompts(text: TextTower, name: string): Promise<Prompts> {
    const shape = this.io.tensors.get(name)!.shape;
    const rows = shape.slice(0, -1).reduce((count, size) => count * size, 1);
    return text.prompts(await this.io.integers(name), rows);
  }
}

const compared = new Comparison();

const directory = fixtures("clip");
if (!directory) skip("clip fixtures");
else {
  const models = directoriesIn(directory);
  for (const model of models) {
    const reference = await Case.open(new URL(`${model}/`, directory));
    gpuTest(`Clip agrees with PyTorch: ${model}, Hugging Face's names`, async () => {
      const clip = await openClip(reference.directory);
      const made = await compareOutputs(`${model}/hf`, clip, reference);
      await compareEnds(`${model}/hf`, clip, reference, made);
      const expected = [...reference.io.tensors.keys()].filter((name) => name.startsWith("out."));
      assertEquals([...made].sort(), expected.map((name) => name.slice(4)).sort());
      clip.release();
    });
    if (existsIn(reference.directory, "openai.safetensors")) {
      gpuTest(`Clip agrees with PyTorch: ${model}, OpenAI's names`, async () => {
        const clip = await openClip(reference.directory, ["openai.safetensors"], null);
        const parsed = parseConfig(await readJson(new URL("config.json", reference.directory)));
        // OpenAI's model always takes the largest id.
        const text = { ...parsed.text, endRule: "largest-id" as const };
        assertEquals(clip.config, { ...parsed, text });
        await compareOutputs(`${model}/openai`, clip, reference);
        clip.release();
      });
    }
    if (existsIn(reference.directory, "grads.safetensors")) {
      gpuTest(`Clip's gradients agree with PyTorch: ${model}`, async () => {
        const clip = await openClip(reference.directory);
        await compareGradients(model, clip, reference);
        clip.release();
      });
    }
    if (existsIn(reference.directory, "io_lowp.safetensors")) {
      gpuTest(`Clip reads rounded weights: ${model}`, () => compareRounded(model, reference));
    }
  }

  Deno.test("clip fixtures are compared in full", () => {
    assert(models.length > 0 && compared.names.size >= 20 * models.length);
    compared.report(`clip fixtures: ${compared.names.size} tensors of ${models.length} models`);
  });
}

/** Every output that does not depend on the rule for the end of a text. */
async function compareOutputs(where: string, clip: Clip, reference: Case): Promise<Set<string>> {
  const { io, manifest } = reference;
  const made = new Set<string>();
  const check = async (name: string, actual: Tensor) => {
    const tolerance = reference.tolerance(name);
    await compared.tensor(`${where}/${name}`, actual, io, `out.${name}`, tolerance);
    made.add(name);
  };

  const pixels = await floatTensor(io, "in.pixel_values");
  const prompts = await reference.prompts(clip.text, "in.input_ids");
  for (const [tower, input] of [["vision", pixels], ["text", prompts]] as const) {
    let hidden = input === pixels ? clip.vision.embed(pixels) : clip.text.embed(prompts);
    for (const [i, block] of clip[tower].blocks.entries()) {
      const next = block.forward(hidden);
      await check(`${tower}.hidden_states.${i}`, hidden);
      hidden = next;
    }
    const last = scope(() => mulScalar(hidden, 1));
    const isText = input === prompts;
    await check(`${tower}.last_hidden_state`, isText ? clip.text.normalize(last) : last);
    if (isText) last.release();
    await check(
      `${tower}.pooler_output`,
      isText ? clip.text.pool(hidden, prompts) : clip.vision.pool(hidden),
    );
    await check(`${tower}.hidden_states.${clip[tower].blocks.length}`, hidden);
  }

  const images = clip.imageFeatures(pixels);
  const texts = clip.textFeatures(prompts);
  const logits = clip.logits(images, texts);
  await check("image_embeds", l2Normalize(images));
  await check("text_embeds", l2Normalize(texts));
  await check("logits_per_image", scope(() => mulScalar(logits, 1)));
  await check("logits_per_text", transpose(logits));
  const loss = contrastiveLoss(logits);
  const { loss_atol, rtol } = manifest.tolerance;
  compared.numbers(`${where}/loss`, await loss.data(), [manifest.loss], { atol: loss_atol, rtol });
  compared.numbers(`${where}/loss`, await loss.data(), await io.floats("out.loss"), {
    atol: loss_atol,
    rtol: 0,
  });
  made.add("loss");

  const [classes, perClass] = io.tensors.get("in.zeroshot_ids")!.shape;
  const several = await reference.prompts(clip.text, "in.zeroshot_ids");
  const weights = scope(() => {
    const each = l2Normalize(clip.textFeatures(several));
    return l2Normalize(mean(reshape(each, [classes, perClass, -1]), { axis: 1 }));
  });
  const zeroshot = clip.logits(images, weights, 100);
  const predictions = argmax(zeroshot);
  assertEquals(
    Array.from(await predictions.data()),
    Array.from(await io.integers("out.zeroshot_predictions")),
  );
  compared.names.add(`${where}/zeroshot_predictions`);
  made.add("zeroshot_predictions");
  await check("zeroshot_logits", zeroshot);
  await check("zeroshot_weights", transpose(weights));

  await check("image_features", images);
  await check("text_features", texts);
  for (const name of ["short", "eos_padded"]) {
    const padded = await reference.prompts(clip.text, `in.input_ids_${name}`);
    await check(`${name}.text_features`, clip.textFeatures(padded));
    padded.release();
  }
  for (const owned of [pixels, prompts, several, logits, loss, weights, predictions]) {
    owned.release();
  }
  return made;
}

/** Both rules for the end of a text. */
async function compareEnds(
  where: string,
  clip: Clip,
  reference: Case,
  made: Set<string>,
): Promise<void> {
  for (const rule of ["eos_first", "legacy_eos2"]) {
    const name = `${rule === "eos_first" ? rule : "eos_legacy"}.text_features`;
    const { text } = parseConfig(
      await readJson(new URL(`config_${rule}.json`, reference.directory)),
    );
    const tower = new TextTower(clip.weights, text, clip.config.embedding);
    const prompts = await reference.prompts(tower, "in.input_ids_eos");
    await compared.tensor(
      `${where}/${name}`,
      tower.forward(prompts),
      reference.io,
      `out.${name}`,
      reference.tolerance(name),
    );
    prompts.release();
    made.add(name);
  }
}

/** The mean of both directions' cross-entropies, of as many texts as there are images. */
function contrastiveLoss(logits: Tensor): Tensor {
  return scope(() => {
    const [count] = logits.shape;
    const square = slice(logits, 1, 0, count);
    const labels = tensor(Int32Array.from({ length: count }, (_, i) => i));
    const both = add(crossEntropy(square, labels), crossEntropy(transpose(square), labels));
    return mulScalar(both, 0.5);
  });
}

async function compareGradients(model: string, clip: Clip, reference: Case): Promise<void> {
  const { io, directory, manifest } = reference;
  const expected = await openSafetensors(new URL("grads.safetensors", directory));
  const renamings: Renaming[] = Object.values(await readJson(new URL("name_map.json", directory)));
  assertEquals(renamings.map(({ hf }) => hf).sort(), [...clip.weights.names].sort());

  const pixels = await floatTensor(io, "in.pixel_values");
  const prompts = await reference.prompts(clip.text, "in.input_ids");
  const parameters = [...renamings.map(({ hf }) => clip.weights.get(hf)), pixels];
  const { value, grads } = valueAndGrad(
    () => contrastiveLoss(clip.logits(clip.imageFeatures(pixels), clip.textFeatures(prompts))),
    parameters,
  );
  const { rtol, gradients, loss_atol } = manifest.tolerance;
  compared.numbers(`${model}/loss with gradients`, await value.data(), [manifest.loss], {
    atol: loss_atol,
    rtol: 0,
  });

  const seen = new Set<string>();
  for (const [i, { hf, openai, op }] of renamings.entries()) {
    const shape = expected.tensors.get(openai)!.shape;
    let wanted = await expected.floats(openai);
    const rows = /^rows (\d+)\.\.(\d+)$/.exec(op);
    if (rows) {
      const width = wanted.length / shape[0];
      wanted = wanted.slice(Number(rows[1]) * width, Number(rows[2]) * width);
    } else assert(op === "same" || op === "transpose", `${op} is unknown`);
    const grad = op === "transpose" ? transpose(grads[i]) : grads[i];
    if (!rows) assertEquals([...grad.shape], [...shape]);
    const { atol } = gradients[openai];
    compared.numbers(`${model}/grad.${hf}`, await grad.data(), wanted, { atol, rtol });
    if (grad !== grads[i]) grad.release();
    seen.add(openai);
  }
  // The manifest has no tolerance for the pixels: a ten-thousandth of the largest, as elsewhere.
  const wanted = await expected.floats("in.pixel_values");
  const atol = 1e-4 * wanted.reduce((most, g) => Math.max(most, Math.abs(g)), 0);
  const found = await grads.at(-1)!.data();
  compared.numbers(`${model}/grad.pixel_values`, found, wanted, { atol, rtol });
  seen.add("in.pixel_values");
  assertEquals([...seen].sort(), [...expected.tensors.keys()].sort());
  for (const owned of [value, pixels, prompts, ...grads]) owned.release();
}

/** BF16 in one file and F16 in shards: the features that the rounded weights give. */
async function compareRounded(model: string, reference: Case): Promise<void> {
  const { directory, io } = reference;
  const expected = await openSafetensors(new URL("io_lowp.safetensors", directory));
  const index = await readJson(new URL("sharded_f16/model.safetensors.index.json", directory));
  const shards = new Set(Object.values(index.weight_map as Record<string, string>));
  const weights: Record<string, string[]> = {
    bf16: ["model_bf16.safetensors"],
    f16: [...shards].map((name) => `sharded_f16/${name}`),
  };
  const pixels = await floatTensor(io, "in.pixel_values");
  for (const [dtype, files] of Object.entries(weights)) {
    const clip = await openClip(directory, files);
    const prompts = await reference.prompts(clip.text, "in.input_ids");
    const features = {
      image_features: clip.imageFeatures(pixels),
      text_features: clip.textFeatures(prompts),
    };
    for (const [name, actual] of Object.entries(features)) {
      const tolerance = reference.tolerance(name);
      await compared.tensor(
        `${model}/${dtype}/${name}`,
        actual,
        expected,
        `${dtype}.${name}`,
        tolerance,
      );
    }
    prompts.release();
    clip.release();
  }
  pixels.release();
  assertEquals(expected.tensors.size, 2 * Object.keys(weights).length);
}

function existsIn(directory: URL, name: string): boolean {
  return [...Deno.readDirSync(directory)].some((entry) => entry.name === name);
}
