/**
 * Values of JSON files, checked as they are read.
 *
 * @module
 */

/** An object of a JSON file. */
export type Json = Readonly<Record<string, unknown>>;

/** What is thrown for a value that is not what was expected. */
export function wrong(file: string, name: string, value: unknown, wanted: string): RangeError {
  const shown = value === undefined ? "missing" : JSON.stringify(value).slice(0, 200);
  return new RangeError(`Cannot read ${file}: ${name} is ${shown}, expected ${wanted}`);
}

/** Whether a value is an object with keys. */
export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * A value that must be an object.
 *
 * @throws {RangeError} If it is none.
 */
export function object(value: unknown, file: string, name: string): Json {
  if (isObject(value)) return value;
  throw new RangeError(`Cannot read ${file}: ${name} is not a JSON object`);
}

/**
 * A value that must be a positive integer.
 *
 * @throws {RangeError} If it is none.
 */
export function positive(value: unknown, name: string, file: string): number {
  if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
  throw wrong(file, name, value, "a positive integer");
}

/**
 * A value that must be three numbers, each `least` or more.
 *
 * @throws {RangeError} If it is another.
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
