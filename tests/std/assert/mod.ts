/**
 * The functions of `@std/assert` that the tests use, with its signatures, on `node:assert/strict`: a stand-in where
 * JSR is out of reach.
 *
 * @module
 */

import nodeAssert from "node:assert/strict";

/** Thrown by every assertion that fails. */
export const AssertionError: typeof nodeAssert.AssertionError = nodeAssert.AssertionError;

// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error = Error> = abstract new (...args: any[]) => E;

/** Asserts that `actual` is truthy. */
export function assert(actual: unknown, msg = ""): asserts actual {
  nodeAssert.ok(actual, msg || "Expected a truthy value");
}

/** Asserts that two values are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  nodeAssert.deepStrictEqual(actual, expected, msg);
}

/** Asserts that two values are not deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  nodeAssert.notDeepStrictEqual(actual, expected, msg);
}

/** Asserts that two numbers differ by at most `tolerance`. */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance?: number,
  msg?: string,
): void {
  if (Object.is(actual, expected)) return;
  const allowed = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  // Written so that NaN fails.
  if (Math.abs(expected - actual) <= allowed) return;
  fail(`${msg ? `${msg}: ` : ""}expected ${expected}, got ${actual}, more than ${allowed} apart`);
}

/** Asserts that `actual` is greater than `expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual > expected)) fail(msg ?? `expected ${actual} > ${expected}`);
}

/** Asserts that `actual` is less than `expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual < expected)) fail(msg ?? `expected ${actual} < ${expected}`);
}

/** Asserts that `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (!actual.includes(expected)) fail(msg ?? `expected "${actual}" to include "${expected}"`);
}

/** Asserts that `actual` matches `expected`. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  if (!expected.test(actual)) fail(msg ?? `expected "${actual}" to match ${expected}`);
}

/** Fails with `msg`. */
export function fail(msg?: string): never {
  throw new AssertionError({ message: msg ?? "Failed assertion" });
}

/** Asserts that `fn` throws, an error of `errorClass` whose message includes `msgIncludes` where these are given. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  errorClass?: ErrorClass<E>,
  msgIncludes?: string,
): E {
  try {
    fn();
  } catch (error) {
    return checked(error, errorClass, msgIncludes);
  }
  fail("Expected the function to throw");
}

/** Asserts that `fn` returns a promise that rejects; otherwise as `assertThrows`. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  errorClass?: ErrorClass<E>,
  msgIncludes?: string,
): Promise<E> {
  try {
    await fn();
  } catch (error) {
    return checked(error, errorClass, msgIncludes);
  }
  fail("Expected the promise to reject");
}

function checked<E extends Error>(error: unknown, type?: ErrorClass<E>, includes = ""): E {
  if (!(error instanceof (type ?? Error))) {
    fail(
      `expected ${type?.name ?? "an Error"}, got ${error instanceof Error ? error.stack : error}`,
    );
  }
  assertStringIncludes(error.message, includes);
  return error as E;
}
