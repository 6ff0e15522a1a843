/**
 * Reads reference models and values, and compares with them.
 *
 * @module
 */

import { assert, assertEquals, fail } from "@std/assert";
import { type OpenedModel, openModel, type OpenOptions } from "../blocklora/models/open_model.ts";
import { Clip, weightShapes } from "../clip/clip.ts";
import { type ClipConfig, configFromOpenai, parseConfig } from "../clip/config.ts";
import { openaiSource } from "../clip/openai_weights.ts";
import { tensor } from "../tensor/create.ts";
import { Random } from "../tensor/random.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { encodeSafetensors, type TensorToSave } from "../tensor/encode_safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { keep, scope } from "../tensor/scope.ts";
import { numel } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** How far apart two numbers may be: `atol + rtol · |expected|`. */
export interface Tolerance {
  readonly atol: number;
  readonly rtol: number;
}

/** Counts comparisons, and remembers the largest error as a share of its tolerance. */
export class Comparison {
  /** The names of what was compared. */
  readonly names: Set<string> = new Set();
  /** The largest error, as a share of its tolerance. */
  worst = 0;
  /** The name of the comparison with the largest error. */
  where = "";

  /** Compares element by element; a NaN on either side fails. */
  numbers(
    name: string,
    actual: ArrayLike<number>,
    expected: ArrayLike<number>,
    { atol, rtol }: Tolerance,
  ): void {
    assertEquals(actual.length, expected.length, `${name} has another size`);
    for (let i = 0; i < expected.length; i++) {
      const share = Math.abs(actual[i] - expected[i]) / (atol + rtol * Math.abs(expected[i]));
      if (!(share <= 1)) {
        fail(`${name}[${i}] is ${actual[i]}, not ${expected[i]}: ${share} of its tolerance`);
      }
      if (share > this.worst) [this.worst, this.where] = [share, name];
    }
    this.names.add(name);
  }

  /** Compares a tensor with one of a file, shape and elements, and releases it. */
  async tensor(
    name: string,
    actual: Tensor,
    file: SafetensorsFile,
    key: string,
    tolerance: Tolerance,
  ): Promise<void> {
    assertEquals([...actual.shape], [...file.tensors.get(key)!.shape], `${name} has another shape`);
    this.numbers(name, await actual.data(), await file.floats(key), tolerance);
    actual.release();
  }

  /** Prints what was compared, and how close it came. */
  report(what: string): void {
    console.log(`${what}; worst error ${(100 * this.worst).toFixed(1)} % of its tolerance`);
  }
}

/** Opens a safetensors file. */
export async function openSafetensors(url: URL): Promise<SafetensorsFile> {
  return await SafetensorsFile.open(bytesSource(await Deno.readFile(url), url.pathname));
}

/** Reads a JSON file. */
// deno-lint-ignore no-explicit-any
export async function readJson(url: URL): Promise<any> {
  return JSON.parse(await Deno.readTextFile(url));
}

/** Loads a model of a directory; without a configuration it is inferred from OpenAI's names. */
export async function openClip(
  directory: URL,
  weights: readonly string[] = ["model.safetensors"],
  config: string | null = "config.json",
): Promise<Clip> {
  const files = await Promise.all(weights.map((name) => openSafetensors(new URL(name, directory))));
  return await Clip.load(await configOf(directory, files[0], config), files);
}

async function configOf(
  directory: URL,
  file: SafetensorsFile,
  config: string | null,
): Promise<ClipConfig> {
  if (config !== null) return parseConfig(await readJson(new URL(config, directory)));
  return configFromOpenai(new Map([...file.tensors].map(([name, { shape }]) => [name, shape])));
}

/** A tensor of floats from a file. It is the caller's to release. */
export async function floatTensor(file: SafetensorsFile, name: string): Promise<Tensor> {
  return keep(tensor(await file.floats(name), file.tensors.get(name)!.shape));
}

/** The names of the directories in a directory, sorted. */
export function directoriesIn(url: URL): string[] {
  return [...Deno.readDirSync(url)].filter(({ isDirectory }) => isDirectory)
    .map(({ name }) => name).sort();
}

