/**
 * Test images on the report page, with their predicted classes.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { extname, join } from "node:path";
import type { RunResult } from "../training/result.ts";
import { escaped } from "./html.ts";

/** How many images of a data set are shown at most. */
const SHOWN = 24;

/** Image types by file extension. All other files are JPEG. */
const TYPES: Readonly<Record<string, string>> = { ".png": "png", ".webp": "webp" };

/**
 * Test images of a run, alternately one that was classified correctly and one that was not, as long
 * as their bytes in the page stay below `budget`. The images are read from `root`, the directory of
 * the data set.
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
    const content = await Deno.readFile(join(root, path)).catch(() => null);
    if (!content || bytes + content.length * 4 / 3 > budget) continue;
    bytes += content.length * 4 / 3;
    const type = TYPES[extname(path).toLowerCase()] ?? "jpeg";
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
