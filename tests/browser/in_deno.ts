/**
 * Runs a file of tests in Deno, to compare with.
 *
 * @module
 */

import type { Result } from "./deno.ts";

/** What became of the tests of a file of `tests/`, and of the file where it fails beside them. */
export async function runInDeno(file: string): Promise<Result[]> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "tests/run.ts", "--no-check", `tests/${file}`],
    cwd: new URL("../../", import.meta.url),
    env: { NO_COLOR: "1" },
  }).output();
  const [said, complaints] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  const results = parse(said);
  if (!success && results.every(({ result }) => result !== "failed")) {
    const message = `Deno ended with ${
      (said + complaints).trimEnd().split("\n").slice(-20).join("\n")
    }`;
    results.push({ name: `${file} as a whole`, result: "failed", printed: [], steps: [], message });
  }
  return results;
}

const RESULTS = { ok: "ok", FAILED: "failed", ignored: "ignored" } as const;

/** Reads what `deno test` prints. */
function parse(text: string): Result[] {
  const results: Result[] = [];
  let [printed, steps]: [string[], string[]] = [[], []];
  let printing = false;
  // Of tests that take minutes it says so, in the midst of their lines.
  const lines = text.replace(/'.*' has been running for over \(.*\)\n/g, "").split("\n");
  for (const line of lines) {
    if (/^-+ (post-test )?output( end)? -+$/.test(line)) printing = !line.includes(" end ");
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
  return results;
}
