/**
 * Finds runs that need not be run again.
 *
 * @module
 */

import type { Console } from "../system/console.ts";
import { namesIn, readJson } from "../system/files.ts";
import type { Identity } from "./identity.ts";
import type { RunResult } from "./result.ts";

/**
 * The result in a directory, if the run there is complete and used the same model and images; null
 * if the run still has to be done.
 *
 * @throws {Error} If the directory holds an unfinished run, or a run with different `settings`.
 */
export async function completed(
  directory: string,
  settings: Readonly<Record<string, unknown>>,
  identity: Identity,
  console: Console,
): Promise<RunResult | null> {
  const result = await readJson(directory, "result.json") as RunResult | null;
  if (result === null) {
    if ((await namesIn(directory)).length === 0) return null;
    throw new Error(
      `Cannot go on with ${directory}: it holds no finished run, ` +
        "remove it, or name another --output",
    );
  }
  const [wanted, held] = [settings, result.settings ?? {}].map((all) =>
    new Map(Object.entries(all))
  );
  for (const key of new Set([...wanted.keys(), ...held.keys()])) {
    const [now, before] = [wanted.get(key), held.get(key)].map((value) => JSON.stringify(value));
    // Version 0.1 recorded fewer of them.
    if (now === before || (before === undefined && !result.identity)) continue;
    throw new Error(
      `Cannot go on with ${directory}: its ${key} is ${before}, now it would be ${now}; ` +
        "remove it, or name another --output",
    );
  }
  const changed = (["model", "train", "test"] as const)
    .filter((what) => result.identity?.[what] !== identity[what])
    .map((what) => ({ model: "model", train: "training images", test: "test images" })[what]);
  if (changed.length === 0) return result;
  console.note(
    `${directory} is of ${result.identity ? "another" : "an unknown"} ${
      changed.join(" and ")
    }: run again`,
  );
  return null;
}
