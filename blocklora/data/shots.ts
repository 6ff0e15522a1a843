/**
 * Draws the images that a run trains on.
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
