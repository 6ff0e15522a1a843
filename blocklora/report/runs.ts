/**
 * Finished runs, read from the directories that they left.
 *
 * @module
 */

import { join } from "node:path";
import { labelOf } from "../methods/lookup.ts";
import { readJson } from "../system/files.ts";
import type { RunResult } from "../training/result.ts";

/**
 * Tells the test images of a run from any other: by their contents, or by their data set's name in
 * runs of 0.1.
 */
export function imagesOf({ data, identity }: RunResult): string {
  return identity?.test ?? data;
}

/**
 * Tells what a run is compared with: runs of the same model and classes on the same test images.
 */
export function contestOf(run: RunResult): string {
  return JSON.stringify([run.data, run.identity?.model ?? run.model, imagesOf(run), run.classes]);
}

/**
 * Reads the runs that lie in some directories, or below them at any depth, ordered by their paths.
 *
 * @throws {Error} If there is none, one is not finished, or two are of the same method, shots and
 * seed: a mean over seeds must not count one of them twice.
 * @throws {RangeError} If one is of a method that is not known.
 */
export async function readRuns(directories: readonly string[]): Promise<RunResult[]> {
  const found: { path: string; run: RunResult }[] = [];
  const visit = async (directory: string) => {
    const entries = await Array.fromAsync(Deno.readDir(directory)).catch(() => {
      throw new Error(`Cannot read runs from ${directory}: there is no such directory`);
    });
    for (const { name, isDirectory } of entries) {
      // A dot begins the names of directories whose runs are not complete.
      if (isDirectory && !name.startsWith(".")) await visit(join(directory, name));
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
    throw new (error instanceof RangeError ? RangeError : Error)(`${error.message}; ${remedy}`);
  };
  const run = await readJson(path)
    .catch((error) => fail(error, "remove it, or run that again")) as RunResult | null;
  if (!run || !isResult(run)) {
    throw new Error(
      `Cannot read ${path}: it is not the result of a run of this version, ` +
        "remove it, or run that again",
    );
  }
  try {
    labelOf(run);
    return run;
  } catch (error) {
    return fail(error as Error, `${path} names it, leave it out or mend it`);
  }
}

function isResult({ format, accuracy, predictions, labels, data, method, classes }: RunResult) {
  return format === 1 && Number.isFinite(accuracy) && Array.isArray(classes) &&
    typeof data === "string" && typeof method === "string" &&
    Array.isArray(predictions) && predictions.length === labels?.length;
}
