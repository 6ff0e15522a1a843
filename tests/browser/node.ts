/**
 * In a page: the functions of Node's modules that the tests and `tests/std/assert` use. It stands
 * in for all modules that a browser cannot have; what is not here is undefined.
 *
 * @module
 */

export { exists as existsSync } from "./deno.ts";

/** The path of a `file:` URL. */
export function fileURLToPath(url: URL | string): string {
  return decodeURIComponent(new URL(url).pathname);
}

/** Parts joined to a path. */
export function join(...parts: string[]): string {
  return parts.join("/").replace(/\/+/g, "/");
}

/** An absolute path as it is, without a slash at its end. */
export function resolve(path: string): string {
  return path.replace(/(?<=.)\/$/, "");
}

/** The last name of a path. */
export function basename(path: string): string {
  return path.split("/").at(-1)!;
}

/** Thrown where an assertion fails. */
class AssertionError extends Error {
  override name = "AssertionError";

  constructor({ message }: { message: string }) {
    super(message);
  }
}

function check(holds: boolean, what: string, message?: string): void {
  if (!holds) throw new AssertionError({ message: `${message ? `${message}: ` : ""}${what}` });
}

/** `node:assert/strict`. */
export default {
  AssertionError,
  ok: (value: unknown, message: string) => check(Boolean(value), "it does not hold", message),
  deepStrictEqual(actual: unknown, expected: unknown, message?: string) {
    const found = difference(actual, expected);
    check(found === null, found!, message);
  },
  notDeepStrictEqual: (actual: unknown, expected: unknown, message?: string) =>
    check(difference(actual, expected) !== null, `it is ${show(actual)}`, message),
};

/**
 * Where two values first differ, in type or content, and how; null if they do not. -0 is not 0, and
 * NaN is NaN.
 */
function difference(a: unknown, b: unknown, at = ""): string | null {
  if (Object.is(a, b)) return null;
  const here = `${at && `${at}: `}${show(a)} is not ${show(b)}`;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return here;
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return here;
  if (a instanceof Set && b instanceof Set) {
    const candidates = [...b];
    const all = [...a].every((one) => candidates.some((other) => difference(one, other) === null));
    return all && a.size === b.size ? null : here;
  }
  if (a instanceof Map && b instanceof Map) {
    return difference(Object.fromEntries(a), Object.fromEntries(b), at);
  }
  const [keys, keysOfB] = [Object.keys(a), Object.keys(b)] as (keyof typeof a)[][];
  if (keys.length !== keysOfB.length) return here;
  for (const key of keys) {
    if (!Object.hasOwn(b, key)) return here;
    const found = difference(a[key], b[key], `${at}[${key}]`);
    if (found !== null) return found;
  }
  return null;
}

function show(value: unknown): string {
  if (Object.is(value, -0)) return "-0";
  if (typeof value !== "object" || value === null) return String(value);
  const text = ArrayBuffer.isView(value) ? `[${value}]` : JSON.stringify(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
