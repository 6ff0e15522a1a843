/**
 * Groups finished runs into contests of runs that can be compared, and summarizes their
 * differences.
 *
 * @module
 */

import { isMethod, labelOf, orderOf } from "../methods/lookup.ts";
import type { RunResult } from "../training/result.ts";
import { contestOf, imagesOf } from "./runs.ts";

/** The mean and standard deviation of some values. */
export interface Summary {
  /** The mean. */
  readonly mean: number;
  /** The sample standard deviation; null for a single value. */
  readonly deviation: number | null;
  /** How many values there were. */
  readonly count: number;
}

/** The runs of one method with one number of shots, one for each seed. */
export interface Cell {
  /** Training images per class; 0 if nothing is trained. */
  readonly shots: number;
  /** The runs, sorted by seed. */
  readonly runs: readonly RunResult[];
  /** Their accuracies, in percent. */
  readonly accuracy: Summary;
}

/** The runs of one method on one data set. */
export interface Row {
  /** The method's name. */
  readonly method: string;
  /** The display name of the method, with its rank and blocks. */
  readonly label: string;
  /** The number of trained parameters. */
  readonly parameters: number;
  /** One cell for each number of shots, the smallest first. */
  readonly cells: readonly Cell[];
}

/** The runs of one model on one set of test images. */
export interface Contest {
  /**
   * The name of the data set, with an addition if another contest of the report has the same name.
   */
  readonly title: string;
  /** The data set's name. */
  readonly data: string;
  /**
   * Identifies the test images: {@linkcode Identity.test}, or the name of the data set for runs of
   * version 0.1.
   */
  readonly images: string;
  /** The names of its classes. */
  readonly classes: readonly string[];
  /** All numbers of shots that were used, the smallest first; empty if all runs are zero-shot. */
  readonly shots: readonly number[];
  /** One row for each method. */
  readonly rows: readonly Row[];
}

/** The mean and sample standard deviation of some values. */
export function summarize(values: readonly number[]): Summary {
  const count = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: count > 1 ? Math.sqrt(squares / (count - 1)) : null, count };
}

/**
 * Groups runs into contests by data set and model, and within a contest by method and shots. If
 * several contests have data sets of the same name, their titles also have the model, or a number
 * where the models are the same too.
 */
export function contestsOf(runs: readonly RunResult[]): Contest[] {
  const contests = [...Map.groupBy(runs, contestOf).values()];
  return contests.map((compared, i) => {
    const [first] = compared;
    const { data, model } = first;
    const rivals = contests.filter(([other]) => other.data === data);
    const isModels = rivals.every(([other]) => other === first || other.model !== model);
    const title = rivals.length === 1
      ? data
      : isModels
      ? `${data}, ${model}`
      : `${data} (${i + 1})`;
    const rows = [...Map.groupBy(compared, labelOf)].map(([label, runs]): Row => ({
      method: runs[0].method,
      label,
      parameters: runs[0].trainableParameters,
      cells: [...Map.groupBy(runs, ({ shots }) => shots)]
        .sort(([a], [b]) => a - b)
        .map(([shots, runs]) => ({
          shots,
          runs: runs.toSorted((a, b) => (a.seed ?? 0) - (b.seed ?? 0)),
          accuracy: summarize(runs.map(({ accuracy }) => accuracy)),
        })),
    }));
    const shots = new Set(compared.map(({ shots }) => shots).filter((count) => count > 0));
    return {
      title,
      data,
      images: imagesOf(first),
      classes: first.classes,
      shots: [...shots].sort((a, b) => a - b),
      rows: rows.sort((a, b) => orderOf(a) - orderOf(b) || a.parameters - b.parameters),
    };
  });
}

/** Whether a row is of a method that is trained, and not of a baseline. */
export function isTrained({ method }: Row): boolean {
  return isMethod(method);
}

/** Whether a row's method learns from the shots. */
export function learns({ cells }: Row): boolean {
  return cells.some(({ shots }) => shots > 0);
}

/**
 * How far one method is ahead of another with the same shots, in percentage points. Runs are paired
 * by seed. Null if there are no pairs.
 */
export function difference(row: Row, other: Row, shots: number): Summary | null {
  const runsOf = ({ cells }: Row) => cells.find((cell) => cell.shots === shots)?.runs ?? [];
  const pairs = runsOf(row).flatMap((run) => {
    const twin = runsOf(other).find(({ seed }) => seed === run.seed);
    return twin ? [run.accuracy - twin.accuracy] : [];
  });
  return pairs.length > 0 ? summarize(pairs) : null;
}

/**
 * Formats a summary as `62.2 ± 0.8`, or as `62.2` for a single value. With `signed`, a plus sign
 * precedes values from 0 on.
 */
export function spread({ mean, deviation }: Summary, signed = false): string {
  const sign = signed && mean >= 0 ? "+" : "";
  const value = `${sign}${mean.toFixed(1)}`.replace("-", "−");
  return deviation === null ? value : `${value} ± ${deviation.toFixed(1)}`;
}
