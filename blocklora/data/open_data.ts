/**
 * The data set that a command line names.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { userPath } from "../system/user_path.ts";
import { type Dataset, openDataset } from "./dataset.ts";

/** The data set that comes with the project. */
export const EMBEDDED_DATA: URL = new URL("../fashion_mnist/", import.meta.url);

/** Opens the data set that was chosen, by the split that was, else the embedded one; `given` is what the user called it. */
export async function openData(
  { data, split }: { readonly data: string | undefined; readonly split: string | undefined },
): Promise<{ dataset: Dataset; given: string }> {
  const root = data === undefined ? fileURLToPath(EMBEDDED_DATA) : userPath(data);
  const dataset = await openDataset(root, {
    split: split === undefined ? undefined : userPath(split),
  });
  return { dataset, given: data ?? "fashion_mnist" };
}
