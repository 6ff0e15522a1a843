/**
 * Reads what `deno test` prints, to compare with.
 *
 * @module
 */

import type { Result } from "./deno.ts";

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
