/**
 * Writes reports: of any runs, or of the one run that a directory holds.
 *
 * @module
 */

// Not the page itself: what draws its plots takes a while to load, and other commands do without.
import { join } from "node:path";
import type { Dataset } from "../data/dataset.ts";
import { writeAtomically } from "../system/files.ts";
import { ImageHashes } from "../training/identity.ts";
import type { RunResult } from "../training/result.ts";
import { imagesOf, readRuns } from "./runs.ts";

/**
 * Writes the page of some runs, and gives its size in bytes; `roots` says by {@linkcode imagesOf}
 * where their test images are.
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

/** Writes the page of one finished run into its directory. */
export async function writeReport(
  directory: string,
  { root }: Pick<Dataset, "root">,
): Promise<void> {
  const runs = await readRuns([directory]);
  await writePage(join(directory, "report.html"), runs, new Map([[imagesOf(runs[0]), root]]));
}

/**
 * Where the test images of runs are, by {@linkcode imagesOf}: in the data sets that have the same
 * ones now.
 */
export async function rootsOf(
  runs: readonly RunResult[],
  datasets: readonly Dataset[],
): Promise<Map<string, string>> {
  const roots = new Map<string, string>();
  for (const dataset of datasets) {
    // Another data set may have the same name, and this one may have other images than it had.
    const wanted = runs.filter((run) => run.data === dataset.name).map(imagesOf);
    const names = [dataset.name, await new ImageHashes(dataset).of(dataset.test)];
    for (const name of names.filter((name) => wanted.includes(name))) {
      roots.set(name, dataset.root);
    }
  }
  return roots;
}
