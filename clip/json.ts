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

/** The largest size that is accepted. No model comes near it, and memory would not hold more. */
const LARGEST = 2 ** 24;
/** The most layers that a tower may have. The largest published CLIP has 48. */
export const MOST_LAYERS = 1024;
/** The largest height and width of images, in pixels. */
export const LARGEST_IMAGE: number = 2 ** 14;

/**
 * Returns a value that must be a positive integer, and `most` at most.
 *
 * @throws {RangeError} If it is not.
 */
export function positive(value: unknown, name: string, file: string, most = LARGEST): number {
  if (Number.isSafeInteger(value) && (value as number) > 0 && (value as number) <= most) {
    return value as number;
  }
  const limit = Number.isSafeInteger(value) && (value as number) > most ? `, at most ${most}` : "";
  throw wrong(file, name, value, `a positive integer${limit}`);
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
