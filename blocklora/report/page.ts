/**
 * The report page: one HTML file that loads nothing and runs no script.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { MEMORY_CATEGORIES } from "../../tensor/memory.ts";
import { labelOf } from "../methods/lookup.ts";
import type { RunResult } from "../training/result.ts";
import { type Contest, contestsOf, isTrained, type Row } from "./contests.ts";
import { escaped, figure, swatch, swatchRule, wordsOf } from "./html.ts";
import css from "./page.css" with { type: "text" };
import {
  accuracyByParameters,
  accuracyByShots,
  CATEGORY_COLORS,
  COLORS,
  confusion,
  lossCurves,
  memoryByCategory,
  MOST_CLASSES,
} from "./plots.ts";
import { accuracyTable, configurationTable, differenceTable } from "./tables.ts";
import { testImages } from "./test_images.ts";

/** The only style sheet of the page. Browsers hash it with the line ends of Unix. */
const STYLE = [
  `\n${css.replaceAll("\r\n", "\n")}`,
  ...new Set([...COLORS, ...CATEGORY_COLORS].map(swatchRule)),
].join("");

/**
 * What the page may do. Even if a name were taken for markup, it could run no script, send nothing
 * and load nothing.
 */
const POLICY = [
  "default-src 'none'",
  "img-src data:",
  `style-src 'sha256-${createHash("sha256").update(STYLE).digest("base64")}'`,
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

/** How many bytes all test images of a page may take together. */
const IMAGE_BYTES = 400_000;

/**
 * The HTML of the page for `runs`. `roots` maps {@linkcode Contest.images} to the directory of
 * these images.
 */
export async function pageOf(
  runs: readonly RunResult[],
  roots: ReadonlyMap<string, string>,
): Promise<string> {
  const contests = contestsOf(runs);
  const budget = IMAGE_BYTES / contests.length;
  const sections: string[] = [];
  for (const contest of contests) {
    sections.push(await sectionOf(contest, roots.get(contest.images), budget));
  }
  const one = runs.length === 1 ? runs[0] : null;
  const title = one ? `${labelOf(one)} on ${one.data}` : "What few labelled images teach a CLIP";
  const methods = new Set(runs.map(labelOf)).size;
  const lead = one
    ? `${one.accuracy.toFixed(1)} % of ${one.labels.length} test images right` +
      (one.zeroShotAccuracy === null
        ? "."
        : `, ${one.zeroShotAccuracy.toFixed(1)} % before training, after ${one.iterations} steps ` +
          `with ${one.shots} images a class.`)
    : `${runs.length} runs of ${methods} methods on ${
      [...new Set(contests.map(({ data }) => data))].join(" and ")
    }. Accuracies are percent of the test images, ` +
      "means over seeds ± one standard deviation of the sample.";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escaped(title)}</h1>
<p class="lead">${escaped(lead)}</p>
${sections.join("\n")}
<h2>Configuration</h2>
${configurationTable(runs)}
</main>
</body>
</html>
`;
}

async function sectionOf(
  contest: Contest,
  root: string | undefined,
  budget: number,
): Promise<string> {
  const trained = contest.rows.filter(isTrained);
  const best = bestRow(contest);
  const shown = best.cells.at(-1)!;
  const several = contest.rows.reduce((count, { cells }) => count + cells.length, 0) > 1;
  const shots = contest.shots.at(-1) ?? 0;
  const what = `${best.label}${shown.shots > 0 ? `, ${shown.shots} shots` : ""}`;
  const images = root === undefined
    ? `<p class="note">Not shown: name the directory of ${escaped(contest.data)} with --data.</p>`
    : await testImages(shown.runs[0], root, budget);
  const figures = [
    contest.shots.length > 1 &&
    figure(
      "Accuracy against shots",
      "bars: one standard deviation; dashed: zero-shot",
      accuracyByShots(contest),
    ),
    contest.rows.filter(({ parameters }) => parameters > 0).length > 1 &&
    figure(
      "Accuracy against trained parameters",
      `${shots} shots; colours as in the table`,
      accuracyByParameters(contest),
    ),
    trained.length > 0 &&
    figure("Training loss", `${shots} shots; thin: each seed`, lossCurves(contest)),
    trained.some(({ cells }) => cells.at(-1)!.runs[0].peakBytesByOwner !== null) &&
    figure(
      "Peak GPU memory",
      "of a training step, by category",
      `${memoryByCategory(contest)}${memoryLegend()}`,
    ),
    contest.classes.length <= MOST_CLASSES &&
    figure(
      "Confusion matrix",
      `${what}; rows: true classes, in percent`,
      confusion(contest, shown),
    ),
  ].filter((figure) => typeof figure === "string");
  return [
    `<h2>${escaped(contest.title)}</h2>`,
    several ? accuracyTable(contest) : "",
    differenceTable(contest),
    `<div class="plots">\n${figures.join("\n")}\n</div>`,
    images && `<h3>Test images · ${escaped(what)}</h3>\n${images}`,
  ].filter((markup) => markup !== "").join("\n");
}

/** The method with the best accuracy at the largest number of shots. */
function bestRow({ rows, shots }: Contest): Row {
  const most = shots.at(-1) ?? 0;
  const rated = rows.map((row) => ({ row, cell: row.cells.find((cell) => cell.shots === most) }))
    .filter(({ cell }) => cell !== undefined);
  return rated.reduce((a, b) => b.cell!.accuracy.mean > a.cell!.accuracy.mean ? b : a).row;
}

/** The legend for the colours of the memory bars. */
function memoryLegend(): string {
  const items = MEMORY_CATEGORIES.map((name, i) =>
    `<li>${swatch(CATEGORY_COLORS[i])}${wordsOf(name)}</li>`
  );
  return `<ul class="legend">${items.join("")}</ul>`;
}
