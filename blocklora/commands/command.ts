/**
 * Runs commands: prints their help and errors, and determines their exit codes.
 *
 * @module
 */

import { DeviceLostError, NoAdapterError } from "../../tensor/errors.ts";
import { type Console, printError } from "../system/console.ts";
import { type Flags, UsageError } from "../system/flag.ts";
import { helpText } from "../system/flags.ts";
import { InterruptedError } from "../system/interrupts.ts";

/** The most characters of an error that are printed: it may quote a file. */
const LONGEST = 1000;

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
 * the reason in one line on stderr), 2 for a wrong command line, 3 if there is no GPU, and 130, 143
 * or 129 if Ctrl-C, SIGTERM or SIGHUP ended the command. `train` and `sweep` have then saved what
 * was trained so far.
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
    const shown = Deno.env.get("OCTOGRAD_DEBUG") ? error.stack! : inOneLine(error.message);
    for (const line of `octograd ${name}: ${shown}`.split("\n")) printError(line);
    if (error instanceof InterruptedError) return error.exitCode;
    return error instanceof UsageError ? 2 : error instanceof NoAdapterError ? 3 : 1;
  }
}

/** An error's message as it is printed: in one line, without the middle if it is too long. */
export function inOneLine(message: string): string {
  const line = message.replace(/\s*\n\s*/g, " ");
  if (line.length <= LONGEST) return line;
  return `${line.slice(0, LONGEST / 2)} … ${line.slice(-LONGEST / 2)}`;
}

/**
 * Runs `body`. If it loses the GPU device, runs it once more, on the device that there is then:
 * `body` must go on from what it has saved.
 */
export async function onRegainedDevice<T>(console: Console, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (!(error instanceof DeviceLostError)) throw error;
    console.note(`${error.message}: looking for a device again, once`);
    return await body();
  }
}
