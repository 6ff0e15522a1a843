/**
 * `deno task test [FILE...]`: Deno's test runner. If there is Chromium and no file is named, the
 * tests of kernels run in its pages too, and must give the same results.
 *
 * Whether Deno's tests passed is read from the runner's report, not from how its process ended.
 * With Mesa 22.3 on glibc 2.36, about one in a hundred processes of `deno test` that used WebGPU
 * aborts while it exits, after all tests have been reported: a thread of Deno's frees its memory
 * while the driver's libraries are unloaded. A test of five lines is enough to see it. It says
 * nothing about the tests.
 *
 * @module
 */

import { findChromium } from "./browser/chromium.ts";
import { resultsOf, slowest } from "./browser/report.ts";
import { compareResults, runAllInChromium } from "./browser/suite.ts";

/** Runs Deno's tests, and gives what they printed and whether all passed. */
async function runDeno(args: readonly string[]): Promise<{ printed: string; passed: boolean }> {
  const report = await Deno.makeTempFile({ prefix: "octograd-", suffix: ".xml" });
  try {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--frozen", "--doc", `--junit-path=${report}`, ...args],
      stdin: "inherit",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const decoder = new TextDecoder();
    let printed = "";
    for await (const chunk of child.stdout) {
      printed += decoder.decode(chunk, { stream: true });
      await writeAll(chunk);
    }
    const { code, signal } = await child.status;
    const xml = await Deno.readTextFile(report);
    // The report is written after the last test; until then the file is empty.
    const ended = /<testsuites [^>]*>/.exec(xml)?.[0] ?? "";
    if (args.length === 0 && ended) console.error(slowest("Deno", testsOf(xml)));
    if (signal) {
      console.error(
        `deno test was ended by ${signal}, ${ended ? "after" : "before"} its last test`,
      );
    }
    if (signal !== "SIGABRT" && signal !== "SIGSEGV") return { printed, passed: code === 0 };
    return { printed, passed: / failures="0"/.test(ended) && / errors="0"/.test(ended) };
  } finally {
    await Deno.remove(report);
  }
}

async function writeAll(bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
}

/** The tests of a JUnit report, and how long each took. */
function testsOf(xml: string): { readonly name: string; readonly seconds: number }[] {
  return [...xml.matchAll(/<testcase name="([^"]*)"[^>]* time="([\d.]+)"/g)]
    .map(([, name, seconds]) => ({ name, seconds: Number(seconds) }));
}

const all = Deno.args.length === 0;
const chromium = all ? await findChromium() : null;
if (all && !chromium) {
  console.error("Chromium is absent: the tests of kernels run in Deno alone");
}
const [deno, page] = await Promise.all([
  runDeno(Deno.args),
  chromium ? runAllInChromium(chromium) : null,
]);
const problems = page ? compareResults(page, resultsOf(deno.printed)) : [];
for (const problem of problems) console.error(`\nIn Chromium: ${problem}`);
Deno.exitCode = deno.passed && problems.length === 0 ? 0 : 1;
