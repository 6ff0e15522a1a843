/**
 * The command line's flags: declared once, for parsing, checking and the help text.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";

/** A command line that cannot be understood. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** What a flag's value may be. */
type Value = string | number | boolean | readonly number[] | undefined;

/** One flag: its help, and how its text becomes a value. */
export interface Flag<T extends Value> {
  /** What stands for the value in the help; none for a switch. */
  readonly placeholder?: string;
  /** What it does. */
  readonly help: string;
  /** What it is when it is not given. */
  readonly preset: T;
  /** Its value; throws a {@linkcode UsageError} that completes "Cannot use --flag: ". */
  readonly parse: (text: string) => T;
}

/** A command's flags by name. */
export type Flags = Readonly<Record<string, Flag<Value>>>;

/** The values of flags, in camel case names. */
export type Values<F extends Flags> = { readonly [K in keyof F]: F[K]["preset"] };

/** A flag that takes any text. */
export function text<T extends string | undefined = string>(
  placeholder: string,
  help: string,
  preset: T,
): Flag<T | string> {
  return { placeholder, help, preset, parse: (given) => given };
}

/** A flag that takes one of some words. */
export function choice<T extends string>(words: readonly T[], help: string, preset: T): Flag<T> {
  return {
    placeholder: words.join("|"),
    help,
    preset,
    parse(given) {
      if (words.includes(given as T)) return given as T;
      throw new UsageError(`"${given}" is not one of ${words.join(", ")}`);
    },
  };
}

/** A switch. */
export function toggle(help: string, preset = false): Flag<boolean> {
  return { help, preset, parse: (given) => given !== "false" };
}

/** What numbers a flag takes. */
interface Range {
  readonly from?: number;
  readonly to?: number;
  readonly whole?: boolean;
}

/** Whether a number stays one, and 0 alone becomes 0, where kernels take it. */
function isFloat(value: number): boolean {
  const float = Math.fround(value);
  return Number.isFinite(float) && (float !== 0 || value === 0);
}

function numberIn(
  given: string,
  { from = -Infinity, to = Infinity, whole = false }: Range,
): number {
  const value = Number(given);
  const fits = given.trim() !== "" && Number.isFinite(value) && value >= from && value <= to &&
    (!whole || Number.isSafeInteger(value));
  if (fits && (whole || isFloat(value))) return value;
  if (fits) throw new UsageError(`"${given}" is beyond what a float32 holds`);
  const bounds = [from > -Infinity ? `from ${from}` : "", to < Infinity ? `to ${to}` : ""].join(" ")
    .trim();
  throw new UsageError(`"${given}" is not a ${whole ? "whole " : ""}number ${bounds}`.trimEnd());
}

/** A flag that takes a number. */
export function number<T extends number | undefined = number>(
  range: Range,
  help: string,
  preset: T,
): Flag<T | number> {
  return {
    placeholder: range.whole ? "N" : "X",
    help,
    preset,
    parse: (given) => numberIn(given, range),
  };
}

/** A flag that takes a pair of numbers, `A,B`. */
export function pair(
  range: Range,
  help: string,
  preset: readonly number[],
): Flag<readonly number[]> {
  return {
    placeholder: "A,B",
    help,
    preset,
    parse(given) {
      const parts = given.split(",");
      if (parts.length !== 2) {
        throw new UsageError(`"${given}" is not two numbers with a comma between them`);
      }
      return parts.map((part) => numberIn(part, range));
    },
  };
}

const kebab = (name: string) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/**
 * Reads a command line into the flags' values, and what belongs to no flag.
 *
 * @throws {UsageError} If a flag is unknown, lacks its value, or has a wrong one.
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

/** The values of a command line that has flags only. */
export function parseOnlyFlags<F extends Flags>(args: readonly string[], flags: F): Values<F> {
  const { values, rest: [stray] } = parseFlags(args, flags);
  if (stray === undefined) return values;
  throw new UsageError(`Cannot understand "${stray}": it belongs to no flag, see --help`);
}

/** The name that was probably meant: one that begins like it, or is two changes of a letter away at most. */
function nearest(key: string, names: readonly string[]): string | undefined {
  const near = names.find((name) => name.startsWith(key) || key.startsWith(name));
  if (near !== undefined) return near;
  const distances = names.map((name) => distance(key, name));
  const least = Math.min(...distances);
  return least <= 2 ? names[distances.indexOf(least)] : undefined;
}

/** Levenshtein's distance: the letters to insert, remove or change. */
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

/** The help of a command: its usage line, what it does, its flags with their presets. */
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
