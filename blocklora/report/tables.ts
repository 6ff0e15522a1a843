/**
 * The tables of the report page.
 *
 * @module
 */

import { DEFAULT_ADAPTER } from "../methods/adapter_config.ts";
import { isMethod } from "../methods/lookup.ts";
import type { RunResult } from "../training/result.ts";
import { accuracies } from "./accuracies.ts";
import { type Contest, difference, learns, spread } from "./contests.ts";
import { escaped, shotsName, swatch, table, wordsOf } from "./html.ts";
import { colorsOf } from "./plots.ts";

/** The accuracies of a contest. Each method is marked with its colour in the plots. */
export function accuracyTable(contest: Contest): string {
  const colors = colorsOf(contest);
  const { header, rows } = accuracies(contest, (text) => `<span class="best">${text}</span>`);
  return table(
    `Accuracy in percent on ${escaped(contest.data)}; the best of each column is bold`,
    header,
    rows.map(({ label, cells }) => [`${swatch(colors.get(label)!)}${escaped(label)}`, ...cells]),
  );
}

/**
 * How far the default method is ahead of every other method that learns, with runs paired by seed.
 * Empty if there is nothing to compare.
 */
export function differenceTable({ rows, shots }: Contest): string {
  const leading = rows.find(({ method }) => method === DEFAULT_ADAPTER.method);
  const rest = rows.filter((row) => row !== leading && learns(row));
  if (!leading || rest.length === 0 || shots.length === 0) return "";
  return table(
    `${escaped(leading.label)} less each other method, in percent points, ` +
      "runs paired by seed; where the spread is as large, they tell no difference",
    ["", ...shots.map(shotsName)],
    rest.map((other) => [
      `− ${escaped(other.label)}`,
      ...shots.map((count) => {
        const found = difference(leading, other, count);
        return found ? spread(found, true) : "";
      }),
    ]),
  );
}

const inOrder = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });

/** All values in the configurations of runs, by name. */
export function configurationTable(runs: readonly RunResult[]): string {
  const values = new Map<string, Set<string>>();
  const note = (key: string, value: unknown) => {
    if (value === null || value === undefined) return;
    const text = typeof value === "string" ? value : JSON.stringify(value);
    values.set(key, (values.get(key) ?? new Set()).add(text));
  };
  for (const run of runs) {
    for (const key of ["model", "device", "version", "template", "seed"] as const) {
      note(key, run[key]);
    }
    if (!isMethod(run.method)) continue;
    note("iterations", run.iterations);
    for (const [key, value] of Object.entries(run.settings ?? {})) {
      if (!["model", "template", "seed", "iterations"].includes(key)) note(key, value);
    }
  }
  const rows = [...values].map(([key, found]) =>
    `<tr><th scope="row">${escaped(wordsOf(key))}</th><td>${
      escaped([...found].sort(inOrder).join(", "))
    }</td></tr>`
  );
  return `<div class="scroll"><table class="configuration">
<caption>Of all runs; those of adapters where the other methods have none</caption>
<tbody>
${rows.join("\n")}
</tbody></table></div>`;
}
