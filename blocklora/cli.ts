/**
 * The entry point of the command line: `deno task train` and all other commands.
 *
 * @module
 */

import { shutDown } from "../tensor/device.ts";
import * as classify from "./commands/classify.ts";
import { type Command, runCommand } from "./commands/command.ts";
import * as cost from "./commands/cost.ts";
import * as evaluate from "./commands/evaluate.ts";
import * as merge from "./commands/merge.ts";
import * as report from "./commands/report.ts";
import * as sweep from "./commands/sweep.ts";
import * as train from "./commands/train.ts";

const COMMANDS: Record<string, Command> = {
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
  return await runCommand(name, command, args);
}

if (import.meta.main) {
  const code = await main(Deno.args);
  shutDown();
  Deno.exit(code);
}
