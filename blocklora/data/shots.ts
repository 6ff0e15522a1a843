/**
 * Draws the images that a run trains on, and checks that every class has some that can be read.
 *
 * @module
 */

import { Random } from "../../tensor/random.ts";
import type { Dataset, Sample } from "./dataset.ts";
import { compareNaturally } from "./folders.ts";

/**
 * Draws `shots` training images of each class, class by class. The draw depends on the seed, the
 * class's name and the images' paths below the root, not on the order in which a directory lists
 * them. With the same seed, the images of a smaller number of shots are among those of a larger
 * number.
 *
 * @throws {RangeError} If a class has fewer images than `shots`.
 */
export function drawShots(dataset: Dataset, shots: number, seed: number): Sample[] {
  if (!Number.isInteger(shots) || shots < 1) {
    throw new RangeError(`Cannot draw ${shots} shots: it must be an integer above 0`);
  }
  const random = new Random(seed, "shots");
  const classes: Sample[][] = dataset.classes.map(() => []);
  for (const sample of dataset.train) classes[sample.label].push(sample);
  return classes.flatMap((samples, label) => {
    if (samples.length < shots) {
      throw new RangeError(
        `Cannot draw ${shots} shots of class "${dataset.classes[label]}": ` +
          `it has ${samples.length} training images, add some or ask for fewer shots`,
      );
    }
    const sorted = samples.toSorted((a, b) => compareNaturally(a.path, b.path));
    return random.fork(dataset.classes[label]).shuffle(sorted).slice(0, shots);
  });
}

/**
 * Checks that leaving out images leaves no class without any.
 *
 * @param skipped The images of `samples` that cannot be read.
 * @throws {Error} If it does.
 */
export function checkClasses(
  classes: readonly string[],
  samples: readonly Sample[],
  skipped: Iterable<string>,
): void {
  const missing = new Set(skipped);
  const left = new Set(
    samples.filter(({ path }) => !missing.has(path)).map(({ label }) => label),
  );
  const empty = samples.find(({ label }) => !left.has(label));
  if (!empty) return;
  throw new Error(
    `Cannot use class "${classes[empty.label]}": not one of its images can be read, ` +
      `such as ${empty.path}, replace them or remove the class`,
  );
}
