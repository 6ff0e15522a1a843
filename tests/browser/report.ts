/**
 * Reads what `deno test` prints, to compare with, and names the slowest tests.
 *
 * @module
 */

import type { Result, TimedResult } from "./deno.ts";

/** How many of the slowest tests are named. */
const SLOWEST = 10;

const RESULTS = { ok: "ok", FAILED: "failed", ignored: "ignored" } as const;

/** What became of the tests of each file, as `deno test` prints it. */
export function resultsOf(text: string): Map<string, Result[]> {
  const files = new Map<string, Result[]>();
  let results: Result[] = [];
  let [printed, steps]: [string[], string[]] = [[], []];
  let printing = false;
  const lines = text
    // deno-lint-ignore no-control-regex
    .replace(/\x1b\[[\d;]*m/g, "")
    // Of tests that take minutes it says so, in the midst of their lines.
    .replace(/'.*' has been running for over \(.*\)\n/g, "")
    .split("\n");
  for (const line of lines) {
    const [, file] = /^running \d+ tests? from \.\/tests\/(.+)$/.exec(line) ?? [];
    if (file) files.set(file, results = []);
    else if (/^-+ (post-test )?output( end)? -+$/.test(line)) printing = !line.includes(" end ");
    else if (printing) printed.push(line);
    else {
      const [, indent, name, word] = /^( *)(.+) \.\.\. (ok|FAILED|ignored)\b/.exec(line) ?? [];
      if (indent) steps.push(name);
      else if (name) {
        results.push({ name, result: RESULTS[word as keyof typeof RESULTS], printed, steps });
        [printed, steps] = [[], []];
      }
    }
  }
  return files;
}

/** The slowest tests of a runner, a line each. */
export function slowest(
  runner: string,
  results: readonly Pick<TimedResult, "name" | "seconds">[],
): string {
  const lines = results.toSorted((a, b) => b.seconds - a.seconds).slice(0, SLOWEST)
    .map(({ name, seconds }) => `  ${seconds.toFixed(1).padStart(6)} s  ${name}`);
  return `The slowest tests in ${runner}:\n${lines.join("\n")}`;
}
