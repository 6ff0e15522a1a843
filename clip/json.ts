/**
 * Checks the values of JSON files as they are read.
 *
 * @module
 */

/** An object of a JSON file. */
export type Json = Readonly<Record<string, unknown>>;

/** The error for a value that is not what was expected. */
export function wrong(file: string, name: string, value: unknown, wanted: string): RangeError {
  const shown = value === undefined ? "missing" : JSON.stringify(value).slice(0, 200);
  return new RangeError(`Cannot read ${file}: ${name} is ${shown}, expected ${wanted}`);
}

/** Whether a value is a JSON object: not an array, and not null. */
export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Returns a value that must be a JSON object.
 *
 * @throws {RangeError} If it is not an object.
 */
export function object(value: unknown, file: string, name: string): Json {
  if (isObject(value)) return value;
  throw new RangeError(`Cannot read ${file}: ${name} is not a JSON object`);
}

/**
 * Returns a value that must be a positive integer.
 *
 * @throws {RangeError} If it is not.
 */
export function positive(value: unknown, name: string, file: string): number {
  if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
  throw wrong(file, name, value, "a positive integer");
}

/**
 * Returns a value that must be three numbers, each of them `least` or more.
 *
 * @throws {RangeError} If it is anything else.
 */
export function triple(
  value: unknown,
  name: string,
  file: string,
  least = -Infinity,
): readonly [number, number, number] {
  const fits = Array.isArray(value) && value.length === 3 &&
    value.every((item) => Number.isFinite(item) && item >= least);
  if (fits) return value as unknown as readonly [number, number, number];
  throw wrong(file, name, value, `three ${least > 0 ? "positive " : ""}numbers`);
}
