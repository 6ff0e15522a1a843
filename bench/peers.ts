/**
 * `deno task bench:peers`: octograd beside TensorFlow.js and jax-js on the same device, case by
 * case. The engines take turns. Each case of an engine runs in a separate process, so that its
 * first run finds nothing compiled.
 *
 * @module
 */

import { dirname } from "node:path";
import { runCommand } from "../blocklora/commands/command.ts";
import { Console } from "../blocklora/system/console.ts";
import { number, text, toggle, UsageError } from "../blocklora/system/flag.ts";
import { parseOnlyFlags } from "../blocklora/system/flags.ts";
import { COMMON_FLAGS } from "../blocklora/commands/common_flags.ts";
import { userPath } from "../blocklora/system/user_path.ts";
import { type Case, CASES, draw } from "./peers/cases.ts";
import type { Measured } from "./peers/engine.ts";
import { type Column, digits, median, tableHead, tableRow } from "./table.ts";

const ENGINES = ["octograd", "tfjs", "jaxjs"] as const;
type Engine = typeof ENGINES[number];

/** An error above this, relative to the largest number, is a wrong result and not rounding. */
const TOLERANCE = 1e-3;

/** A number for each engine; null if the engine cannot run the case. */
type OfEach = Readonly<Record<Engine, number | null>>;

/** A line of the table. */
export interface Row {
  /** The case's name. */
  readonly case: string;
  /** Milliseconds of a run and of the wait for its result, median. */
  readonly ms: OfEach;
  /** The best peer's milliseconds over octograd's. */
  readonly ratio: number | null;
  /** Milliseconds of a run if up to twenty runs share one wait. */
  readonly many: OfEach;
  /** The best peer's `many` over octograd's. */
  readonly manyRatio: number | null;
  /** Milliseconds of the first run in a new process, with no kernel compiled before. */
  readonly first: OfEach;
  /** The best peer's `first` over octograd's. */
  readonly firstRatio: number | null;
  /** Images a second, if each run takes `ms`; null if the case has no images. */
  readonly imagesPerSecond: OfEach;
  /** How many dispatches a run records. */
  readonly dispatches: OfEach;
  /** How often a run submits to the GPU's queue. */
  readonly submits: OfEach;
  /** Microseconds that the host takes for each dispatch. */
  readonly hostMicroseconds: OfEach;
}

const FLAGS = {
  json: COMMON_FLAGS.json,
  help: COMMON_FLAGS.help,
  only: text("TEXT", "compare in the cases whose names hold this", ""),
  rounds: number({ from: 1, integer: true }, "take the median of this many turns", 1),
  output: text("FILE", "where the table is saved, as Markdown", "dist/peers.md"),
  minutes: number<number | undefined>(
    { from: 0.1 },
    "begin no case after so many minutes",
    undefined,
  ),
  warm: toggle("leave the driver the kernels that it compiled for earlier runs"),
};

/** Milliseconds after which a process is taken to hang and is stopped. */
const LONGEST = 300_000;

/** Stops the process that runs. */
const stop = new AbortController();

/** The variables that tell the drivers of Mesa and NVIDIA where to cache compiled kernels. */
const CACHES = ["MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"];

/**
 * Runs a case in an engine, in a new process. `expected` is the digest of the right result; `cache`
 * is a directory for compiled kernels, or null for the driver's usual one.
 *
 * @throws {Error} If the process fails, or its result differs by more than {@linkcode TOLERANCE}.
 */
async function measure(
  engine: Engine,
  name: string,
  expected: readonly number[],
  cache: string | null,
): Promise<Measured> {
  const [child, config] = ["child.ts", "deno.json"].map((name) =>
    new URL(`./peers/${name}`, import.meta.url)
  );
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    // The peers' packages are large. With a separate configuration, only this bench fetches them.
    args: [
      "run",
      "-A",
      "--quiet",
      "--frozen",
      `--config=${config.pathname}`,
      child.href,
      engine,
      name,
    ],
    signal: AbortSignal.any([stop.signal, AbortSignal.timeout(LONGEST)]),
    env: Object.fromEntries(cache === null ? [] : CACHES.map((name) => [name, cache])),
  }).output();
  const decoder = new TextDecoder();
  const line = decoder.decode(stdout).split("\n").find((line) => line.startsWith("{"));
  if (code !== 0 || !line) {
    throw new Error(`Cannot run ${name} in ${engine}: ${decoder.decode(stderr).trim()}`);
  }
  const measured: Measured = JSON.parse(line);
  const scale = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  // NaN if a number is missing or not finite.
  const error = expected.reduce(
    (most, value, i) => Math.max(most, Math.abs(value - (measured.digest[i] ?? NaN))),
    0,
  ) / scale;
  if (!(error < TOLERANCE)) {
    throw new Error(
      `Cannot compare ${name}: ${measured.title} errs by ${error} of the largest number, ` +
        `at most ${TOLERANCE} is rounding`,
    );
  }
  return measured;
}

/** What {@linkcode compare} found. */
interface Compared {
  readonly row: Row;
  readonly measured: readonly Measured[];
  readonly failures: readonly string[];
}

