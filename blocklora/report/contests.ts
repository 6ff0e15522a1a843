/**
 * Finished runs summed up: which can be compared, and how far their methods are apart.
 *
 * @module
 */

import { isMethod, labelOf, orderOf } from "../methods/lookup.ts";
import type { RunResult } from "../training/result.ts";
import { contestOf, imagesOf } from "./runs.ts";

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
  /** The method's name. */
  readonly method: string;
  /** What to call the method, with its rank and its blocks. */
  readonly label: string;
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
  /**
   * What tells its test images from any other, {@linkcode Identity.test}; its name for runs of 0.1.
   */
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
 * Sorts runs into contests, by data set and model, and there by method and shots. Contests on data
 * sets of one name are told apart in their titles, by their models where those differ, else by
 * numbers.
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

/** Whether a row is of a method that is trained in steps, as no baseline is. */
export function isTrained({ method }: Row): boolean {
  return isMethod(method);
}

/** Whether a row's method learns from the shots. */
export function learns({ cells }: Row): boolean {
  return cells.some(({ shots }) => shots > 0);
}

/**
 * How much one method is ahead of another with the same shots, in percent points, its runs paired
 * by seed; null if there are no pairs.
 */
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
