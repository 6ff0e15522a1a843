/**
 * Writes the page of a run beside it.
 *
 * @module
 */

import { join } from "node:path";
import { writeAtomically } from "../system/files.ts";
import { imagesOf, readRuns } from "./data.ts";

/** Writes the page of one finished run into its directory. */
export async function writeReport(
  directory: string,
  { root }: { readonly root: string },
): Promise<void> {
  // What draws the plots takes a while to load, and other commands do without.
  const { pageOf } = await import("./page.ts");
  const [run] = await readRuns([directory]);
  const page = await pageOf([run], new Map([[imagesOf(run), root]]));
  await writeAtomically(join(directory, "report.html"), page);
}
