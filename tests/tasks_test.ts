/**
 * The tasks of deno.json: each command works with the permissions of its task, and has no more.
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import manifest from "../deno.json" with { type: "json" };
import { EMBEDDED_DATA } from "../blocklora/data/open_data.ts";
import { filesIn, octograd, type Outcome, withDirectory } from "./cli.ts";

/** The tasks that users run. Those of developers start processes and may do everything. */
const COMMANDS = [
  ...["train", "evaluate", "classify", "merge", "sweep", "report", "cost", "savings"],
] as const;

/** The flags for Deno, by the name of the task. */
const FLAGS = Object.fromEntries(
  COMMANDS.map((name) => [
    name,
    manifest.tasks[name].command.split(" ").filter((word) => word.startsWith("-")),
  ]),
);

Deno.test("each command's task is frozen, asks for nothing, and has permissions by name", () => {
  for (const [name, flags] of Object.entries(FLAGS)) {
    for (const wanted of ["--frozen", "--no-prompt"]) assert(flags.includes(wanted), name);
    const allowed = flags.filter((flag) => /^(-A|--allow|-[A-Z])/.test(flag));
    for (const flag of allowed) {
      assert(/^--allow-(read|write|(env|net)=.+)$/.test(flag), `${name} has ${flag}`);
    }
  }
  for (const name of ["cost", "savings"]) assert(!FLAGS[name].includes("--allow-write"), name);
  for (const name of ["report", "savings"]) {
    assert(!FLAGS[name].some((flag) => flag.startsWith("--allow-net")), name);
  }
});

async function passes(outcome: Promise<Outcome>): Promise<string> {
  const { code, stdout, stderr } = await outcome;
  assertEquals(code, 0, stderr);
  return stdout;
}

Deno.test("each command does its work with its task's permissions", async () => {
  await withDirectory(async (directory) => {
    const run = (...args: string[]) => passes(octograd(args, { from: directory }));
    const adapter = ["--adapter", "out/a"];
    await run("train", "--iterations", "2", "--output", "out/a");
    assert(filesIn(join(directory, "out/a")).includes("report.html"));
    assertEquals(JSON.parse(await run("evaluate", ...adapter, "--json")).images, 500);
    const [image] = filesIn(fileURLToPath(new URL("test/bag/", EMBEDDED_DATA)));
    const picture = fileURLToPath(new URL(`test/bag/${image}`, EMBEDDED_DATA));
    const { predictions } = JSON.parse(await run("classify", picture, ...adapter, "--json"));
    assertEquals(predictions.length, 1);
    await run("merge", ...adapter, "--output", "out/merged");
    assert(filesIn(join(directory, "out/merged")).includes("model.safetensors"));
    await run("report", "--runs", "out", "--output", "page.html");
    assertStringIncludes(await Deno.readTextFile(join(directory, "page.html")), "<svg");
    assert(JSON.parse(await run("cost", "--model", "vit-b-32", "--classes", "5", "--json")));
    await run("savings", "--model", "vit-b-32", "--classes", "5", "--batch", "2", "--no-time");
    // Only errors read OCTOGRAD_DEBUG, to decide whether to print their stack.
    const refused = await octograd(["savings", "--model", "none"], { env: { OCTOGRAD_DEBUG: "" } });
    assertEquals(refused.code, 2, refused.stderr);
  });
});

Deno.test("a mirror that a task may not reach is refused with advice, and no prompt", async () => {
  await withDirectory(async (directory) => {
    const env = { HF_ENDPOINT: "https://mirror.example", HF_HOME: directory };
    const { code, stderr } = await octograd(["evaluate", "--model", "someone/name"], { env });
    assertEquals(code, 1);
    assertStringIncludes(stderr, 'net access to "mirror.example:443"');
    assertStringIncludes(stderr, "README.md");
  });
});
