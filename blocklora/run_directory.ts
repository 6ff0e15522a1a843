/**
 * The directory of a run: it holds one run, never parts of two.
 *
 * @module
 */

import { join } from "node:path";
import { namesIn } from "./model_files.ts";

/** What a run leaves, in the order in which an old one must go: nothing may be taken for a whole run that is none. */
export const RUN_FILES: readonly string[] = [
  "result.json",
  "report.html",
  "timing.json",
  "adapter_config.json",
  "adapter_model.safetensors",
  "split.json",
  "metrics.jsonl",
];

/** Whether a directory holds a run, finished or not. Metrics alone are nothing that anybody could use. */
export async function holdsRun(directory: string): Promise<boolean> {
  const names = await namesIn(directory);
  return RUN_FILES.some((name) => name !== "metrics.jsonl" && names.includes(name));
}

/** The first of `DIRECTORY`, `DIRECTORY-2`, `DIRECTORY-3`, … that holds no run. */
export async function freeDirectory(directory: string): Promise<string> {
  for (let number = 1;; number++) {
    const name = number === 1 ? directory : `${directory}-${number}`;
    if (!await holdsRun(name)) return name;
  }
}

/** Moves a run into a directory, in the place of the one that is there; other files stay where they are. */
export async function replaceRun(from: string, to: string): Promise<void> {
  const old = await namesIn(to);
  for (const name of RUN_FILES.filter((name) => old.includes(name))) {
    await Deno.remove(join(to, name));
  }
  const names = await namesIn(from);
  for (const name of RUN_FILES.toReversed().filter((name) => names.includes(name))) {
    await Deno.rename(join(from, name), join(to, name));
  }
  await Deno.remove(from).catch(() => {}); // if nothing else is in it
}
