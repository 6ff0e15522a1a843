/**
 * `deno task report`: finished runs as one page to read, send and keep.
 *
 * @module
 */

// Not the page itself: what draws its plots takes a while to load, and other commands do without.
import { join } from "node:path";
import { Console } from "../system/console.ts";
import { writeAtomically } from "../system/files.ts";
import { parseOnlyFlags, text, toggle } from "../system/flags.ts";
import { ImageHashes } from "../training/identity.ts";
import { contestsOf, imagesOf, readRuns } from "../report/data.ts";
import { COMMON_FLAGS } from "./shared_flags.ts";
import { openData } from "../data/open_data.ts";
import { userPath } from "../system/user_path.ts";

/** The usage line and the paragraph of the help. */
export const ABOUT = {
  usage: "octograd report [--runs DIR,DIR] [--data DIR,DIR] [flags]",
  about:
    `Makes one HTML file of finished runs, those of a sweep or any others: tables, plots, test images with what was
predicted of them, the confusion matrix. The file needs nothing else and runs no script.`,
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
  const roots = new Map<string, string>();
  for (const data of [undefined, ...flags.data?.split(",") ?? []]) {
    const { dataset } = await openData({ data: data?.trim(), split: undefined });
    // Under the same name there may be other images now.
    const own = runs.filter((run) => run.data === dataset.name).map(imagesOf);
    const names = [dataset.name, await new ImageHashes(dataset).of(dataset.test)];
    for (const name of names.filter((name) => own.includes(name))) roots.set(name, dataset.root);
  }
  const output = flags.output === undefined
    ? join(directories[0], "report.html")
    : userPath(flags.output);
  const { accuracies, pageOf } = await import("../report/page.ts");
  const page = await pageOf(runs, roots);
  await writeAtomically(output, page);
  if (flags.markdown) {
    for (const contest of contestsOf(runs)) {
      const { header, rows } = accuracies(contest, (text) => `**${text}**`);
      console.say(`${contest.title}:\n`);
      console.say(`| ${header.join(" | ")} |`);
      console.say(`| --- |${" ---: |".repeat(header.length - 1)}`);
      for (const { label, cells } of rows) console.say(`| ${label} | ${cells.join(" | ")} |`);
      console.say("");
    }
  }
  const kilobytes = Math.round(new TextEncoder().encode(page).length / 1000);
  console.note(`report: ${output} (${runs.length} runs, ${kilobytes} kB)`);
  console.finish({ output, runs: runs.length, kilobytes });
  return 0;
}

/** Writes the page of one finished run into its directory. */
export async function writeReport(
  directory: string,
  { root }: { readonly root: string },
): Promise<void> {
  const { pageOf } = await import("../report/page.ts");
  const [run] = await readRuns([directory]);
  const page = await pageOf([run], new Map([[imagesOf(run), root]]));
  await writeAtomically(join(directory, "report.html"), page);
}
