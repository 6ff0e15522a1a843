/**
 * What a flag is: declared once, for parsing, checking and the help text.
 *
 * @module
 */

/** A command line that cannot be understood. */
export class UsageError extends Error {
  /** `"UsageError"`. */
  override name = "UsageError";
}

/** What type a flag's value may have. */
export type FlagValue = string | number | boolean | readonly number[] | undefined;

/** One flag: its help, and how its text becomes a value. */
export interface Flag<T extends FlagValue> {
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
export type Flags = Readonly<Record<string, Flag<FlagValue>>>;

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
export function oneOf<T extends string>(words: readonly T[], help: string, preset: T): Flag<T> {
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

/** The values of flags whose names only a method knows. */
export type FlagValues = Readonly<Record<string, FlagValue>>;

/** What numbers a flag takes. */
interface Range {
  readonly from?: number;
  readonly to?: number;
  readonly integer?: boolean;
}

/**
 * Whether kernels can take a number: as a float32 it is finite, and not 0 unless it is 0 itself.
 */
function isFloat(value: number): boolean {
  const float = Math.fround(value);
  return Number.isFinite(float) && (float !== 0 || value === 0);
}

function numberIn(
  given: string,
  { from = -Infinity, to = Infinity, integer = false }: Range,
): number {
  const value = Number(given);
  const fits = given.trim() !== "" && Number.isFinite(value) && value >= from && value <= to &&
    (!integer || Number.isSafeInteger(value));
  if (fits && (integer || isFloat(value))) return value;
  if (fits) throw new UsageError(`"${given}" is beyond what a float32 holds`);
  const bounds = [from > -Infinity ? `from ${from}` : "", to < Infinity ? `to ${to}` : ""].join(" ")
    .trim();
  throw new UsageError(
    `"${given}" is not ${integer ? "an integer" : "a number"} ${bounds}`.trimEnd(),
  );
}

/** A flag that takes a number. */
export function number<T extends number | undefined = number>(
  range: Range,
  help: string,
  preset: T,
): Flag<T | number> {
  return {
    placeholder: range.integer ? "N" : "X",
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
      const values = given.split(",");
      if (values.length !== 2) {
        throw new UsageError(`"${given}" is not two numbers with a comma between them`);
      }
      return values.map((value) => numberIn(value, range));
    },
  };
}
