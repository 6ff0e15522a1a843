/**
 * `deno task bench:peers`: octograd beside TensorFlow.js and jax-js on the same device, case by case. Each run of an
 * engine is a process of its own, so that the first call is one, and the engines take turns.
 *
 * @module
 */

import { dirname } from "node:path";
import { runCommand } from "../blocklora/command.ts";
import { Console } from "../blocklora/console.ts";
import { number, parseOnlyFlags, text, toggle, UsageError } from "../blocklora/flags.ts";
import { COMMON_FLAGS } from "../blocklora/workspace.ts";
import { type Case, CASES } from "./peers/cases.ts";
import type { Measured } from "./peers/child.ts";

const ENGINES = ["octograd", "tfjs", "jaxjs"] as const;
type Engine = typeof ENGINES[number];

/** Errors above this, relative to the largest number, are wrong results and no rounding. */
const TOLERANCE = 1e-3;

/** A number of each engine; null where it has nothing like the case. */
type OfEach = Readonly<Record<Engine, number | null>>;

/** A line of the table. */
export interface Row {
  /** The case's name. */
  readonly case: string;
  /** Milliseconds of a run and the wait for its result, median. */
  readonly ms: OfEach;
  /** The best peer's milliseconds over octograd's. */
  readonly ratio: number | null;
  /** Milliseconds of a run where up to twenty share a wait. */
  readonly many: OfEach;
  /** The ratio of `many`. */
  readonly manyRatio: number | null;
  /** Milliseconds of the first run in a fresh process, with no kernel compiled before. */
  readonly first: OfEach;
  /** The ratio of `first`. */
  readonly firstRatio: number | null;
  /** Kernels that a run starts. */
  readonly dispatches: OfEach;
  /** How often a run hands work to the GPU. */
  readonly submits: OfEach;
  /** Microseconds of the host for each kernel. */
  readonly hostMicroseconds: OfEach;
}

const FLAGS = {
  json: COMMON_FLAGS.json,
  help: COMMON_FLAGS.help,
  only: text("TEXT", "compare in the cases whose names hold this", ""),
  rounds: number({ from: 1, whole: true }, "take the median of this many turns", 1),
  output: text("FILE", "where the table is saved, as Markdown", "dist/peers.md"),
  warm: toggle("leave the driver the kernels that it compiled for earlier runs"),
};

const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];

/** What points the drivers of Mesa and NVIDIA to a cache of compiled kernels. */
const CACHES = ["MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"];

async function measure(engine: Engine, name: string, cache: string | null): Promise<Measured> {
  const child = new URL("./peers/child.ts", import.meta.url);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", child.href, engine, name],
    env: Object.fromEntries(cache === null ? [] : CACHES.map((name) => [name, cache])),
  }).output();
  const decoder = new TextDecoder();
  const line = decoder.decode(stdout).split("\n").find((line) => line.startsWith("{"));
  if (code !== 0 || !line) {
    throw new Error(`Cannot run ${name} in ${engine}: ${decoder.decode(stderr).trim()}`);
  }
  const measured: Measured = JSON.parse(line);
  if (!(measured.error < TOLERANCE)) {
    throw new Error(
      `Cannot compare ${name}: ${measured.title} errs by ${measured.error} of the largest number, ` +
        `at most ${TOLERANCE} is rounding`,
    );
  }
  return measured;
}