/** Compares the engines in one case. An engine that fails is left out, and its error returned. */
async function compare(of: Case, rounds: number, warm: boolean): Promise<Compared> {
  const expected = of.expect(draw(of));
  const engines = new Set(of.alone ? ENGINES.slice(0, 1) : ENGINES);
  const all = new Map<Engine, Measured[]>();
  const failures: string[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const engine of engines) {
      const cache = warm ? null : await Deno.makeTempDir();
      try {
        const measured = await measure(engine, of.name, expected, cache);
        all.set(engine, [...all.get(engine) ?? [], measured]);
      } catch (error) {
        failures.push(error instanceof Error ? error.message : String(error));
        engines.delete(engine);
        all.delete(engine);
      } finally {
        if (cache !== null) await Deno.remove(cache, { recursive: true });
      }
    }
  }
  const by = (value: (measured: Measured) => number | null) =>
    Object.fromEntries(ENGINES.map((engine) => {
      const values = (all.get(engine) ?? []).map(value).filter((value) => value !== null);
      return [engine, values.length > 0 ? median(values) : null];
    })) as OfEach;
  const ratio = ({ octograd, ...peers }: OfEach) => {
    const [best] = Object.values(peers).filter((ms) => ms !== null).sort((a, b) => a - b);
    return octograd === null || best === undefined ? null : best / octograd;
  };
  const [ms, many, first] = [
    by(({ waited }) => median(waited)),
    by(({ many }) => many),
    by(({ first }) => first),
  ];
  const row = {
    ...{ case: of.name, ms, ratio: ratio(ms), many, manyRatio: ratio(many) },
    ...{ first, firstRatio: ratio(first) },
    imagesPerSecond: by(({ waited }) =>
      of.images === undefined ? null : 1000 * of.images / median(waited)
    ),
    dispatches: by(({ dispatches }) => dispatches),
    submits: by(({ submits }) => submits),
    hostMicroseconds: by(({ host, dispatches }) => 1000 * host / dispatches),
  };
  return { row, measured: [...all.values()].flat(), failures };
}

/** `3.14/27/200`, and the ratio if there is one; just `3.14` if only octograd has a number. */
function three(values: OfEach, ratio?: number | null): string {
  const text = (value: number | null) =>
    value === null ? "-" : Number.isInteger(value) ? String(value) : digits(value);
  const has = ENGINES.filter((engine) => values[engine] !== null);
  if (has.length === 0) return "";
  const alone = has.length === 1 && has[0] === "octograd";
  const all = (alone ? has : ENGINES).map((engine) => text(values[engine]));
  return all.join("/") + (ratio ? ` ${ratio.toFixed(1)}x` : "");
}

const COLUMNS: readonly Column[] = [
  ["case", 50],
  ["one run, waited for", 21],
  ["many runs, a wait", 21],
  ["first run", 21],
  ["images/s", 16],
  ["dispatches", 12],
  ["host, µs a dispatch", 19],
];

function cells(row: Row): string[] {
  return [
    row.case,
    three(row.ms, row.ratio),
    three(row.many, row.manyRatio),
    three(row.first, row.firstRatio),
    three(row.imagesPerSecond),
    three(row.dispatches),
    three(row.hostMicroseconds),
  ];
}

const ABOUT = {
  usage: "deno task bench:peers [--only TEXT] [--rounds N] [--minutes N] [--output FILE] [--json]",
  about: "Compares octograd with TensorFlow.js and jax-js on this machine's WebGPU device.",
};

const LEGEND =
  "Milliseconds of octograd / tfjs / jax-js, and the best peer's over octograd's; the rest " +
  "likewise. A peer that waits maps a buffer, for which Deno looks every 10 ms.";

async function run(args: readonly string[]): Promise<number> {
  const { json, only, rounds, minutes, warm, output } = parseOnlyFlags(args, FLAGS);
  const cases = CASES.filter(({ name }) => name.includes(only));
  if (cases.length === 0) throw new UsageError(`Cannot find a case with "${only}" in its name`);
  const console = new Console(json);
  const rows: Row[] = [];
  const table: string[] = [];
  const file = userPath(output);
  await Deno.mkdir(dirname(file), { recursive: true });
  const line = (text: string) => {
    table.push(text);
    Deno.writeTextFileSync(file, table.join("\n") + "\n");
    console.say(text);
  };
  const end = performance.now() + 60_000 * (minutes ?? Infinity);
  let failed = 0;
  for (const [i, of] of cases.entries()) {
    if (performance.now() > end) {
      console.note(`no time for ${cases.length - i} of ${cases.length} cases`);
      break;
    }
    const { row, measured, failures } = await compare(of, rounds, warm);
    if (rows.length === 0) {
      const engines = new Set(measured.map(({ title }) => title));
      const date = new Date().toISOString().slice(0, 10);
      const device = measured.at(0)?.device ?? "no device";
      const title = [date, device, `Deno ${Deno.version.deno}`, ...engines].join(", ");
      [title, "", LEGEND, "", tableHead(COLUMNS)].forEach(line);
    }
    rows.push(row);
    line(tableRow(COLUMNS, cells(row)));
    failures.forEach((failure) => console.note(failure));
    failed += failures.length;
  }
  console.say(`table: ${file}`);
  if (json) globalThis.console.log(JSON.stringify(rows, null, 2));
  return failed === 0 ? 0 : 1;
}

if (import.meta.main) {
  const ended = () => {
    stop.abort();
    Deno.exit(143);
  };
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", ended);
  Deno.exit(await runCommand("bench:peers", { ABOUT, FLAGS, run }, Deno.args));
}
