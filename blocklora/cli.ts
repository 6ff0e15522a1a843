/**
 * The command line: `deno task train`, `evaluate`, `classify` and `merge`.
 *
 * Exit codes: 0 done, 1 it cannot be done (the reason is one line on stderr), 2 the command line is wrong, 3 there is no
 * GPU, 130 interrupted, with what was trained so far saved.
 *
 * @module
 */

import { NoAdapterError, shutDown } from "../tensor/device.ts";
import * as classify from "./classify.ts";
import * as cost from "./cost.ts";
import * as evaluate from "./evaluate.ts";
import { type Flags, helpText, UsageError } from "./flags.ts";
import * as merge from "./merge.ts";
import * as report from "./report.ts";
import * as sweep from "./sweep.ts";
import * as train from "./train.ts";

interface Command {
  readonly ABOUT: { readonly usage: string; readonly about: string };
  readonly FLAGS: Flags;
}

const COMMANDS: Record<string, Command & { run: (args: readonly string[]) => Promise<number> }> = {
  train: { ...train, run: train.train },
  evaluate: { ...evaluate, run: evaluate.evaluate },
  classify: { ...classify, run: classify.classify },
  merge: { ...merge, run: merge.merge },
  sweep: { ...sweep, run: sweep.sweep },
  report: { ...report, run: report.report },
  cost: { ...cost, run: cost.cost },
};

/** Runs a command line and returns its exit code. */
export async function main([name, ...args]: readonly string[]): Promise<number> {
  const command = Object.hasOwn(COMMANDS, name ?? "") ? COMMANDS[name] : undefined;
  if (!command) {
    const usage = `Usage: octograd ${Object.keys(COMMANDS).join("|")} [flags]`;
    const asked = name === "--help" || name === "-h";
    (asked ? console.log : console.error)(`${usage}, --help tells more of each`);
    return asked ? 0 : 2;
  }
  if (args.includes("--help") || args.includes("-h")) {
    const { usage, about } = command.ABOUT;
    console.log(helpText(usage, about, command.FLAGS));
    return 0;
  }
  try {
    return await command.run(args);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const oneLine = error.message.replace(/\s*\n\s*/g, " ");
    console.error(`octograd ${name}: ${Deno.env.get("OCTOGRAD_DEBUG") ? error.stack : oneLine}`);
    return error instanceof UsageError ? 2 : error instanceof NoAdapterError ? 3 : 1;
  }
}

if (import.meta.main) {
  const code = await main(Deno.args);
  shutDown();
  Deno.exit(code);
}
