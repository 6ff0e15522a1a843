/**
 * Measurements in numbers of three digits, and in tables that read well in a terminal and in Markdown, line by line as
 * their rows become known.
 *
 * @module
 */

/** A column: its head, and how wide its cells are; those of the first are flush left. */
export type Column = readonly [head: string, width: number];

/** The two lines above the rows. */
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

/** A number in three digits, as far as they are before the fourth place. */
export function digits(value: number): string {
  if (value < 0.0005 || !Number.isFinite(value)) return value < 0.0005 ? "0" : String(value);
  if (value < 1) return value.toFixed(Math.min(3, 2 - Math.floor(Math.log10(value))));
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** The middle one of some numbers, the higher one where there are two. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1];
