/**
 * The report's page: one HTML file that loads nothing and runs nothing.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { extname, join } from "node:path";
import { OWNERS } from "../../tensor/memory.ts";
import { DEFAULT_ADAPTER } from "../methods/adapter_config.ts";
import { labelOf } from "../methods/lookup.ts";
import css from "./page.css" with { type: "text" };
import {
  type Cell,
  type Contest,
  contestsOf,
  difference,
  learns,
  type Row,
  spread,
} from "./data.ts";
import {
  accuracyByParameters,
  accuracyByShots,
  colorsOf,
  confusion,
  lossCurves,
  memoryByOwner,
  MOST_CLASSES,
  OWNER_COLORS,
} from "./plots.ts";
import type { RunResult } from "../training/result.ts";

/** Test images that are shown of a data set, and the bytes that all images of a page may take. */
const [SHOWN, IMAGE_BYTES] = [24, 400_000];

const escaped = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");

/** The page of some runs; `roots` says where the images of a data set are, by {@linkcode Contest.images}. */
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
    }. Accuracies are percent of the test images, means over seeds ± one standard deviation of the sample.`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escaped(title)}</title>
<style>
${css}</style>
</head>
<body>
<main>
<h1>${escaped(title)}</h1>
<p class="lead">${escaped(lead)}</p>
${sections.join("\n")}
<h2>Settings</h2>
${settingsTable(runs)}
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
  const adapted = contest.rows.filter(({ trains }) => trains);
  const best = bestRow(contest);
  const shown = best.cells.at(-1)!;
  const several = contest.rows.reduce((count, { cells }) => count + cells.length, 0) > 1;
  const shots = contest.shots.at(-1) ?? 0;
  const what = `${best.label}${shown.shots > 0 ? `, ${shown.shots} shots` : ""}`;
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
    adapted.length > 0 &&
    figure("Training loss", `${shots} shots; thin: each seed`, lossCurves(contest)),
    adapted.some(({ cells }) => cells.at(-1)!.runs[0].peakBytesByOwner !== null) &&
    figure("Peak GPU memory", "of a training step, by owner", memoryByOwner(contest)).replace(
      "</figure>",
      `${ownerLegend()}</figure>`,
    ),
    contest.classes.length <= MOST_CLASSES &&
    figure(
      "Confusion matrix",
      `${what}; rows: true classes, in percent`,
      confusion(contest, shown),
    ),
  ].filter((part) => typeof part === "string");
  return [
    `<h2>${escaped(contest.title)}</h2>`,
    several ? mainTable(contest) : "",
    differences(contest),
    `<div class="plots">\n${figures.join("\n")}\n</div>`,
    await images(contest, what, shown, root, budget),
  ].filter((part) => part !== "").join("\n");
}

/** The method that is best at the most shots. */
function bestRow({ rows, shots }: Contest): Row {
  const most = shots.at(-1) ?? 0;
  const rated = rows.map((row) => ({ row, cell: row.cells.find((cell) => cell.shots === most) }))
    .filter(({ cell }) => cell !== undefined);
  return rated.reduce((a, b) => b.cell!.accuracy.mean > a.cell!.accuracy.mean ? b : a).row;
}

const figure = (title: string, note: string, svg: string) =>
  `<figure><figcaption><b>${escaped(title)}</b> · ${escaped(note)}</figcaption>${svg}</figure>`;

const swatch = (color: string) => `<span class="swatch" style="background:${color}"></span>`;

function ownerLegend(): string {
  const items = OWNERS.map((owner, i) => {
    const words = owner.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    return `<li>${swatch(OWNER_COLORS[i])}${words}</li>`;
  });
  return `<ul class="legend">${items.join("")}</ul>`;
}

/** A table's heading cells and rows, of which the first cells head the rows. */
function table(
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

const shotsName = (shots: number) => `${shots} shot${shots > 1 ? "s" : ""}`;

/** The accuracies of a contest, a row a method: cells of a table, the best of each column marked. */
export function accuracies(
  { rows, shots }: Contest,
  mark: (text: string) => string,
): { header: string[]; rows: { label: string; cells: string[] }[] } {
  const columns = shots.length > 0 ? shots : [0];
  // What takes no shots is the same in every column.
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

function mainTable(contest: Contest): string {
  const colors = colorsOf(contest);
  const { header, rows } = accuracies(contest, (text) => `<span class="best">${text}</span>`);
  return table(
    `Accuracy in percent on ${escaped(contest.data)}; the best of each column is bold`,
    header,
    rows.map(({ label, cells }) => [`${swatch(colors.get(label)!)}${escaped(label)}`, ...cells]),
  );
}

/** How far the method that commands take by themselves is ahead of each other, seed by seed. */
function differences(contest: Contest): string {
  const block = contest.rows.find(({ method }) => method === DEFAULT_ADAPTER.method);
  const others = contest.rows.filter((row) => row !== block && learns(row));
  if (!block || others.length === 0 || contest.shots.length === 0) return "";
  const rows = others.map((other) => [
    `− ${escaped(other.label)}`,
    ...contest.shots.map((shots) => {
      const found = difference(block, other, shots);
      return found ? spread(found, true) : "";
    }),
  ]);
  return table(
    `${
      escaped(block.label)
    } less each other method, in percent points, runs paired by seed; where the spread is as large, they tell no difference`,
    ["", ...contest.shots.map(shotsName)],
    rows,
  );
}

/** Test images with what was predicted of them, right and wrong ones in turn. */
async function images(
  { classes, data }: Contest,
  what: string,
  { runs: [run] }: Cell,
  root: string | undefined,
  budget: number,
): Promise<string> {
  const heading = `<h3>Test images · ${escaped(what)}</h3>`;
  if (root === undefined) {
    return `${heading}\n<p class="note">Not shown: name the directory of ${
      escaped(data)
    } with --data.</p>`;
  }
  const all = run.images.map((path, i) => ({
    path,
    truth: run.labels[i],
    guess: run.predictions[i],
  }));
  const [right, wrong] = [true, false].map((hit) =>
    evenly(all.filter(({ truth, guess }) => (truth === guess) === hit), SHOWN / 2)
  );
  const figures: string[] = [];
  let bytes = 0;
  for (const { path, truth, guess } of right.flatMap((hit, i) => [hit, ...wrong.slice(i, i + 1)])) {
    const content = await Deno.readFile(join(root, path)).catch(() => null);
    const type = { ".png": "png", ".webp": "webp" }[extname(path).toLowerCase()] ?? "jpeg";
    if (!content || bytes + content.length * 4 / 3 > budget) continue;
    bytes += content.length * 4 / 3;
    const uri = `data:image/${type};base64,${Buffer.from(content).toString("base64")}`;
    const hit = truth === guess;
    figures.push(
      `<div><img src="${uri}" alt="${escaped(classes[truth])}"><span class="${
        hit ? "right" : "wrong"
      }">${hit ? "✓" : "✗"} ${escaped(classes[guess])}</span>${
        hit ? "" : `<small>is ${escaped(classes[truth])}</small>`
      }</div>`,
    );
  }
  return figures.length > 0
    ? `${heading}\n<div class="images">\n${figures.join("\n")}\n</div>`
    : "";
}

/** So many of a list, evenly spread over it. */
function evenly<T>(list: readonly T[], count: number): T[] {
  const size = Math.min(count, list.length);
  return Array.from({ length: size }, (_, i) => list[Math.floor((i + 0.5) * list.length / size)]);
}

const inOrder = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });

function settingsTable(runs: readonly RunResult[]): string {
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
    if (run.rank === null) continue;
    note("iterations", run.iterations);
    for (const [key, value] of Object.entries(run.settings ?? {})) {
      if (!["model", "template", "seed", "iterations"].includes(key)) note(key, value);
    }
  }
  const rows = [...values].map(([key, found]) => {
    const words = key.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    return `<tr><th scope="row">${words}</th><td>${
      escaped([...found].sort(inOrder).join(", "))
    }</td></tr>`;
  });
  return `<div class="scroll"><table class="settings"><caption>Of all runs; those of adapters where others have none</caption>
<tbody>
${rows.join("\n")}
</tbody></table></div>`;
}
