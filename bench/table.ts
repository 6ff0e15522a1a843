/**
 * Numbers of three digits, and tables of them that read well in a terminal and as Markdown. A table
 * is made line by line, since its rows become known one after the other.
 *
 * @module
 */

/** A column: its head, and the width of its cells. The first column is flush left. */
export type Column = readonly [head: string, width: number];

/** The two lines above the rows: the heads and a rule. */
export function tableHead(columns: readonly Column[]): string {
  const rule = columns.map(([, width], i) =>
    i === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`
  );
  return `${tableRow(columns, columns.map(([head]) => head))}\n| ${rule.join(" | ")} |`;
}

/** A row. */
export function tableRow(columns: readonly Column[], cells: readonly string[]): string {
  const padded = columns.map(([, width], i) =>
    i === 0 ? cells[i].padEnd(width) : cells[i].padStart(width)
  );
  return `| ${padded.join(" | ")} |`;
}

/**
 * A number in three significant digits, with at most three decimals; integer digits are not
 * rounded.
 */
export function digits(value: number): string {
  if (value < 0.0005 || !Number.isFinite(value)) return value < 0.0005 ? "0" : String(value);
  if (value < 1) return value.toFixed(Math.min(3, 2 - Math.floor(Math.log10(value))));
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** The middle one of the numbers; of two middle ones the higher. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1];
