/**
 * The tests of kernels, once more in Chromium. Deno drops what a kernel stores outside an array and reads 0 there; Chromium
 * takes the last element instead, so that a missing guard, which is invisible in Deno, is a wrong number there.
 */

import { assertEquals, fail } from "@std/assert";
import { stop } from "esbuild";
import { findChromium, runInChromium } from "./browser/chromium.ts";
import type { Result } from "./browser/deno.ts";
import { runInDeno } from "./browser/in_deno.ts";

/** What does not run in a page, by its reason. */
const EXCLUDED: Readonly<Record<string, readonly string[]>> = {
  "It starts processes": [
    "another process gives the same logits: LoRA, octograd",
    "another process gives the same logits: Block-LoRA, octograd",
    "another process gives the same logits: LoRA, peft",
    "another process gives the same logits: Block-LoRA, peft",
    "cost prints a table and JSON, and refuses what is no model",
    "a sweep that is killed three times ends with the results of one undisturbed",
  ],
  "It asks for garbage collection, and for the memory of the process": [
    "Trainer takes 200 steps in the memory of 50, and the loss falls",
  ],
  "It decodes PNG by WebAssembly from npm, which is not in the bundle": [
    "emoji-clip-tiny agrees with PyTorch, from pictures and words",
  ],
  "SwiftShader binds as much as its largest buffer holds, so that nothing is larger than a binding":
    [
      "a tensor larger than a binding is refused by the kernel that would bind it",
    ],
};

/** What else runs kernels, beside the files that use gpu.ts. */
const MORE = ["lost_device_test.ts", "peers_test.ts"];

/** What uses gpu.ts for models that it writes to files, which a page cannot. */
const LESS = ["merge_test.ts", "open_model_test.ts", "peft_test.ts"];

/** The files of tests that run kernels. */
async function files(): Promise<string[]> {
  const directory = new URL("./", import.meta.url);
  const names = await Array.fromAsync(Deno.readDir(directory), ({ name }) => name);
  const uses = await Promise.all(
    names.map(async (name) =>
      name.endsWith("_test.ts") && !LESS.includes(name) &&
      /from "\.\/gpu\.ts"/.test(await Deno.readTextFile(new URL(name, directory)))
    ),
  );
  return [...names.filter((_, i) => uses[i]), ...MORE].sort();
}

/** What must be the same in Deno and in a page; of what is printed the counts, not the errors. */
function outline({ name, result, steps, printed }: Result): unknown {
  const counted =
    /\d+ (cases|elements|models|outputs|products|rates|steps|tensors|trajectories)\b/g;
  const counts = printed.flatMap((line) => line.match(counted) ?? []);
  return { name, result, steps, counts };
}

const chromium = await findChromium();
const title = "every test of kernels passes in Chromium as it does in Deno";
if (!chromium) {
  Deno.test({ name: `${title} (skipped: Chromium is absent)`, ignore: true, fn() {} });
} else {
  Deno.test(title, async (t) => {
    const excluded = Object.values(EXCLUDED).flat();
    const total = { deno: 0, chromium: 0 };
    for (const file of await files()) {
      await t.step(file, async () => {
        const [inDeno, inChromium] = await Promise.all([
          runInDeno(file),
          runInChromium(chromium, file, excluded),
        ]);
        const failures = [...inChromium, ...inDeno].filter(({ message }) => message !== undefined)
          .map(({ name, message }) => {
            const there = inDeno.find((one) => one.name === name)?.result;
            return `${name} (${there ?? "unknown"} in Deno): ${message}`;
          });
        if (failures.length > 0) fail(failures.join("\n\n"));
        const wanted = inDeno.filter(({ name }) => !excluded.includes(name));
        assertEquals(inChromium.map(outline), wanted.map(outline));
        for (const line of inChromium.flatMap(({ printed }) => printed)) console.log(line);
        total.deno += inDeno.length;
        total.chromium += inChromium.length;
      });
    }
    console.log(
      `Chromium passed ${total.chromium} tests, Deno ${total.deno}: ` +
        `${total.deno - total.chromium} are left out by name`,
    );
    await stop();
  });
}
