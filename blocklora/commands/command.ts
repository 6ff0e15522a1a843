/**
 * Runs commands: prints their help and errors, and determines their exit codes.
 *
 * @module
 */

import { NoAdapterError } from "../../tensor/errors.ts";
import { printable } from "../system/console.ts";
import { type Flags, UsageError } from "../system/flag.ts";
import { helpText } from "../system/flags.ts";

/** A command. */
export interface Command {
  /** The usage line and the description in the help text. */
  readonly ABOUT: { readonly usage: string; readonly about: string };
  /** The flags in the help text. */
  readonly FLAGS: Flags;
  /** Runs the command, and gives its exit code. */
  readonly run: (args: readonly string[]) => Promise<number>;
}

/**
 * Runs a command or prints its help, and gives the exit code: 0 for success, 1 for a failure (with
 * the reason in one line on stderr), 2 for a wrong command line, 3 if there is no GPU, and 130 if
 * Ctrl-C ended the command, in which case `train` has saved what was trained so far.
 */
export async function runCommand(
  name: string,
  { ABOUT, FLAGS, run }: Command,
  args: readonly string[],
): Promise<number> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(helpText(ABOUT.usage, ABOUT.about, FLAGS));
    return 0;
  }
  try {
    return await run(args);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const oneLine = error.message.replace(/\s*\n\s*/g, " ");
    const shown = Deno.env.get("OCTOGRAD_DEBUG") ? error.stack : oneLine;
    console.error(`octograd ${name}: ${shown}`.split("\n").map(printable).join("\n"));
    return error instanceof UsageError ? 2 : error instanceof NoAdapterError ? 3 : 1;
  }
}
