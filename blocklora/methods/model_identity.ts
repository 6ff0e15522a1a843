/**
 * Tells the model that adapters were trained on from other models of the same sizes.
 *
 * @module
 */

import { isObject } from "../../clip/json.ts";
import type { Model } from "../../clip/model.ts";
import { refuse } from "./peft_config.ts";

/** How many weights are in the sample that tells apart models of the same sizes. */
const SAMPLE_SIZE = 16;

/**
 * How far samples may differ, as a share of their largest value: well above the rounding error of
 * bfloat16, 2⁻⁹.
 */
const SAMPLE_TOLERANCE = 0.02;

/** A sample of the weights of the layer that computes the image features. */
async function sampleOf(model: Model): Promise<number[]> {
  const { module } = model.vision.linears.at(-1)!;
  const values = await model.weights.get(`${module}.weight`).data();
  return Array.from({ length: SAMPLE_SIZE }, (_, i) => {
    const value = values[Math.floor(i * values.length / SAMPLE_SIZE)];
    return Number(value.toPrecision(6));
  });
}

async function checkSample(model: Model, saved: unknown): Promise<void> {
  const expected = await sampleOf(model);
  const largest = Math.max(...expected.map(Math.abs));
  const same = Array.isArray(saved) && saved.length === expected.length &&
    expected.every((value, i) => Math.abs(value - saved[i]) <= SAMPLE_TOLERANCE * largest);
  if (!same) refuse("it was made for a model of the same sizes with other weights");
}

/** What is saved about a model, to recognize it later. */
export async function identityOf(model: Model): Promise<Record<string, unknown>> {
  const { origin } = model.weights;
  return {
    ...(origin?.sha256 && { weights: origin }),
    visualProjection: await sampleOf(model),
  };
}

/**
 * Throws unless a model is the one that was saved, or a rounded copy of it. If both were read from
 * files of the same dtype, the hashes of their weights must be equal. The samples must be close in
 * any case. Version 0.1 saved only the sample.
 */
export async function checkIdentity(
  model: Model,
  { weights, visualProjection }: Readonly<Record<string, unknown>>,
): Promise<void> {
  const { origin } = model.weights;
  const saved = isObject(weights) ? weights : null;
  if (origin?.sha256 && saved?.dtype === origin.dtype && saved.sha256 !== origin.sha256) {
    refuse("it was made for a model of the same sizes with other weights");
  }
  if (visualProjection !== undefined) await checkSample(model, visualProjection);
}
