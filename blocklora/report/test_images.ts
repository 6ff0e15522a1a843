/**
 * Test images on the report page, with their predicted classes.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { join } from "node:path";
import { leadsBelow } from "../data/folders.ts";
import { imageTypeOf } from "../data/image_type.ts";
import { readBytes } from "../system/files.ts";
import type { RunResult } from "../training/result.ts";
import { escaped } from "./html.ts";

/** How many images of a data set are shown at most. */
const SHOWN = 24;

/**
 * Test images of a run, alternately one that was classified correctly and one that was not, as long
 * as their bytes in the page stay below `budget`. The images are read from `root`, the directory of
 * the data set. The page may be sent around, and the paths come from a file: paths that lead out
 * of the root and files that are no images are left out.
 */
export async function testImages(
  { images, labels, predictions, classes }: RunResult,
  root: string,
  budget: number,
): Promise<string> {
  const tested = images.map((path, i) => ({ path, truth: labels[i], guess: predictions[i] }));
  const [right, wrong] = [true, false].map((hit) =>
    evenly(tested.filter(({ truth, guess }) => (truth === guess) === hit), SHOWN / 2)
  );
  const figures: string[] = [];
  let bytes = 0;
  for (const { path, truth, guess } of right.flatMap((hit, i) => [hit, ...wrong.slice(i, i + 1)])) {
    if (!leadsBelow(path)) continue;
    const content = await readBytes(join(root, path)).catch(() => null);
    const type = content && imageTypeOf(content);
    if (!type || bytes + content.length * 4 / 3 > budget) continue;
    bytes += content.length * 4 / 3;
    const uri = `data:image/${type};base64,${Buffer.from(content).toString("base64")}`;
    const hit = truth === guess;
    figures.push(
      `<div><img src="${uri}" alt="${escaped(classes[truth])}"><span class="${
        hit ? "right" : "wrong"
      }">${hit ? "✓" : "✗"} ${escaped(classes[guess])}</span>${
        hit ? "" : `<small>is ${escaped(classes[truth])}</small>`
      }</div>`,
    );
  }
  return figures.length > 0 ? `<div class="images">\n${figures.join("\n")}\n</div>` : "";
}

/** `count` items of a list, evenly spaced; all of them if the list is shorter. */
function evenly<T>(list: readonly T[], count: number): T[] {
  const size = Math.min(count, list.length);
  return Array.from({ length: size }, (_, i) => list[Math.floor((i + 0.5) * list.length / size)]);
}
