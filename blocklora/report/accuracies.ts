/**
 * The main table of a report: accuracies by method and number of shots.
 *
 * @module
 */

import { printable } from "../system/console.ts";
import { type Contest, type Row, spread } from "./contests.ts";
import { shotsName } from "./html.ts";

/** The cells of the table. */
export interface Accuracies {
  /** The headings of all columns. */
  readonly header: readonly string[];
  /**
   * One row for each method: its label, which belongs to the first heading, and the cells for the
   * other headings.
   */
  readonly rows: readonly { readonly label: string; readonly cells: readonly string[] }[];
}

/** The accuracies of a contest. `mark` formats the best cell of each number of shots. */
export function accuracies({ rows, shots }: Contest, mark: (text: string) => string): Accuracies {
  const columns = shots.length > 0 ? shots : [0];
  // Methods that use no shots have the same accuracy in every column.
  const cellOf = ({ cells }: Row, count: number) =>
    cells.find(({ shots }) => shots === count) ?? cells.find(({ shots }) => shots === 0);
  const best = columns.map((count) =>
    Math.max(...rows.map((row) => cellOf(row, count)?.accuracy.mean ?? -Infinity))
  );
  return {
    header: ["method", ...columns.map(shotsName), "trained parameters", "seeds"],
    rows: rows.map((row) => {
      const cells = columns.map((count, i) => {
        const cell = cellOf(row, count);
        if (!cell) return "";
        return cell.accuracy.mean === best[i] ? mark(spread(cell.accuracy)) : spread(cell.accuracy);
      });
      const seeds = new Set(row.cells.flatMap(({ runs }) => runs.map(({ seed }) => seed)));
      seeds.delete(null);
      const parameters = row.parameters.toLocaleString("en");
      return { label: row.label, cells: [...cells, parameters, seeds.size ? `${seeds.size}` : ""] };
    }),
  };
}

/** The accuracies of a contest as a Markdown table, with the title above it. */
export function markdownOf(contest: Contest): string {
  const { header, rows } = accuracies(contest, (text) => `**${text}**`);
  return [
    `${markdownText(contest.title)}:\n`,
    `| ${header.join(" | ")} |`,
    `| --- |${" ---: |".repeat(header.length - 1)}`,
    ...rows.map(({ label, cells }) => `| ${label} | ${cells.join(" | ")} |`),
  ].join("\n");
}

/** Text in Markdown, where it makes neither markup nor another line. */
function markdownText(text: string): string {
  return printable(text).replace(/[\\`*_[\]<>&|#]/g, "\\$&");
}
