/**
 * Where the tests find reference values: in `$FIXTURES`, else in `../shared/fixtures` beside a
 * developer's checkout, else in the small selection that is committed here.
 *
 * @module
 */

import { existsSync } from "node:fs";

const HERE = new URL("./fixtures/", import.meta.url);
const SHARED = new URL("../../shared/", import.meta.url);

function directories(): URL[] {
  const chosen = Deno.env.get("FIXTURES");
  if (chosen) return [new URL(`${chosen.replace(/\/+$/, "")}/`, `file://${Deno.cwd()}/`)];
  return [new URL("fixtures/", SHARED), HERE];
}

/**
 * The directory of one topic of the fixtures (`"clip"`, `"tokenizer"`, …), with a trailing slash;
 * null if it is absent.
 */
export function fixtures(topic: string): URL | null {
  return directories().map((base) => new URL(`${topic}/`, base)).find((url) => existsSync(url)) ??
    null;
}

/** A file or directory below `../shared`; null if it is absent. */
export function shared(path: string): URL | null {
  const url = new URL(path, SHARED);
  return existsSync(url) ? url : null;
}

/** Registers a test that is skipped, and says why. */
export function skip(what: string): void {
  Deno.test({ name: `${what} (skipped: its reference files are absent)`, ignore: true, fn() {} });
}
