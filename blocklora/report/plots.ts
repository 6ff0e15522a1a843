/**
 * The plots of the report. They are drawn as SVG here, so that the page needs no script.
 *
 * @module
 */

import * as Plot from "@observablehq/plot";
import { MEMORY_CATEGORIES } from "../../tensor/memory.ts";
import { type Cell, type Contest, isTrained, learns, type Row } from "./contests.ts";
import { SvgDocument } from "./svg_document.ts";

/** Width of a plot in pixels. A phone's page is as wide, so the text is not scaled there. */
const WIDTH = 358;

/**
 * The colours of the methods, in order. They can be told apart on light and on dark backgrounds.
 */
export const COLORS = [
  "#8a8f98",
  "#b58900",
  "#4c86e8",
  "#2aa198",
  "#e0604c",
  "#a463f2",
  "#3ca951",
  "#e377c2",
];

/** The document in which Plot creates its elements. No real DOM is needed. */
const document = new SvgDocument() as unknown as Plot.PlotOptions["document"];

function draw(label: string, options: Plot.PlotOptions): string {
  const svg = Plot.plot({
    document,
    width: WIDTH,
    height: 260,
    marginLeft: 44,
    marginRight: 16,
    marginBottom: 38,
    ariaLabel: label,
    className: "plot",
    ...options,
  });
  svg.setAttribute("role", "img");
  // Its style sheet is in the page's, the only one that the page's policy permits.
  return svg.outerHTML.replace(/<style>[^<]*<\/style>/, "");
}

const lastCell = ({ cells }: Row): Cell => cells.at(-1)!;
const learning = ({ rows }: Contest) => rows.filter(learns);
const trained = ({ rows }: Contest) => rows.filter(isTrained);

/** The colour of each method of a contest, by its label. */
export function colorsOf({ rows }: Contest): Map<string, string> {
  return new Map(rows.map(({ label }, i) => [label, COLORS[i % COLORS.length]]));
}

/** Accuracy against shots, with error bars of one standard deviation. */
export function accuracyByShots(contest: Contest): string {
  const colors = colorsOf(contest);
  const points = learning(contest).flatMap(({ label, cells }, i, { length }) =>
    cells.map(({ shots, accuracy: { mean, deviation } }) => ({
      label,
      mean,
      // Shift the methods slightly, so that their error bars do not overlap.
      x: Math.log2(shots) + (i - (length - 1) / 2) * 0.06,
      least: mean - (deviation ?? 0),
      most: mean + (deviation ?? 0),
      stroke: colors.get(label),
    }))
  );
  const unlearned = contest.rows.filter((row) => !learns(row)).map((row) => ({
    mean: lastCell(row).accuracy.mean,
    stroke: colors.get(row.label),
  }));
  return draw(`Accuracy against shots on ${contest.data}`, {
    x: {
      label: "shots",
      ticks: contest.shots.map(Math.log2),
      tickFormat: (value: number) => `${2 ** value}`,
      inset: 12,
    },
    y: { label: "accuracy, %", grid: true, nice: true },
    marks: [
      Plot.ruleY(unlearned, { y: "mean", stroke: "stroke", strokeDasharray: "5,4" }),
      Plot.link(points, { x1: "x", x2: "x", y1: "least", y2: "most", stroke: "stroke" }),
      Plot.line(points, { x: "x", y: "mean", z: "label", stroke: "stroke", strokeWidth: 1.75 }),
      Plot.dot(points, { x: "x", y: "mean", fill: "stroke", r: 3 }),
    ],
  });
}

/** Accuracy against the number of trained parameters, at the largest number of shots. */
export function accuracyByParameters(contest: Contest): string {
  const colors = colorsOf(contest);
  const points = learning(contest).map((row) => {
    const { mean, deviation } = lastCell(row).accuracy;
    return {
      label: row.label,
      parameters: row.parameters,
      mean,
      least: mean - (deviation ?? 0),
      most: mean + (deviation ?? 0),
      fill: colors.get(row.label),
    };
  });
  return draw(`Accuracy against trained parameters on ${contest.data}`, {
    x: { type: "log", label: "trained parameters", tickFormat: "~s", ticks: 4, inset: 24 },
    y: { label: "accuracy, %", grid: true, nice: true, insetTop: 14 },
    marks: [
      Plot.link(points, {
        x1: "parameters",
        x2: "parameters",
        y1: "least",
        y2: "most",
        stroke: "fill",
      }),
      Plot.dot(points, { x: "parameters", y: "mean", fill: "fill", r: 5 }),
    ],
  });
}

