/**
 * `deno task bench:gpu`: measures a GPU within ten minutes. Each section is a separate process with
 * a time limit. What it prints is saved when it ends, and is printed once more at the very end.
 *
 * @module
 */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runCommand } from "../blocklora/commands/command.ts";
import { reasonOf } from "../blocklora/system/files.ts";
import { number, text, UsageError } from "../blocklora/system/flag.ts";
import { parseOnlyFlags } from "../blocklora/system/flags.ts";
import { COMMON_FLAGS } from "../blocklora/commands/common_flags.ts";
import { userPath } from "../blocklora/system/user_path.ts";

/** A section of the bench: one program. */
interface Section {
  readonly name: string;
  /** The share that it gets of the time that is left when it starts. */
  readonly share: number;
  /** The program and its arguments, for so many minutes and a directory to save to. */
  command(minutes: string, directory: string): readonly string[];
}

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const deno = (...args: string[]) => [Deno.execPath(), "run", "-A", "--quiet", ...args];

const SECTIONS: readonly Section[] = [
  { name: "kernels", share: 0.2, command: () => deno(path("gpu/kernels.ts")) },
  {
    name: "steps",
    share: 0.45,
    command: (minutes) => deno(path("gpu/steps.ts"), "--minutes", minutes),
  },
  {
    name: "pytorch",
    share: 0.3,
    command: (minutes) => ["python3", path("gpu/pytorch_step.py"), "--minutes", minutes],
  },
  {
    name: "peers",
    share: 0.95,
    command: (minutes, directory) =>
      deno(path("peers.ts"), "--minutes", minutes, "--output", join(directory, "peers.md")),
  },
];

/** Milliseconds that a section may take beyond its minutes, to end what it has begun. */
const GRACE = 15_000;

/**
 * Runs a program until it ends or reaches its limit in milliseconds. Returns what it printed, and
 * why it failed, if it did.
 */
async function runSection(
  [program, ...args]: readonly string[],
  limit: number,
): Promise<{ printed: string; failure: string | null }> {
  const end = AbortSignal.timeout(limit);
  const started = new Deno.Command(program, {
    args,
    stdout: "piped",
    stderr: "inherit",
    signal: end,
  }).spawn();
  const decoder = new TextDecoder();
  let printed = "";
  for await (const bytes of started.stdout) {
    Deno.stderr.writeSync(bytes);
    printed += decoder.decode(bytes, { stream: true });
  }
  const { code } = await started.status;
  const seconds = Math.round(limit / 1000);
  return {
    printed,
    failure: end.aborted ? `stopped after ${seconds} s` : code === 0 ? null : `exit code ${code}`,
  };
}

/** The text with its tables narrowed: without the spaces that align them. */
const narrow = (text: string): string =>
  text.replaceAll(/^\|.*$/gm, (row) => row.replaceAll(/ {2,}/g, " ").replaceAll(/-{4,}/g, "---"));

const ABOUT = {
  usage: "deno task bench:gpu [--minutes N] [--only TEXT] [--output DIR]",
  about:
    `Measures each kernel beside its floors, training steps at CLIP's sizes, PyTorch's where it is
installed, and the peers, one after the other. What they print goes to stderr as it comes, and to
stdout at the end, in narrow tables.`,
};

const FLAGS = {
  minutes: number({ from: 2 }, "how long it may take in all", 10),
  only: text("TEXT", `one of ${SECTIONS.map(({ name }) => name).join(", ")}`, ""),
  output: text("DIR", "where each section's tables are saved", "dist/bench"),
  help: COMMON_FLAGS.help,
};

async function run(args: readonly string[]): Promise<number> {
  const { minutes, only, output } = parseOnlyFlags(args, FLAGS);
  const sections = SECTIONS.filter(({ name }) => name.includes(only));
  if (sections.length === 0) throw new UsageError(`Cannot find a section "${only}"`);
  const directory = userPath(output);
  await Deno.mkdir(directory, { recursive: true });
  const end = performance.now() + 60_000 * minutes;
  const all: string[] = [];
  let failed = 0;
  for (const { name, share, command } of sections) {
    const left = (only === "" ? share : 0.95) * (end - performance.now());
    const given = Math.max(6000, left - GRACE);
    console.error(`\n== ${name}, ${Math.round(given / 1000)} s`);
    let text = `== ${name}\n\n`;
    try {
      const { printed, failure } = await runSection(
        command((given / 60_000).toFixed(2), directory),
        given + GRACE,
      );
      text += printed;
      if (failure) text += `\n${name}: ${failure}\n`;
      failed += failure ? 1 : 0;
    } catch (error) {
      const isAbsent = error instanceof Deno.errors.NotFound; // there may be no python3
      text += isAbsent ? "no comparison: its program is not here\n" : `${reasonOf(error)}\n`;
      failed += isAbsent ? 0 : 1;
    }
    await Deno.writeTextFile(join(directory, `${name}.txt`), text);
    all.push(text);
  }
  for (const text of all) console.log(narrow(text));
  return failed === 0 ? 0 : 1;
}

if (import.meta.main) Deno.exit(await runCommand("bench:gpu", { ABOUT, FLAGS, run }, Deno.args));
