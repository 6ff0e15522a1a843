/**
 * Pieces of the report's page. What they are given is markup, unless it is said to be text.
 *
 * @module
 */

/** Text as markup. */
export function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

/** A plot with a title and a note, both text. */
export function figure(title: string, note: string, svg: string): string {
  return `<figure><figcaption><b>${escaped(title)}</b> · ${
    escaped(note)
  }</figcaption>${svg}</figure>`;
}

/** A little square of a colour. */
export function swatch(color: string): string {
  return `<span class="swatch" style="background:${color}"></span>`;
}

/** A name in camel case as words, `frozenWeights` as `frozen weights`. */
export function wordsOf(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** A number of shots: `1 shot`, `4 shots`. */
export function shotsName(shots: number): string {
  return `${shots} shot${shots > 1 ? "s" : ""}`;
}

/** A table of a row of headings and rows of cells; the first cell heads its row. */
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
