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
 * if the run still has to be done. Prints a note if a run there used other ones.
 *
 * @throws {Error} If the directory holds something else, or a run with different `settings`.
 */
export async function completed(
  directory: string,
  settings: Readonly<Record<string, unknown>>,
  identity: Identity,
  console?: Console,
): Promise<RunResult | null> {
  const result = await readJson(directory, "result.json") as RunResult | null;
  if (result === null) {
    if ((await namesIn(directory)).length === 0) return null;
    throw new Error(
      `Cannot go on with ${directory}: it holds no finished run, ` +
        "remove it, or name another --output",
    );
  }
  // Version 0.1 recorded fewer settings.
  const changed = changedSetting(result.settings ?? {}, settings, !result.identity);
  if (changed !== null) {
    throw new Error(
      `Cannot go on with ${directory}: ${changed}; remove it, or name another --output`,
    );
  }
  const inputs = changedInputs(result.identity, identity);
  if (inputs === null) return result;
  console?.note(`${directory} is of ${inputs}: run again`);
  return null;
}

/**
 * Names a setting that has changed, in words, or gives null if all are equal. With `fewer`, those
 * that `before` does not have do not count.
 */
export function changedSetting(
  before: Readonly<Record<string, unknown>>,
  now: Readonly<Record<string, unknown>>,
  fewer = false,
): string | null {
  const [held, wanted] = [before, now].map((all) => new Map(Object.entries(all)));
  for (const key of new Set([...wanted.keys(), ...held.keys()])) {
    const [was, is] = [held.get(key), wanted.get(key)].map((value) => JSON.stringify(value));
    if (was === is || (was === undefined && fewer)) continue;
    return `its ${key} is ${was}, now it would be ${is}`;
  }
  return null;
}

/** Names the inputs that have changed, in words, or gives null if all are equal. */
export function changedInputs(before: Identity | undefined, now: Identity): string | null {
  const changed = (["model", "train", "test"] as const)
    .filter((what) => before?.[what] !== now[what])
    .map((what) => ({ model: "model", train: "training images", test: "test images" })[what]);
  if (changed.length === 0) return null;
  return `${before ? "another" : "an unknown"} ${changed.join(" and ")}`;
}
