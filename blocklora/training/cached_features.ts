/**
 * Image features for methods that leave the towers unchanged. The features are computed only once.
 *
 * @module
 */

import { tensor } from "../../tensor/create.ts";
import { firstNonFinite } from "../../tensor/finite.ts";
import { Random } from "../../tensor/random.ts";
import { scope } from "../../tensor/scope.ts";
import type { Sample } from "../data/dataset.ts";
import { checkClasses } from "../data/shots.ts";
import type { Features } from "../methods/baseline.ts";
import type { LoadedBatch } from "./loop.ts";
import type { RunContext } from "./run_config.ts";

/** Features, and the image files that they were computed from. */
export type NamedFeatures = Features & { readonly paths: readonly string[] };

/**
 * Image features of the unadapted model, not normalized. Images that cannot be read are left out if
 * the loader skips them.
 *
 * @throws {RangeError} If the features of an image are NaN or infinite.
 * @throws {Error} If no image of a class can be read.
 */
export async function featuresOf(
  { opened: { model }, dataset, loader, batchSize, signal }: RunContext,
  samples: readonly Sample[],
): Promise<NamedFeatures> {
  const { imageSize } = model.vision;
  const [rows, labels, missed]: [Float32Array[], number[], Set<string>] = [[], [], new Set()];
  for await (const batch of loader.evaluation(samples, batchSize)) {
    signal?.throwIfAborted();
    for (const path of batch.skipped) missed.add(path);
    if (batch.labels.length === 0) continue;
    const features = scope(() =>
      model.imageFeatures(tensor(batch.pixels, [batch.labels.length, 3, imageSize, imageSize]))
    );
    rows.push(await features.data() as Float32Array);
    features.release();
    labels.push(...batch.labels);
  }
  checkClasses(dataset.classes, samples, missed);
  const values = new Float32Array(rows.reduce((size, row) => size + row.length, 0));
  rows.reduce((at, row) => (values.set(row, at), at + row.length), 0);
  if (firstNonFinite(values) >= 0) {
    throw new RangeError(
      "Cannot learn: the model's features are NaN or infinite, its weights are broken",
    );
  }
  const paths = samples.map(({ path }) => path).filter((path) => !missed.has(path));
  return { values, labels, width: model.embedding, paths };
}

/** Batches of features, shuffled anew in each epoch; the order depends on the seed. */
export async function* featureBatches(
  { values, labels, width }: Features,
  { batchSize, iterations, seed, from = 0 }: {
    readonly batchSize: number;
    readonly iterations: number;
    readonly seed: number;
    /** The number of the first batch that is needed. */
    readonly from?: number;
  },
): AsyncGenerator<LoadedBatch> {
  const random = new Random(seed, "features");
  const all = labels.map((_, i) => i);
  let left: number[] = [];
  for (let step = 0; step < iterations; step++) {
    if (left.length === 0) left = random.shuffle([...all]);
    const chosen = left.splice(0, batchSize);
    if (step < from) continue;
    const rows = chosen.map((i) => [...values.subarray(i * width, (i + 1) * width)]);
    yield {
      features: Float32Array.from(rows.flat()),
      labels: Int32Array.from(chosen, (i) => labels[i]),
      skipped: [],
      endsEpoch: left.length === 0,
    };
  }
}
