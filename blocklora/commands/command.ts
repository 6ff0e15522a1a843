/**
 * How a command runs: its help, its errors, its exit code.
 *
 * @module
 */

import { NoAdapterError } from "../../tensor/errors.ts";
import { printable } from "../system/console.ts";
import { type Flags, UsageError } from "../system/flag.ts";
import { helpText } from "../system/flags.ts";

/** A command. */
export interface Command {
  /** The usage line and the paragraph of the help. */
  readonly ABOUT: { readonly usage: string; readonly about: string };
  /** The flags of the help. */
  readonly FLAGS: Flags;
  /** Does it, and gives the exit code. */
  readonly run: (args: readonly string[]) => Promise<number>;
}

/**
 * Runs a command, or prints its help, and gives the exit code: 0 done, 1 it cannot be done (the
 * reason is one line on stderr), 2 the command line is wrong, 3 there is no GPU, 130 interrupted,
 * with what was trained so far saved.
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
    console.error(printable(`octograd ${name}: ${shown}`));
    return error instanceof UsageError ? 2 : error instanceof NoAdapterError ? 3 : 1;
  }
}
