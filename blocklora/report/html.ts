/**
 * HTML elements of the report page. Arguments are markup, unless they are documented as text.
 *
 * @module
 */

import { printable } from "../system/console.ts";

/** Text as markup. Special characters of HTML are escaped, control characters shown. */
export function escaped(text: string): string {
  return printable(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** A plot with a title and a note. Both are text. */
export function figure(title: string, note: string, svg: string): string {
  return `<figure><figcaption><b>${escaped(title)}</b> · ${
    escaped(note)
  }</figcaption>${svg}</figure>`;
}

/** A small square of a colour, `#rrggbb`, for which the page needs the {@linkcode swatchRule}. */
export function swatch(color: string): string {
  return `<span class="swatch c${color.slice(1)}"></span>`;
}

/** The CSS rule for the swatches of a colour. The page's policy forbids `style` attributes. */
export function swatchRule(color: string): string {
  return `.c${color.slice(1)} {\n  background: ${color};\n}\n`;
}

/** Splits a camel-case name into words: `frozenWeights` becomes `frozen weights`. */
export function wordsOf(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** A number of shots in words: `1 shot`, `4 shots`. */
export function shotsName(shots: number): string {
  return `${shots} shot${shots > 1 ? "s" : ""}`;
}

/** A table with a row of headings and rows of cells. The first cell of a row is its heading. */
export function table(
  caption: string,
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const head = header.map((cell) => `<th scope="col">${cell}</th>`).join("");
  const body = rows.map(([first, ...cells]) =>
    `<tr><th scope="row">${first}</th>${cells.map((cell) => `<td>${cell}</td>`).join("")}</tr>`
  );
  return `<div class="scroll" tabindex="0" role="region" aria-label="${caption}">
<table><caption><span>${caption}</span></caption>
<thead><tr>${head}</tr></thead>
<tbody>
${body.join("\n")}
</tbody></table></div>`;
}
