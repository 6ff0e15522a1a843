/**
 * `deno task bench:peers`: octograd beside TensorFlow.js and jax-js on the same device, case by case. Each run of an
 * engine is a process of its own, so that the first call is one, and the engines take turns.
 *
 * @module
 */

import { runCommand } from "../blocklora/command.ts";
import { Console } from "../blocklora/console.ts";
import { number, parseOnlyFlags, text, toggle, UsageError } from "../blocklora/flags.ts";
import { COMMON_FLAGS } from "../blocklora/workspace.ts";
import { CASES } from "./peers/cases.ts";
import type { Measured } from "./peers/child.ts";

const ENGINES = ["octograd", "tfjs", "jaxjs"] as const;
type Engine = typeof ENGINES[number];

/** Errors above this, relative to the largest number, are wrong results and no rounding. */
const TOLERANCE = 1e-3;

/** A line of the table. */
export interface Row {
  /** The case's name. */
  readonly case: string;
  /** Milliseconds of a run and the wait for its result, median. */
  readonly ms: Readonly<Record<Engine, number>>;
  /** The best peer's milliseconds over octograd's. */
  readonly ratio: number;
  /** Milliseconds of a run where up to twenty share a wait, and the same ratio of them. */
  readonly many: Readonly<Record<Engine, number>>;
  /** The ratio of `many`. */
  readonly manyRatio: number;
  /** Milliseconds of the first run in a fresh process, with no kernel compiled before. */
  readonly first: Readonly<Record<Engine, number>>;
  /** The ratio of `first`. */
  readonly firstRatio: number;
}

const FLAGS = {
  json: COMMON_FLAGS.json,
  help: COMMON_FLAGS.help,
  only: text("TEXT", "compare in the cases whose names hold this", ""),
  rounds: number({ from: 1, whole: true }, "take the median of this many turns", 1),
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
async function compare(name: string, rounds: number, warm: boolean): Promise<[Row, Measured[]]> {
  const all: Measured[][] = [];
  for (let round = 0; round < rounds; round++) {
    const turn: Measured[] = [];
    for (const engine of ENGINES) {
      const cache = warm ? null : await Deno.makeTempDir();
      try {
        turn.push(await measure(engine, name, cache));
      } finally {
        if (cache !== null) await Deno.remove(cache, { recursive: true });
      }
    }
    all.push(turn);
  }
  const by = (value: (measured: Measured) => number) => {
    const ms = Object.fromEntries(
      ENGINES.map((engine, i) => [engine, median(all.map((turn) => value(turn[i])))]),
    ) as Record<Engine, number>;
    return [ms, Math.min(ms.tfjs, ms.jaxjs) / ms.octograd] as const;
  };
  const [ms, ratio] = by(({ waited }) => median(waited));
  const [many, manyRatio] = by(({ many }) => many);
  const [first, firstRatio] = by(({ first }) => first);
  return [{ case: name, ms, ratio, many, manyRatio, first, firstRatio }, all[0]];
}

const ABOUT = {
  usage: "deno task bench:peers [--only TEXT] [--rounds N] [--json]",
  about: "Compares octograd with TensorFlow.js and jax-js on this machine's WebGPU device.",
};

async function run(args: readonly string[]): Promise<number> {
  const { json, only, rounds, warm } = parseOnlyFlags(args, FLAGS);
  const cases = CASES.filter(({ name }) => name.includes(only));
  if (cases.length === 0) throw new UsageError(`Cannot find a case with "${only}" in its name`);
  const console = new Console(json);
  const rows: Row[] = [];
  const cells = (texts: readonly string[]) =>
    texts.map((text, i) => i ? text.padStart(24) : text.padEnd(36)).join("");
  for (const [i, { name }] of cases.entries()) {
    const [row, turn] = await compare(name, rounds, warm);
    if (i === 0) {
      console.say(
        `${turn[0].device}, Deno ${Deno.version.deno}, ${
          turn.map(({ title }) => title).join(", ")
        }`,
      );
      console.say("Milliseconds of octograd / tfjs / jax-js, and the best peer's over octograd's.");
      console.say(cells(["", "one run, waited for", "many runs, a wait", "first run"]));
    }
    rows.push(row);
    const three = (ms: Row["ms"], ratio: number) =>
      `${ENGINES.map((engine) => ms[engine].toPrecision(3)).join("/")} ${ratio.toFixed(1)}x`;
    console.say(cells([
      name,
      three(row.ms, row.ratio),
      three(row.many, row.manyRatio),
      three(row.first, row.firstRatio),
    ]));
  }
  if (json) globalThis.console.log(JSON.stringify(rows, null, 2));
  return 0;
}

if (import.meta.main) Deno.exit(await runCommand("bench:peers", { ABOUT, FLAGS, run }, Deno.args));