/** Peak GPU memory by category, with one bar for each method. */
export function memoryByCategory(contest: Contest): string {
  const bars = trained(contest).flatMap((row) => {
    const bytes = lastCell(row).runs[0].peakBytesByOwner;
    return bytes
      ? MEMORY_CATEGORIES.map((category, i) => ({
        label: row.label,
        megabytes: bytes[category] / 1e6,
        fill: CATEGORY_COLORS[i],
      }))
      : [];
  });
  const rows = new Set(bars.map(({ label }) => label)).size;
  return draw(`Peak GPU memory by category on ${contest.data}`, {
    height: 68 + 30 * rows,
    marginLeft: 118,
    x: { label: "megabytes", grid: true },
    y: { label: null, domain: trained(contest).map(({ label }) => label) },
    marks: [Plot.barX(bars, { x: "megabytes", y: "label", fill: "fill" })],
  });
}

/** The colours of the {@linkcode MEMORY_CATEGORIES}, in the same order. */
export const CATEGORY_COLORS = ["#8a8f98", "#e0604c", "#b58900", "#a463f2", "#4c86e8", "#2aa198"];

/**
 * Training loss at the largest number of shots. Each seed is a thin line, their mean a thick one.
 */
export function lossCurves(contest: Contest): string {
  const colors = colorsOf(contest);
  const curves = trained(contest).flatMap((row) => {
    const { runs } = lastCell(row);
    return runs.flatMap(({ losses, seed }) =>
      losses.map(([step, loss]) => ({
        step,
        loss,
        label: row.label,
        run: `${row.label} ${seed}`,
        stroke: colors.get(row.label),
      }))
    );
  });
  const x = { label: "step" };
  return draw(`Training loss on ${contest.data}`, {
    x,
    y: { type: "log", label: "loss, nats", grid: true, ticks: 5, tickFormat: "~g" },
    marks: [
      Plot.line(curves, {
        x: "step",
        y: "loss",
        z: "run",
        stroke: "stroke",
        strokeWidth: 0.6,
        strokeOpacity: 0.45,
      }),
      Plot.line(
        curves,
        Plot.groupX({ y: "mean" }, {
          x: "step",
          y: "loss",
          z: "label",
          stroke: "stroke",
          strokeWidth: 1.75,
        } as Plot.LineOptions),
      ),
    ],
  });
}

/** The most classes for which a confusion matrix is readable. */
export const MOST_CLASSES = 24;

/**
 * Confusion matrix: for each true class, the percentage of its images that was predicted as each
 * class, over all seeds.
 */
export function confusion(contest: Contest, { runs }: Cell): string {
  const { classes } = contest;
  const counts = classes.map(() => classes.map(() => 0));
  for (const { labels, predictions } of runs) {
    labels.forEach((label, i) => counts[label][predictions[i]]++);
  }
  const cells = counts.flatMap((row, label) => {
    const images = Math.max(1, row.reduce((sum, count) => sum + count));
    return row.map((count, guess) => ({
      truth: label,
      guess,
      share: 100 * count / images,
      text: count === 0 ? "" : `${Math.round(100 * count / images)}`,
    }));
  });
  // Two classes may have the same name, but not the same number.
  const domain = [...classes.keys()];
  const tickFormat = (label: number) => classes[label];
  const longest = Math.max(...classes.map((name) => name.length));
  const margin = Math.min(160, 12 + 5.8 * longest);
  // The rotated name above the last column extends to the right of the matrix.
  const lean = Math.min(60, 4 * classes.at(-1)!.length);
  const size = Math.max(14, (WIDTH - margin - lean) / classes.length);
  return draw(`Confusion matrix on ${contest.data}`, {
    height: margin + classes.length * size + 8,
    marginLeft: margin,
    marginTop: margin,
    marginBottom: 8,
    marginRight: lean,
    className: "matrix",
    x: { domain, tickFormat, label: null, axis: "top", tickRotate: -55, tickSize: 0 },
    y: { domain, tickFormat, label: null, tickSize: 0 },
    marks: [
      Plot.cell(cells, {
        x: "guess",
        y: "truth",
        fill: "#4c86e8",
        fillOpacity: (cell: { share: number }) => 0.04 + 0.86 * cell.share / 100,
        inset: 0.5,
      }),
      Plot.text(cells, { x: "guess", y: "truth", text: "text", fill: "currentColor" }),
    ],
  });
}