/** The sizes of a small model, no two of them equal. */
export const TINY: ClipConfig = {
  vision: {
    width: 32,
    layers: 3,
    heads: 2,
    mlpWidth: 56,
    activation: "quick_gelu",
    layerNormEps: 1e-5,
    imageSize: 16,
    patchSize: 8,
  },
  text: {
    width: 24,
    layers: 2,
    heads: 3,
    mlpWidth: 40,
    activation: "gelu",
    layerNormEps: 1e-5,
    vocabulary: 50,
    context: 10,
    endToken: 49,
    endRule: "first-end",
  },
  embedding: 20,
};

/** Random weights of a model, by Hugging Face's names. */
export function randomWeights(config: ClipConfig, seed = 1): Record<string, TensorToSave> {
  const random = new Random(seed, "weights");
  return Object.fromEntries(
    [...weightShapes(config)].map(([name, shape]) => {
      const isNorm = /norm\d?\.weight$/.test(name);
      const spread = 1 / Math.sqrt(shape.at(-1) ?? 1);
      const data = Float32Array.from(
        { length: numel(shape) },
        () => (isNorm ? 1 : 0) + spread * random.normal(),
      );
      return [name, { dtype: "F32", shape, data }];
    }),
  );
}

/**
 * Weights by OpenAI's names: queries, keys and values are joined, projections transposed. `text` is
 * that of `openaiSource()`.
 */
export function byOpenaiNames(
  config: ClipConfig,
  weights: Readonly<Record<string, TensorToSave>>,
  text: "" | "text." = "",
): Record<string, TensorToSave> {
  const named: Record<string, TensorToSave> = {};
  for (const [name, shape] of weightShapes(config)) {
    const { name: other, third, transposed } = openaiSource(name, text);
    const { dtype, data: held } = weights[name];
    const data = Float32Array.from(held);
    if (third !== undefined) {
      const joined = Float32Array.from([...Array.from(named[other]?.data ?? []), ...data]);
      named[other] = { dtype, shape: shape.with(0, shape[0] * (third + 1)), data: joined };
    } else if (transposed) {
      const [rows, cols] = shape;
      const turned = data.map((_, i) => data[i % rows * cols + Math.floor(i / rows)]);
      named[other] = { dtype, shape: [cols, rows], data: turned };
    } else named[other] = { dtype, shape, data };
  }
  return named;
}

/** A model of given weights. */
export async function clipOf(
  config: ClipConfig,
  weights: Readonly<Record<string, TensorToSave>> = randomWeights(config),
): Promise<Clip> {
  return await Clip.load(config, [await encoded(weights)]);
}

/** Tensors as an opened file. */
export async function encoded(
  tensors: Readonly<Record<string, TensorToSave>>,
): Promise<SafetensorsFile> {
  return await SafetensorsFile.open(bytesSource(encodeSafetensors(tensors), "model.safetensors"));
}

/** Images and prompts for a model, the same each time. */
export function randomInputs(
  { vision: { imageSize }, text: { context, vocabulary, endToken } }: ClipConfig,
  images = 3,
  prompts = 4,
): { pixels: Float32Array<ArrayBuffer>; ids: Int32Array<ArrayBuffer>; prompts: number } {
  const random = new Random(7, "inputs");
  const pixels = Float32Array.from(
    { length: images * 3 * imageSize ** 2 },
    () => random.normal(),
  );
  const ids = new Int32Array(prompts * context);
  for (let row = 0; row < prompts; row++) {
    const length = 3 + row % (context - 3);
    for (let at = 0; at < context; at++) {
      ids[row * context + at] = at < length ? random.below(vocabulary - 1) : endToken;
    }
  }
  return { pixels, ids, prompts };
}

/** Opens a model that must be a CLIP. */
export async function openedClip(
  path: string,
  options?: OpenOptions,
): Promise<OpenedModel & { readonly clip: Clip }> {
  const opened = await openModel(path, options);
  const { model } = opened;
  assert(model instanceof Clip);
  return { ...opened, clip: model };
}

/** Logits of a model for {@linkcode randomInputs}. */
export async function logitsOf(clip: Clip): Promise<Float32Array<ArrayBuffer>> {
  const { pixels, ids, prompts: rows } = randomInputs(clip.config);
  const { imageSize } = clip.config.vision;
  const prompts = clip.text.prompts(ids, rows);
  const logits = scope(() => {
    const images = tensor(pixels, [pixels.length / (3 * imageSize ** 2), 3, imageSize, imageSize]);
    return clip.logits(clip.imageFeatures(images), clip.textFeatures(prompts), 100);
  });
  const values = await logits.data() as Float32Array<ArrayBuffer>;
  logits.release();
  prompts.release();
  return values;
}
