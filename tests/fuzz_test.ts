/** Files that are damaged, or meant to do damage: a thousand mutants of them. */

import { assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";

Deno.test("every mutant of a file is read, or refused with an error of ours", async () => {
  // With little memory, so that a parser that allocates what a file asks for fails.
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-A", "--quiet", "--no-check", "--v8-flags=--max-old-space-size=512"],
      fileURLToPath(new URL("fuzz/run.ts", import.meta.url)),
    ],
    stdout: "piped",
    stderr: "piped",
  });
  const { code, stdout, stderr } = await child.output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals(code, 0, errors.slice(-4000));
  assertMatch(text, /^1000 mutants: .*\b0 not refused/);
  console.log(text.trim());
});
