/**
 * What tells the model that adapters were trained on from others of the same sizes.
 *
 * @module
 */

import type { Clip } from "../../clip/clip.ts";
import { refuse } from "./peft_config.ts";

/** The numbers of a sample that tells one model from another of the same sizes. */
const SAMPLE_SIZE = 16;

/**
 * How far samples may be apart, as a part of their largest value: well above bfloat16's rounding,
 * 2⁻⁹.
 */
const SAMPLE_TOLERANCE = 0.02;

/** Some of the weights that no adapter changes. */
export async function sampleOf(clip: Clip): Promise<number[]> {
  const values = await clip.weights.get("visual_projection.weight").data();
  return Array.from({ length: SAMPLE_SIZE }, (_, i) => {
    const value = values[Math.floor(i * values.length / SAMPLE_SIZE)];
    return Number(value.toPrecision(6));
  });
}

/** Throws unless a sample that was saved is of this model. */
export async function checkSample(clip: Clip, saved: unknown): Promise<void> {
  const expected = await sampleOf(clip);
  const largest = Math.max(...expected.map(Math.abs));
  const same = Array.isArray(saved) && saved.length === expected.length &&
    expected.every((value, i) => Math.abs(value - saved[i]) <= SAMPLE_TOLERANCE * largest);
  if (!same) refuse("it was made for a model of the same sizes with other weights");
}
