/**
 * Reads finished runs from their directories.
 *
 * @module
 */

import { isAbsolute, join } from "node:path";
import { isObject } from "../../clip/json.ts";
import { labelOf } from "../methods/lookup.ts";
import { readJson } from "../system/files.ts";
import type { RunResult } from "../training/result.ts";
import { UNFINISHED } from "../training/run_directory.ts";

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
 * Reads the runs in `directories` and at any depth below them, sorted by path.
 *
 * @throws {Error} If there are no runs, a result cannot be read, or two runs have the same method,
 * shots and seed. Such a pair would count twice in the mean over seeds.
 * @throws {RangeError} If a run is of an unknown method.
 */
export async function readRuns(directories: readonly string[]): Promise<RunResult[]> {
  const found: { path: string; run: RunResult }[] = [];
  const visit = async (directory: string) => {
    const entries = await Array.fromAsync(Deno.readDir(directory)).catch(() => {
      throw new Error(`Cannot read runs from ${directory}: there is no such directory`);
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
    throw new (error instanceof RangeError ? RangeError : Error)(`${error.message}; ${remedy}`);
  };
  const run = await readJson(path)
    .catch((error) => fail(error, "remove it, or run that again")) as RunResult | null;
  const flaw = isObject(run) ? flawOf(run) : "it is not an object";
  if (!run || flaw !== null) {
    throw new Error(
      `Cannot read ${path}: it is not the result of a run of this version (${flaw}), ` +
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

const isText = (value: unknown) => typeof value === "string";
const isNumber = (value: unknown) => Number.isFinite(value);
const isCount = (value: unknown) => Number.isSafeInteger(value) && value as number >= 0;
const orNull = (is: (value: unknown) => boolean) => (value: unknown) => value === null || is(value);
const listOf = (is: (value: unknown) => boolean) => (value: unknown) =>
  Array.isArray(value) && value.every(is);
const recordOf = (is: (value: unknown) => boolean) => (value: unknown) =>
  isObject(value) && Object.values(value).every(is);

/** What each field of `result.json` may hold. The file may come from a stranger. */
const FIELDS: Readonly<Record<keyof RunResult, (value: unknown) => boolean>> = {
  format: (value) => value === 1,
  version: isText,
  device: isText,
  model: isText,
  data: isText,
  classes: (value) => listOf(isText)(value) && (value as unknown[]).length > 0,
  template: isText,
  method: isText,
  rank: orNull(isCount),
  blocks: orNull(isCount),
  shots: isCount,
  seed: orNull(isCount),
  iterations: isCount,
  trainableParameters: isCount,
  accuracy: isNumber,
  zeroShotAccuracy: orNull(isNumber),
  losses: listOf((pair) => listOf(isNumber)(pair) && (pair as unknown[]).length === 2),
  peakGpuBytes: orNull(isCount),
  peakBytesByOwner: orNull(recordOf(isCount)),
  labels: (value) => listOf(isCount)(value) && (value as unknown[]).length > 0,
  predictions: listOf(isCount),
  images: listOf((path) => isText(path) && staysBelow(path as string)),
  settings: isObject,
  identity: (value) => value === undefined || recordOf(isText)(value),
};

/** Whether a relative path stays below the directory that it is relative to. */
function staysBelow(path: string): boolean {
  return path !== "" && !isAbsolute(path) && !/^[A-Za-z]:/.test(path) &&
    !path.split(/[\\/]/).includes("..");
}

/** Why an object is not a result, or null if it is one. */
function flawOf(run: Readonly<Record<string, unknown>>): string | null {
  for (const [name, is] of Object.entries(FIELDS)) {
    if (!is(run[name])) {
      return `${name} is ${JSON.stringify(run[name])?.slice(0, 100) ?? "missing"}`;
    }
  }
  const { labels, predictions, images, classes } = run as unknown as RunResult;
  if (predictions.length !== labels.length || images.length !== labels.length) {
    return "it does not have as many labels as predictions and images";
  }
  const beyond = [...labels, ...predictions].find((label) => label >= classes.length);
  return beyond === undefined ? null : `there is no class ${beyond}`;
}
