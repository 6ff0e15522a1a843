/**
 * Command-line flags. A flag is declared once, for parsing, checking and the help text.
 *
 * @module
 */

/** A command line that cannot be understood. */
export class UsageError extends Error {
  /** `"UsageError"`. */
  override name = "UsageError";
}

/** The possible types of a flag's value. */
export type FlagValue = string | number | boolean | readonly number[] | undefined;

/** One flag: its help text, its default and its parser. */
export interface Flag<T extends FlagValue> {
  /** The name of the value in the help text; undefined for a switch. */
  readonly placeholder?: string;
  /** What the flag does, for the help text. */
  readonly help: string;
  /** The value if the flag is not given. */
  readonly preset: T;
  /**
   * Parses the value. Throws a {@linkcode UsageError}, whose message is shown after
   * `Cannot use --flag: `.
   */
  readonly parse: (text: string) => T;
}

/** A command's flags by name. */
export type Flags = Readonly<Record<string, Flag<FlagValue>>>;

/** The values of flags, by their camel-case names. */
export type Values<F extends Flags> = { readonly [K in keyof F]: F[K]["preset"] };

/** A flag whose value is any text. */
export function text<T extends string | undefined = string>(
  placeholder: string,
  help: string,
  preset: T,
): Flag<T | string> {
  return { placeholder, help, preset, parse: (given) => given };
}

/** A flag whose value is one of several words. */
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

/** A flag without a value, which is on or off. */
export function toggle(help: string, preset = false): Flag<boolean> {
  return { help, preset, parse: (given) => given !== "false" };
}

/** The values of flags whose names are known only to a method. */
export type FlagValues = Readonly<Record<string, FlagValue>>;

/** The numbers that a flag accepts. */
interface Range {
  readonly from?: number;
  readonly to?: number;
  readonly integer?: boolean;
}

/**
 * Whether kernels can use a number: as a float32 it must be finite, and it must not underflow to 0.
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

/** A flag whose value is a number. */
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

/** A flag whose value is a pair of numbers, `A,B`. */
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
