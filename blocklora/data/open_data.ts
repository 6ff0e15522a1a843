/**
 * Opens the data set that a command line names, or the embedded one.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import type { Console } from "../system/console.ts";
import { userPath } from "../system/user_path.ts";
import { type Dataset, openDataset } from "./dataset.ts";

/** The data set that comes with the project. */
export const EMBEDDED_DATA: URL = new URL("../fashion_mnist/", import.meta.url);

/**
 * Opens a data set by its directory and its split file, or the embedded data set if `data` is
 * undefined. Prints notes on what the user should know of it. `given` is the name as the user typed
 * it.
 */
export async function openData(
  { data, split }: { readonly data: string | undefined; readonly split: string | undefined },
  console: Console,
): Promise<{ dataset: Dataset; given: string }> {
  const root = data === undefined ? fileURLToPath(EMBEDDED_DATA) : userPath(data);
  const dataset = await openDataset(root, {
    split: split === undefined ? undefined : userPath(split),
  });
  for (const note of dataset.notes) console.note(`${dataset.name}: ${note}`);
  return { dataset, given: data ?? "fashion_mnist" };
}
