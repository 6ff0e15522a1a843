/**
 * Reads finished runs from their directories.
 *
 * @module
 */

import { join } from "node:path";
import { labelOf } from "../methods/lookup.ts";
import { readJson, reasonOf } from "../system/files.ts";
import type { RunResult } from "../training/result.ts";
import { UNFINISHED } from "../training/run_directory.ts";
import { assertResult } from "./result_schema.ts";

/**
 * Identifies the test images of a run by their contents, or by the name of the data set for runs of
 * version 0.1.
 */
export function imagesOf({ data, identity }: RunResult): string {
  return identity?.test ?? data;
}

/**
 * The key of the contest that a run belongs to. Runs in a contest have the same model, the same
 * classes and the same test images.
 */
export function contestOf(run: RunResult): string {
  return JSON.stringify([run.data, run.identity?.model ?? run.model, imagesOf(run), run.classes]);
}

/**
 * Reads the runs in `directories` and at any depth below them, sorted by path. Links to directories
 * are not followed.
 *
 * @throws {Error} If there are no runs, a result cannot be read, or two runs have the same method,
 * shots and seed. Such a pair would count twice in the mean over seeds.
 * @throws {RangeError} If a run is of an unknown method.
 */
export async function readRuns(directories: readonly string[]): Promise<RunResult[]> {
  const found: { path: string; run: RunResult }[] = [];
  const visit = async (directory: string) => {
    const entries = await Array.fromAsync(Deno.readDir(directory)).catch((error) => {
      const isMissing = error instanceof Deno.errors.NotFound;
      const reason = isMissing ? "there is no such directory" : reasonOf(error);
      throw new Error(`Cannot read runs from ${directory}: ${reason}`);
    });
    for (const { name, isDirectory } of entries) {
      const isPassed = name.startsWith(".") || name.endsWith(UNFINISHED);
      if (isDirectory && !isPassed) await visit(join(directory, name));
      else if (name === "result.json") {
        const path = join(directory, name);
        found.push({ path, run: await readRun(path) });
      }
    }
  };
  for (const directory of directories) await visit(directory);
  if (found.length === 0) {
    throw new Error(
      `Cannot make a report: there is no finished run in ${directories.join(" or ")}, ` +
        "train or sweep first",
    );
  }
  found.sort((a, b) => a.path < b.path ? -1 : 1);
  const seen = new Map<string, string>();
  for (const { path, run } of found) {
    const key = JSON.stringify([contestOf(run), labelOf(run), run.shots, run.seed]);
    const other = seen.get(key);
    if (other !== undefined) {
      throw new Error(
        `Cannot make a report: ${other} and ${path} are of the same method, shots and seed, ` +
          "leave one out",
      );
    }
    seen.set(key, path);
  }
  return found.map(({ run }) => run);
}

async function readRun(path: string): Promise<RunResult> {
  const fail = (error: Error, remedy: string): never => {
    throw new (error instanceof RangeError ? RangeError : Error)(`${error.message}${remedy}`);
  };
  const run = await readJson(path)
    .catch((error) => fail(error, "; remove it, or run that again"));
  try {
    assertResult(run);
  } catch (error) {
    throw new Error(
      `Cannot read ${path}: ${(error as Error).message}, remove it, or run that again`,
    );
  }
  try {
    labelOf(run);
    return run;
  } catch (error) {
    return fail(error as Error, `; ${path} names it, leave it out or mend it`);
  }
}
