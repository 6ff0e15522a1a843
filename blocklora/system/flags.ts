/**
 * Parses command lines, and makes the help text.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { type Flags, UsageError, type Values } from "./flag.ts";

/** A name in the form of the command line: `learningRate` becomes `learning-rate`. */
export const kebab = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/**
 * Parses a command line into the values of flags, and the remaining arguments in `rest`.
 *
 * @throws {UsageError} If a flag is unknown, or its value is missing or wrong.
 */
export function parseFlags<F extends Flags>(
  args: readonly string[],
  flags: F,
): { values: Values<F>; rest: string[] } {
  const names = Object.keys(flags);
  const switched = names.filter((name) => flags[name].placeholder === undefined);
  const switches = switched.map(kebab);
  const valued = names.filter((name) => flags[name].placeholder !== undefined).map(kebab);
  const parsed = parseArgs([...args], {
    boolean: switches,
    string: [...valued, "_"],
    negatable: switches,
    collect: valued,
    default: Object.fromEntries(switches.map((key, i) => [key, flags[switched[i]].preset])),
    unknown(argument, key) {
      if (key === undefined) return true;
      const near = nearest(key, [...switches, ...valued]);
      throw new UsageError(
        `Cannot understand ${argument}: unknown flag, ${
          near ? `did you mean --${near}?` : "see --help"
        }`,
      );
    },
  }) as Record<string, unknown> & { _: string[] };
  const values = Object.fromEntries(names.map((name) => {
    const flag = flags[name];
    const key = kebab(name);
    if (flag.placeholder === undefined) return [name, parsed[key]];
    const last = (parsed[key] as string[]).at(-1);
    if (last === undefined) return [name, flag.preset];
    if (last === "") {
      throw new UsageError(`Cannot use --${key}: it needs a value, ${flag.placeholder}`);
    }
    try {
      return [name, flag.parse(last)];
    } catch (error) {
      if (error instanceof UsageError) {
        throw new UsageError(`Cannot use --${key}: ${error.message}`);
      }
      throw error;
    }
  }));
  return { values: values as Values<F>, rest: parsed._ };
}

/**
 * Parses a command line that must have only flags.
 *
 * @throws {UsageError} As {@linkcode parseFlags}, or if there is any other argument.
 */
export function parseOnlyFlags<F extends Flags>(args: readonly string[], flags: F): Values<F> {
  const { values, rest: [stray] } = parseFlags(args, flags);
  if (stray === undefined) return values;
  throw new UsageError(`Cannot understand "${stray}": it belongs to no flag, see --help`);
}

/**
 * The name that the user probably meant: one that is a prefix of `key` or begins with it, or one at
 * a Levenshtein distance of at most 2.
 */
function nearest(key: string, names: readonly string[]): string | undefined {
  const near = names.find((name) => name.startsWith(key) || key.startsWith(name));
  if (near !== undefined) return near;
  const distances = names.map((name) => distance(key, name));
  const least = Math.min(...distances);
  return least <= 2 ? names[distances.indexOf(least)] : undefined;
}

/** The Levenshtein distance of two strings: how many letters to insert, remove or replace. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = row[j - 1] + Number(a[i - 1] !== b[j - 1]);
      next.push(Math.min(changed, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}

/** The help text of a command: its usage line, what it does, and its flags with their defaults. */
export function helpText(usage: string, about: string, flags: Flags): string {
  const rows = Object.entries(flags).map(([name, { placeholder, help, preset }]) => {
    const written = placeholder === undefined
      ? preset === true ? `--[no-]${kebab(name)}` : `--${kebab(name)}`
      : `--${kebab(name)} ${placeholder}`;
    const shown = typeof preset === "boolean" || !String(preset ?? "") ? "" : ` [${preset}]`;
    return [written, help + shown];
  });
  const wide = Math.min(34, Math.max(...rows.map(([written]) => written.length)));
  const lines = rows.map(([written, help]) =>
    written.length > wide
      ? `  ${written}\n  ${" ".repeat(wide)}  ${help}`
      : `  ${written.padEnd(wide)}  ${help}`
  );
  return `Usage: ${usage}\n\n${about}\n\n${lines.join("\n")}\n`;
}