/** Compares the engines in one case. */
async function compare(of: Case, rounds: number, warm: boolean): Promise<[Row, Measured[]]> {
  const engines = of.alone ? ENGINES.slice(0, 1) : ENGINES;
  const all: Measured[][] = [];
  for (let round = 0; round < rounds; round++) {
    const turn: Measured[] = [];
    for (const engine of engines) {
      const cache = warm ? null : await Deno.makeTempDir();
      try {
        turn.push(await measure(engine, of.name, cache));
      } finally {
        if (cache !== null) await Deno.remove(cache, { recursive: true });
      }
    }
    all.push(turn);
  }
  const by = (value: (measured: Measured) => number) =>
    Object.fromEntries(ENGINES.map((engine) => {
      const at = engines.indexOf(engine);
      return [engine, at < 0 ? null : median(all.map((turn) => value(turn[at])))];
    })) as OfEach;
  const ratio = ({ octograd, tfjs, jaxjs }: OfEach) =>
    tfjs === null || jaxjs === null ? null : Math.min(tfjs, jaxjs) / octograd!;
  const [ms, many, first] = [
    by(({ waited }) => median(waited)),
    by(({ many }) => many),
    by(({ first }) => first),
  ];
  const row = {
    ...{ case: of.name, ms, ratio: ratio(ms), many, manyRatio: ratio(many) },
    ...{ first, firstRatio: ratio(first) },
    dispatches: by(({ dispatches }) => dispatches),
    submits: by(({ submits }) => submits),
    hostMicroseconds: by(({ host, dispatches }) => 1000 * host / dispatches),
  };
  return [row, all[0]];
}

/** `3.14/27/200`, and the ratio if there is one. */
function three(values: OfEach, ratio?: number | null): string {
  const text = (value: number) =>
    value >= 1000
      ? value.toFixed(0)
      : Number.isInteger(value)
      ? String(value)
      : value.toPrecision(3);
  const all = ENGINES.flatMap((engine) => values[engine] === null ? [] : [text(values[engine])]);
  return all.join("/") + (ratio ? ` ${ratio.toFixed(1)}x` : "");
}

const HEAD = [
  ...["case", "one run, waited for", "many runs, a wait", "first run"],
  ...["dispatches", "host, us a dispatch"],
];

function cells(row: Row): string[] {
  return [
    row.case,
    three(row.ms, row.ratio),
    three(row.many, row.manyRatio),
    three(row.first, row.firstRatio),
    three(row.dispatches),
    three(row.hostMicroseconds),
  ];
}

const ABOUT = {
  usage: "deno task bench:peers [--only TEXT] [--rounds N] [--output FILE] [--json]",
  about: "Compares octograd with TensorFlow.js and jax-js on this machine's WebGPU device.",
};

const LEGEND =
  "Milliseconds of octograd / tfjs / jax-js, and the best peer's over octograd's; dispatches and host time likewise.";

async function run(args: readonly string[]): Promise<number> {
  const { json, only, rounds, warm, output } = parseOnlyFlags(args, FLAGS);
  const cases = CASES.filter(({ name }) => name.includes(only));
  if (cases.length === 0) throw new UsageError(`Cannot find a case with "${only}" in its name`);
  const console = new Console(json);
  const rows: Row[] = [];
  const widths = [48, 24, 24, 24, 14, 20];
  const line = (texts: readonly string[]) =>
    texts.map((text, i) => i ? text.padStart(widths[i]) : text.padEnd(widths[0])).join("");
  let title = "";
  for (const [i, of] of cases.entries()) {
    const [row, turn] = await compare(of, rounds, warm);
    if (i === 0) {
      const engines = turn.map(({ title }) => title).join(", ");
      const date = new Date().toISOString().slice(0, 10);
      title = `${date}, ${turn[0].device}, Deno ${Deno.version.deno}, ${engines}`;
      console.say(title);
      console.say(LEGEND);
      console.say(line(HEAD));
    }
    rows.push(row);
    console.say(line(cells(row)));
  }
  const table = [HEAD, HEAD.map((_, i) => i ? "---:" : "---"), ...rows.map(cells)]
    .map((row) => `| ${row.join(" | ")} |`);
  await Deno.mkdir(dirname(output), { recursive: true });
  await Deno.writeTextFile(output, [title, "", LEGEND, "", ...table, ""].join("\n"));
  console.say(`table: ${output}`);
  if (json) globalThis.console.log(JSON.stringify(rows, null, 2));
  return 0;
}

if (import.meta.main) Deno.exit(await runCommand("bench:peers", { ABOUT, FLAGS, run }, Deno.args));
