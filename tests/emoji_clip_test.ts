/**
 * A trained CLIP gives PyTorch's numbers, from its files, its pictures and its prompts.
 */

import { assertEquals } from "@std/assert";
import { decodeImage } from "../blocklora/data/decode.ts";
import type { Clip } from "../clip/clip.ts";
import { parsePreprocessor } from "../clip/config.ts";
import { preprocess } from "../clip/image.ts";
import type { Prompts } from "../clip/text.ts";
import { Tokenizer } from "../clip/tokenizer.ts";
import { tensor } from "../tensor/create.ts";
import type { SafetensorsFile } from "../tensor/safetensors.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { shared, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";
import {
  Comparison,
  floatTensor,
  openClip,
  openSafetensors,
  readJson,
  type Tolerance,
} from "./reference.ts";

interface Expected {
  readonly prompts: readonly string[];
  readonly images: readonly { readonly file: string }[];
}

const EMBEDDED = new URL("../clip/emoji-clip-tiny/", import.meta.url);

/** The tolerance with the original weights. */
const EXACT = { features: { atol: 1e-4, rtol: 0 }, logits: { atol: 1e-3, rtol: 0 } };

const directory = shared("models/emoji-clip-tiny/");
if (!directory) skip("emoji-clip-tiny");
else {
  const expected: Expected = await readJson(new URL("expected.json", directory));
  const file = await openSafetensors(new URL("expected.safetensors", directory));

  gpuTest("emoji-clip-tiny agrees with PyTorch, from pixels and ids", async () => {
    const clip = await openClip(directory);
    await compareGiven("pixels", clip, file, EXACT);
    clip.release();
  });

  gpuTest("emoji-clip-tiny agrees with PyTorch, from pictures and words", async () => {
    const clip = await openClip(directory);
    const ids = await tokenize(directory, expected.prompts, clip.config.text.context);
    assertEquals(ids, await file.integers("input_ids"));
    const pixels = await readPictures(directory, expected.images.map(({ file }) => file));
    const comparison = new Comparison();
    // Pictures are read to within a rounding of a normalized pixel.
    const given = await file.floats("pixel_values");
    comparison.numbers("pixels", pixels, given, { atol: 1e-5, rtol: 0 });
    await compare(
      "pictures",
      clip,
      keep(tensor(pixels, file.tensors.get("pixel_values")!.shape)),
      clip.text.prompts(ids, expected.prompts.length),
      file,
      EXACT,
    );
    comparison.report(`emoji-clip-tiny: ${expected.images.length} pictures`);
    clip.release();
  });

  gpuTest("the embedded model is emoji-clip-tiny, rounded to half precision", async () => {
    const clip = await openClip(EMBEDDED);
    // Rounding a weight to 11 bits puts it off by up to 2⁻¹² of the next power of two. Some twenty
    // products with weights lie between an image and its features, whose errors add up as their
    // root; the features are below 6, the logits' scale is below 16.
    const rounding = 2 ** -12 * Math.sqrt(20);
    const [features, logits] = [6, 16].map((size) => ({ atol: size * rounding, rtol: 0 }));
    await compareGiven("embedded", clip, file, { features, logits });

    const { context } = clip.config.text;
    assertEquals(
      await tokenize(EMBEDDED, expected.prompts, context),
      await file.integers("input_ids"),
    );
    for (const name of ["config.json", "preprocessor_config.json", "vocab.json"]) {
      const [ours, theirs] = [EMBEDDED, directory].map((url) => readJson(new URL(name, url)));
      const { torch_dtype: _, dtype: __, ...config } = await ours;
      const { torch_dtype: ___, dtype: ____, ...original } = await theirs;
      assertEquals(config, original, name);
    }
    clip.release();
  });
}

async function tokenize(
  directory: URL,
  prompts: readonly string[],
  context: number,
): Promise<Int32Array<ArrayBuffer>> {
  const merges = await Deno.readTextFile(new URL("merges.txt", directory));
  const vocabulary = await readJson(new URL("vocab.json", directory));
  const tokenizer = Tokenizer.fromVocabulary(vocabulary, merges);
  return tokenizer.tokenize(prompts, context, { pad: tokenizer.end }).ids;
}

async function readPictures(
  directory: URL,
  files: readonly string[],
): Promise<Float32Array<ArrayBuffer>> {
  const { image_size } = (await readJson(new URL("config.json", directory))).vision_config;
  const json = await readJson(new URL("preprocessor_config.json", directory));
  const config = parsePreprocessor(json, image_size);
  const pixels = new Float32Array(files.length * 3 * image_size ** 2);
  for (const [i, name] of files.entries()) {
    const picture = await decodeImage(await Deno.readFile(new URL(name, directory)), name);
    pixels.set(preprocess(picture, config), i * pixels.length / files.length);
  }
  return pixels;
}

async function compareGiven(
  what: string,
  clip: Clip,
  file: SafetensorsFile,
  tolerances: { features: Tolerance; logits: Tolerance },
): Promise<void> {
  const [rows] = file.tensors.get("input_ids")!.shape;
  const prompts = clip.text.prompts(await file.integers("input_ids"), rows);
  await compare(what, clip, await floatTensor(file, "pixel_values"), prompts, file, tolerances);
}

/** Compares features and logits; releases the inputs. */
async function compare(
  what: string,
  clip: Clip,
  pixels: Tensor,
  prompts: Prompts,
  file: SafetensorsFile,
  { features, logits }: { features: Tolerance; logits: Tolerance },
): Promise<void> {
  const outputs = scope(() => {
    const image_features = clip.imageFeatures(pixels);
    const text_features = clip.textFeatures(prompts);
    const logits_per_image = clip.logits(image_features, text_features);
    return { image_features, text_features, logits_per_image };
  });
  const comparison = new Comparison();
  for (const [name, actual] of Object.entries(outputs)) {
    const tolerance = name.endsWith("features") ? features : logits;
    await comparison.tensor(name, actual, file, name, tolerance);
  }
  comparison.report(`emoji-clip-tiny from ${what}: ${comparison.names.size} outputs`);
  pixels.release();
  prompts.release();
}
