/**
 * Writes report pages, for any runs or for the one run in a directory.
 *
 * @module
 */

// `page.ts` is imported only when a page is written: its plot library takes a while to load, and
// most commands do not need it.
import { join } from "node:path";
import type { Dataset } from "../data/dataset.ts";
import { writeAtomically } from "../system/files.ts";
import { ImageHashes } from "../training/identity.ts";
import type { RunResult } from "../training/result.ts";
import { imagesOf, readRuns } from "./runs.ts";

/**
 * Writes the page of `runs` to `path`, and gives its size in bytes. `roots` maps
 * {@linkcode imagesOf} to the directory of the test images.
 */
export async function writePage(
  path: string,
  runs: readonly RunResult[],
  roots: ReadonlyMap<string, string>,
): Promise<number> {
  const { pageOf } = await import("./page.ts");
  const page = new TextEncoder().encode(await pageOf(runs, roots));
  await writeAtomically(path, page);
  return page.length;
}

/** Writes the page of one finished run into the directory of the run. */
export async function writeReport(
  directory: string,
  { root }: Pick<Dataset, "root">,
): Promise<void> {
  const runs = await readRuns([directory]);
  await writePage(join(directory, "report.html"), runs, new Map([[imagesOf(runs[0]), root]]));
}

/**
 * Maps {@linkcode imagesOf} of the runs to the directory of these test images, for those that one
 * of the data sets still has.
 */
export async function rootsOf(
  runs: readonly RunResult[],
  datasets: readonly Dataset[],
): Promise<Map<string, string>> {
  const roots = new Map<string, string>();
  for (const dataset of datasets) {
    // Do not go by the name alone: another data set may have the same name, and the images of this
    // one may have changed.
    const wanted = runs.filter((run) => run.data === dataset.name).map(imagesOf);
    const names = [dataset.name, await new ImageHashes(dataset).of(dataset.test)];
    for (const name of names.filter((name) => wanted.includes(name))) {
      roots.set(name, dataset.root);
    }
  }
  return roots;
}
