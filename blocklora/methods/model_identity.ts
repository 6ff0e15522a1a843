/**
 * What tells the model that adapters were trained on from other models of the same sizes.
 *
 * @module
 */

import type { Model } from "../../clip/model.ts";
import { isRecord, refuse } from "./peft_config.ts";

/** The numbers of a sample that tells one model from another of the same sizes. */
const SAMPLE_SIZE = 16;

/**
 * How far samples may be apart, as a share of their largest value: well above bfloat16's rounding,
 * 2⁻⁹.
 */
const SAMPLE_TOLERANCE = 0.02;

/** Some of the weights that make the image features. */
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

/** What is saved of a model, to know it again. */
export async function identityOf(model: Model): Promise<Record<string, unknown>> {
  const { origin } = model.weights;
  return {
    ...(origin?.sha256 && { weights: origin }),
    visualProjection: await sampleOf(model),
  };
}

/**
 * Throws unless a model is the one that an identity is of, or a rounded copy of it: the weights of
 * files of the same type must be equal, those of another type nearly. 0.1 saved the sample alone.
 */
export async function checkIdentity(
  model: Model,
  { weights, visualProjection }: Readonly<Record<string, unknown>>,
): Promise<void> {
  const { origin } = model.weights;
  const saved = isRecord(weights) ? weights : null;
  if (origin?.sha256 && saved?.dtype === origin.dtype && saved.sha256 !== origin.sha256) {
    refuse("it was made for a model of the same sizes with other weights");
  }
  if (visualProjection !== undefined) await checkSample(model, visualProjection);
}
