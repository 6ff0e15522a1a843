/**
 * Finished runs, read and summed up.
 *
 * @module
 */

import { join } from "node:path";
import { isMethod, labelOf, orderOf } from "../methods/lookup.ts";
import { readJson } from "../system/files.ts";
import type { RunResult } from "../training/result.ts";

/** A value with its spread. */
export interface Summary {
  /** The mean. */
  readonly mean: number;
  /** The standard deviation of the sample; null of a single value. */
  readonly deviation: number | null;
  /** How many values there were. */
  readonly count: number;
}

/** The runs of one method with one number of shots, a run a seed. */
export interface Cell {
  /** Training images a class; 0 where nothing is trained. */
  readonly shots: number;
  /** The runs, by seed. */
  readonly runs: readonly RunResult[];
  /** Their accuracy, in percent. */
  readonly accuracy: Summary;
}

/** The runs of one method on one data set. */
export interface Row {
  /** The name of the method, or of the baseline. */
  readonly method: string;
  /** What to call it. */
  readonly label: string;
  /** Whether it is a method that trains something of the model, and no baseline. */
  readonly trains: boolean;
  /** How many numbers it trains. */
  readonly parameters: number;
  /** By shots, the fewest first. */
  readonly cells: readonly Cell[];
}

/** The runs of one model on one set of test images. */
export interface Contest {
  /** The data set's name, and what tells it from another of that name in the same report. */
  readonly title: string;
  /** The data set's name. */
  readonly data: string;
  /** What tells its test images from others, {@linkcode Identity.test}; its name for runs of 0.1. */
  readonly images: string;
  /** The names of its classes. */
  readonly classes: readonly string[];
  /** Every number of shots that was tried, the fewest first; none if only zero-shot was. */
  readonly shots: readonly number[];
  /** The methods. */
  readonly rows: readonly Row[];
}

/** Mean and standard deviation (of the sample) of some values. */
export function summarize(values: readonly number[]): Summary {
  const count = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: count > 1 ? Math.sqrt(squares / (count - 1)) : null, count };
}

/**
 * Reads the runs that lie in some directories, or below them at any depth, in an order of their own.
 *
 * @throws {Error} If there is none, one is not whole, or two are of the same method, shots and seed: their mean is none of
 * seeds.
 */
export async function readRuns(directories: readonly string[]): Promise<RunResult[]> {
  const found: { path: string; run: RunResult }[] = [];
  const visit = async (directory: string) => {
    const entries = await Array.fromAsync(Deno.readDir(directory)).catch(() => {
      throw new Error(`Cannot read runs from ${directory}: there is no such directory`);
    });
    for (const { name, isDirectory } of entries) {
      // Those that begin with a dot are not complete.
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
        `Cannot make a report: ${other} and ${path} are of the same method, shots and seed, leave one out`,
      );
    }
    seen.set(key, path);
  }
  return found.map(({ run }) => run);
}

async function readRun(path: string): Promise<RunResult> {
  const run = await readJson(path).catch((error) => {
    throw new Error(`Cannot read the result ${path}: ${error.message}; remove it, or run again`);
  }) as RunResult | null;
  if (run) {
    const { format, accuracy, predictions, labels, data, method, classes } = run;
    const whole = format === 1 && Number.isFinite(accuracy) && Array.isArray(classes) &&
      typeof data === "string" && typeof method === "string" &&
      Array.isArray(predictions) && predictions.length === labels?.length;
    if (whole) {
      labelOf(run); // throws if nothing here is called so
      return run;
    }
  }
  throw new Error(`Cannot read ${path}: it is not the result of a run of this version`);
}

/** What tells the test images of a run from others: their names, and what is in them if the run says so. */
export function imagesOf({ data, identity }: RunResult): string {
  return identity?.test ?? data;
}

/** Sorts runs by data set and model, method and shots. */
export function contestsOf(runs: readonly RunResult[]): Contest[] {
  const contests = [...Map.groupBy(runs, contestOf).values()];
  return contests.map((own, i) => {
    const [{ data, model }] = own;
    const rivals = contests.filter(([other]) => other.data === data);
    const isModels = rivals.every(([other]) => other === own[0] || other.model !== model);
    const title = rivals.length === 1
      ? data
      : isModels
      ? `${data}, ${model}`
      : `${data} (${i + 1})`;
    const rows = [...Map.groupBy(own, labelOf)].map(([label, own]): Row => ({
      method: own[0].method,
      label,
      trains: isMethod(own[0].method),
      parameters: own[0].trainableParameters,
      cells: [...Map.groupBy(own, ({ shots }) => shots)]
        .sort(([a], [b]) => a - b)
        .map(([shots, runs]) => ({
          shots,
          runs: runs.toSorted((a, b) => (a.seed ?? 0) - (b.seed ?? 0)),
          accuracy: summarize(runs.map(({ accuracy }) => accuracy)),
        })),
    }));
    const shots = new Set(own.map(({ shots }) => shots).filter((count) => count > 0));
    return {
      title,
      data,
      images: imagesOf(own[0]),
      classes: own[0].classes,
      shots: [...shots].sort((a, b) => a - b),
      rows: rows.sort((a, b) => orderOf(a) - orderOf(b) || a.parameters - b.parameters),
    };
  });
}

function contestOf(run: RunResult): string {
  return JSON.stringify([run.data, run.identity?.model ?? run.model, imagesOf(run), run.classes]);
}

/** Whether what a row is of has learned from images, so that it has shots. */
export function learns({ cells }: Row): boolean {
  return cells.some(({ shots }) => shots > 0);
}

/** How much one method is ahead of another with the same shots, in percent points, its runs paired by seed. */
export function difference(row: Row, other: Row, shots: number): Summary | null {
  const runsOf = ({ cells }: Row) => cells.find((cell) => cell.shots === shots)?.runs ?? [];
  const pairs = runsOf(row).flatMap((run) => {
    const twin = runsOf(other).find(({ seed }) => seed === run.seed);
    return twin ? [run.accuracy - twin.accuracy] : [];
  });
  return pairs.length > 0 ? summarize(pairs) : null;
}

/** `62.2 ± 0.8`, or `62.2` of a single value; `signed` with its sign. */
export function spread({ mean, deviation }: Summary, signed = false): string {
  const sign = signed && mean >= 0 ? "+" : "";
  const value = `${sign}${mean.toFixed(1)}`.replace("-", "−");
  return deviation === null ? value : `${value} ± ${deviation.toFixed(1)}`;
}
