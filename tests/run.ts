/**
 * `deno task test`: Deno's own test runner, by its report and not by how its process ends.
 *
 * With Mesa 22.3 on glibc 2.36 a process of `deno test` that has used WebGPU aborts now and then while it exits, about once in
 * a hundred times and after the last word of the runner: a thread of Deno's frees what it has while the driver's libraries are
 * unloaded. Five lines of test are enough for it. It says nothing of the tests.
 *
 * @module
 */

const report = await Deno.makeTempFile({ prefix: "octograd-", suffix: ".xml" });
try {
  const { code, signal } = await new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--doc", `--junit-path=${report}`, ...Deno.args],
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  }).spawn().status;
  const isAbort = signal === "SIGABRT" || signal === "SIGSEGV";
  // The report is written after the last test; until then the file is empty.
  const ended = isAbort
    ? /<testsuites [^>]*>/.exec(await Deno.readTextFile(report))?.[0]
    : undefined;
  const passed = ended !== undefined && / failures="0"/.test(ended) && / errors="0"/.test(ended);
  if (passed) console.error(`deno test ended with ${signal} after all tests had passed`);
  Deno.exitCode = passed ? 0 : code;
} finally {
  await Deno.remove(report);
}
