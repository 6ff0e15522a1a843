/**
 * The tests of kernels, once more in Chromium. Deno drops what a kernel stores outside an array and
 * reads 0 there; Chromium takes the last element instead, so that a missing guard, which is
 * invisible in Deno, is a wrong number there.
 *
 * @module
 */

import { runInChromium } from "./chromium.ts";
import type { Result, TimedResult } from "./deno.ts";
import { slowest } from "./report.ts";

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
const LESS = [
  "merge_test.ts",
  "open_clip_models_test.ts",
  "open_model_test.ts",
  "peft_test.ts",
];

/** Files that run the same kernels in all variants. They share a page, which compiles each once. */
const PRODUCTS = [
  "autograd_fixtures_test.ts",
  "f16_test.ts",
  "ops_test.ts",
  "products_test.ts",
  "special_test.ts",
];

/** The files of tests that run kernels. */
async function files(): Promise<string[]> {
  const directory = new URL("../", import.meta.url);
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

/** The results of all tests of kernels in Chromium, by file. */
export async function runAllInChromium(chromium: string): Promise<Map<string, TimedResult[]>> {
  const excluded = Object.values(EXCLUDED).flat();
  const all = await files();
  // Two pages at a time: compiling takes most of their time, and only one core.
  const pages = [true, false].map((isProduct) =>
    all.filter((file) => PRODUCTS.includes(file) === isProduct)
  );
  const results = await Promise.all(pages.map((page) => runInChromium(chromium, page, excluded)));
  return new Map(results.flatMap((each) => [...each]));
}

/**
 * How the results of Chromium differ from those of Deno, a line for each difference. Prints what
 * Chromium's tests printed, the slowest, and how many there were.
 */
export function compareResults(
  inChromium: ReadonlyMap<string, readonly TimedResult[]>,
  inDeno: ReadonlyMap<string, readonly Result[]>,
): string[] {
  const excluded = Object.values(EXCLUDED).flat();
  const problems: string[] = [];
  const total = { deno: 0, chromium: 0 };
  for (const [file, results] of inChromium) {
    const known = inDeno.get(file) ?? [];
    const failed = results.filter(({ message }) => message !== undefined);
    for (const { name, message } of failed) {
      const there = known.find((one) => one.name === name)?.result;
      problems.push(`${file}: ${name} (${there ?? "unknown"} in Deno): ${message}`);
    }
    const wanted = known.filter(({ name }) => !excluded.includes(name)).map(outline);
    const made = results.map(outline);
    if (failed.length === 0 && JSON.stringify(made) !== JSON.stringify(wanted)) {
      problems.push(
        `${file} is not the same in Chromium, ${JSON.stringify(made)}, ` +
          `as in Deno, ${JSON.stringify(wanted)}`,
      );
    }
    for (const line of results.flatMap(({ printed }) => printed)) console.log(line);
    total.deno += known.length;
    total.chromium += results.length;
  }
  console.log(slowest("Chromium", [...inChromium.values()].flat()));
  console.log(
    `Chromium passed ${total.chromium} tests, Deno ${total.deno}: ` +
      `${total.deno - total.chromium} are left out by name`,
  );
  return problems;
}
