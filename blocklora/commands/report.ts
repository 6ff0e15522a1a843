/**
 * `deno task report`: makes one HTML page of finished runs.
 *
 * @module
 */

import { join } from "node:path";
import { openData } from "../data/open_data.ts";
import { markdownOf } from "../report/accuracies.ts";
import { contestsOf } from "../report/contests.ts";
import { readRuns } from "../report/runs.ts";
import { rootsOf, writePage } from "../report/write.ts";
import { Console } from "../system/console.ts";
import { text, toggle } from "../system/flag.ts";
import { parseOnlyFlags } from "../system/flags.ts";
import { userPath } from "../system/user_path.ts";
import { COMMON_FLAGS } from "./common_flags.ts";

/** The usage line and the description in the help text. */
export const ABOUT = {
  usage: "octograd report [--runs DIR,DIR] [--data DIR,DIR] [flags]",
  about:
    `Makes one HTML file of finished runs, those of a sweep or any more: tables, plots, test images
with what was predicted of them, the confusion matrix. The file needs nothing else and runs no
script.`,
};

/** The flags of `report`. */
export const FLAGS = {
  runs: text("LIST", "directories to search for finished runs", "runs/sweep"),
  data: text<string | undefined>(
    "LIST",
    "where the images are, as for sweep; the embedded ones are known",
    undefined,
  ),
  output: text<string | undefined>(
    "FILE",
    "where to write [report.html beside the runs]",
    undefined,
  ),
  markdown: toggle("print the accuracies as Markdown tables"),
  ...COMMON_FLAGS,
};

/** Runs the command and returns its exit code. */
export async function report(args: readonly string[]): Promise<number> {
  const flags = parseOnlyFlags(args, FLAGS);
  const console = new Console(flags.json);
  const directories = flags.runs.split(",").map((path) => userPath(path.trim()));
  const runs = await readRuns(directories);
  const names = [undefined, ...flags.data?.split(",") ?? []];
  const opened = await Promise.all(
    names.map((data) => openData({ data: data?.trim(), split: undefined }, console)),
  );
  const roots = await rootsOf(runs, opened.map(({ dataset }) => dataset));
  const output = flags.output === undefined
    ? join(directories[0], "report.html")
    : userPath(flags.output);
  const bytes = await writePage(output, runs, roots);
  if (flags.markdown) {
    for (const contest of contestsOf(runs)) {
      for (const line of `${markdownOf(contest)}\n`.split("\n")) console.say(line);
    }
  }
  const kilobytes = Math.round(bytes / 1000);
  console.note(`report: ${output} (${runs.length} runs, ${kilobytes} kB)`);
  console.finish({ output, runs: runs.length, kilobytes });
  return 0;
}
