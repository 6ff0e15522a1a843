/**
 * The report has the right numbers, and its page needs no other file.
 */

import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertLess,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { METHODS } from "../blocklora/methods/lookup.ts";
import { accuracies } from "../blocklora/report/accuracies.ts";
import { contestsOf, difference, spread, summarize } from "../blocklora/report/contests.ts";
import { pageOf } from "../blocklora/report/page.ts";
import { readRuns } from "../blocklora/report/runs.ts";
import { SvgDocument } from "../blocklora/report/svg_document.ts";
import type { RunResult } from "../blocklora/training/result.ts";
import { findChromium, openPage } from "./browser/chromium.ts";
import { NASTY, runOf } from "./results.ts";
import { octograd, withDirectory } from "./cli.ts";

const IMAGES = fileURLToPath(new URL("../blocklora/fashion_mnist/", import.meta.url));

const UNTRAINED = { rank: null, blocks: null, losses: [], peakBytesByOwner: null } as const;

/** Two methods, two numbers of shots, three seeds, and zero-shot. */
const RUNS: RunResult[] = [
  runOf({ ...UNTRAINED, method: "zero-shot", shots: 0, seed: null, accuracy: 25 }),
  ...[1, 4].flatMap((shots) =>
    [1, 2, 3].flatMap((seed) => [
      runOf({ shots, seed, accuracy: 10 * shots + seed }),
      runOf({
        shots,
        seed,
        method: "block-lora",
        rank: 8,
        blocks: 4,
        trainableParameters: 60,
        accuracy: 10 * shots + 3 * seed,
      }),
    ])
  ),
];

Deno.test("summarize() gives mean and standard deviation of the sample", () => {
  assertEquals(summarize([5]), { mean: 5, deviation: null, count: 1 });
  const { mean, deviation, count } = summarize([2, 4, 4, 4, 5, 5, 7, 9]);
  assertEquals([mean, count], [5, 8]);
  assertAlmostEquals(deviation!, Math.sqrt(32 / 7), 1e-12);
  assertEquals(spread({ mean: 62.25, deviation: 0.75, count: 3 }), "62.3 ± 0.8");
  assertEquals(spread({ mean: -1, deviation: 2, count: 3 }, true), "−1.0 ± 2.0");
  assertEquals(spread({ mean: 1, deviation: null, count: 1 }, true), "+1.0");
});

Deno.test("contestsOf() sorts runs, and difference() pairs them by seed", () => {
  const [contest, ...rest] = contestsOf(RUNS.toReversed());
  assertEquals(rest, []);
  assertEquals(contest.shots, [1, 4]);
  assertEquals(contest.rows.map(({ label }) => label), [
    "zero-shot",
    "LoRA r = 2",
    "Block-LoRA (8, 4)",
  ]);
  const [, lora, block] = contest.rows;
  assertEquals(lora.cells.map(({ shots }) => shots), [1, 4]);
  assertEquals(lora.cells[1].runs.map(({ seed }) => seed), [1, 2, 3]);
  assertEquals(lora.cells[1].accuracy, { mean: 42, deviation: 1, count: 3 });
  // By seed it is 2, 4 and 6 points ahead.
  assertEquals(difference(block, lora, 4), { mean: 4, deviation: 2, count: 3 });
  assertEquals(difference(block, lora, 16), null);

  const { header, rows } = accuracies(contest, (text) => `*${text}*`);
  assertEquals(header, ["method", "1 shot", "4 shots", "trained parameters", "seeds"]);
  assertEquals(rows.map(({ cells }) => cells), [
    ["*25.0*", "25.0", "100", ""],
    ["12.0 ± 1.0", "42.0 ± 1.0", "100", "3"],
    ["16.0 ± 3.0", "*46.0 ± 3.0*", "60", "3"],
  ]);
});

Deno.test("contestsOf() separates runs on other images or with another model", () => {
  const identity = { model: "m", train: "t", test: "i" };
  const titles = (...runs: Partial<RunResult>[]) =>
    contestsOf(runs.map((run, i) => runOf({ identity, seed: i, ...run })))
      .map(({ title, rows }) => [title, rows[0].cells[0].runs.length]);
  assertEquals(titles({}, { identity: { ...identity, train: "other" } }), [["two things", 2]]);
  assertEquals(titles({}, {}, { identity: { ...identity, test: "other" } }), [
    ["two things (1)", 2],
    ["two things (2)", 1],
  ]);
  assertEquals(titles({}, { model: "b", identity: { ...identity, model: "other" } }), [
    ["two things, a model", 1],
    ["two things, b", 1],
  ]);
  assertEquals(titles({ identity: undefined }, { identity: undefined, model: "b" }).length, 2);
  assertEquals(titles({ data: "one" }, { data: "other" }), [["one", 1], ["other", 1]]);
});

for (const { name } of METHODS) {
  Deno.test(`the page of a run of ${name} has its losses and its memory`, async () => {
    const page = await pageOf([runOf({ method: name, rank: 8, blocks: 2 })], new Map());
    for (const title of ["Training loss", "Peak GPU memory"]) assertStringIncludes(page, title);
  });
}

Deno.test("the page has all that it should, and loads nothing", async () => {
  const path = (await Array.fromAsync(Deno.readDir(join(IMAGES, "test", "bag"))))[0].name;
  const images = Array.from({ length: 4 }, () => `test/bag/${path}`);
  const runs = RUNS.map((run) => ({ ...run, images }));
  const page = await pageOf(runs, new Map([["two things", IMAGES]]));
  const titles = ["Accuracy against shots", "Accuracy against trained parameters", "Training loss"]
    .concat("Peak GPU memory", "Confusion matrix", "Test images", "Configuration", "learning rate");
  for (const title of titles) assertStringIncludes(page, title);
  assertEquals(page.match(/<svg/g)?.length, 5);
  assertEquals(page.match(/src="data:image\/png;base64,/g)?.length, 4);
  assertStringIncludes(page, "✗ plain");
  assertStringIncludes(page, "46.0 ± 3.0");
  // Names are text, not markup, in attributes too.
  assert(!page.includes("<b>&"));
  assertStringIncludes(page, 'alt="&lt;b&gt;&amp;&quot;"');
  assert(!/ style=/.test(page), "the page's policy forbids style attributes");
  // The page loads and runs nothing: its only addresses are the names of SVG's vocabularies.
  const addresses = [...page.matchAll(/https?:\/\/[^"\s<]+/g)].map(([address]) => address);
  assertEquals(addresses.filter((address) => !address.startsWith("http://www.w3.org/")), []);
  assert(!/<script|<link rel="stylesheet"/.test(page));
  assertMatch(page, /^<!doctype html>\n<html lang="en">/);
  assertLess(page.length, 1e6);

  const without = await pageOf(runs, new Map());
  assertStringIncludes(without, "name the directory of two things with --data");
});

Deno.test("the page of one run has no empty plots", async () => {
  const page = await pageOf([runOf({})], new Map());
  assertStringIncludes(page, "<h1>LoRA r = 2 on two things</h1>");
  assertStringIncludes(page, "50.0 % of 4 test images right, 25.0 % before training");
  assert(!page.includes("Accuracy against"));
  assertEquals(page.match(/<svg/g)?.length, 3);
});

Deno.test("a report covers all runs below a directory, and nothing else", async () => {
  await withDirectory(async (directory) => {
    const write = async (name: string, content: string) => {
      await Deno.mkdir(join(directory, name), { recursive: true });
      await Deno.writeTextFile(join(directory, name, "result.json"), content);
    };
    const nothing = await octograd(["report", "--runs", directory]);
    assertEquals(nothing.code, 1);
    assertStringIncludes(nothing.stderr, "there is no finished run in");

    await write("a/b", JSON.stringify(RUNS[1]));
    await write("c", JSON.stringify(RUNS[2]));
    await write(".c.1234", "half a ru");
    assertEquals((await readRuns([directory])).length, 2);
    const made = await octograd(["report", "--runs", directory, "--markdown"]);
    assertEquals(made.code, 0, made.stderr);
    assertStringIncludes(made.stdout, "| Block-LoRA (8, 4) | **13.0** | 60 | 1 |");
    assertStringIncludes(await Deno.readTextFile(join(directory, "report.html")), "2 runs");

    // A mean over these would count one seed twice.
    await write("again", JSON.stringify({ ...RUNS[1], accuracy: 90 }));
    await assertRejects(
      () => readRuns([directory]),
      Error,
      "are of the same method, shots and seed",
    );
    await Deno.remove(join(directory, "again"), { recursive: true });

    const broken: Record<string, string> = {
      [JSON.stringify({ format: 2 })]: "it is not the result of a run of this version, remove it",
      [JSON.stringify({ ...RUNS[1], method: "none" })]:
        'Cannot find method "none": there are block',
      '{"format": 1, ': "it is not JSON",
    };
    for (const [content, reason] of Object.entries(broken)) {
      await write("d", content);
      const error = await assertRejects(() => readRuns([directory]), Error, reason);
      assertStringIncludes(error.message, join(directory, "d", "result.json"));
      assertMatch(error.message, /(remove it, or run that again|leave it out or mend it)$/);
    }
    await assertRejects(() => readRuns([join(directory, "none")]), Error, "no such directory");
  });
});

Deno.test("a result whose fields are not what they must be is refused by the field's name", () =>
  withDirectory(async (directory) => {
    const path = join(directory, "result.json");
    const refused: [Record<string, unknown>, string][] = [
      [{ format: "1" }, "it is not the result of a run of this version"],
      [{ classes: "abc" }, 'its classes is "abc", it must be a list'],
      [{ classes: ["a", 3] }, "its classes[1] is 3, it must be a text"],
      [{ classes: [] }, "it has no classes or no test images"],
      [{ labels: [], predictions: [], images: [] }, "it has no classes or no test images"],
      [{ accuracy: "<b>9</b>" }, 'its accuracy is "<b>9</b>", it must be a number from 0 to 100'],
      [{ accuracy: 101 }, "its accuracy is 101, it must be a number from 0 to 100"],
      [{ accuracy: null }, "its accuracy is null"],
      [{ shots: -1 }, "its shots is -1, it must be an integer from 0"],
      [{ shots: undefined }, "its shots is missing"],
      [{ seed: 0.5 }, "its seed is 0.5"],
      [{ rank: "8" }, 'its rank is "8"'],
      [{ trainableParameters: "1<script>" }, 'its trainableParameters is "1<script>"'],
      [{ losses: [[0, 1], [1, null]] }, "its losses[1][1] is null, it must be a number"],
      [{ losses: [[0]] }, "its losses[0] has 1 items, it must have 2"],
      [{ losses: { length: 1e9 } }, "its losses is an object, it must be a list"],
      [{ labels: [0, 0, 1, 2] }, "its labels[3] is 2, it must be an integer from 0 to 1"],
      [{ predictions: [0, 0, 1] }, "its predictions has 3 items, it must have 4"],
      [{ predictions: [0, -1, 1, 1] }, "its predictions[1] is -1"],
      [{ images: ["a", "../b", "c", "d"] }, 'its images[1] is "../b", it must be a path below'],
      [{ images: ["a", "b/../../c", "c", "d"] }, 'its images[1] is "b/../../c"'],
      [{ images: ["/etc/hostname", "b", "c", "d"] }, 'its images[0] is "/etc/hostname"'],
      [{ peakBytesByOwner: { workspace: 1 } }, "its peakBytesByOwner.frozenWeights is missing"],
      [{ settings: [] }, "its settings is a list, it must be an object"],
      [{ settings: { a: [[[[[1]]]]] } }, "its settings.a.0.0.0 is a list"],
      [{ identity: { model: "m", train: null } }, "its identity.test is missing"],
      [{ method: { toString: 1 } }, "its method is an object, it must be a text"],
    ];
    for (const [fields, reason] of refused) {
      await Deno.writeTextFile(path, JSON.stringify({ ...runOf({}), ...fields }));
      const { message } = await assertRejects(() => readRuns([directory]), Error, reason);
      assertEquals(message.split(path).length, 2, message);
      assertMatch(message, /^Cannot read [^\n]*, remove it, or run that again$/);
    }
    const deep = "[".repeat(1e5) + "]".repeat(1e5);
    const nested = JSON.stringify({ ...runOf({}), settings: { a: 1 } });
    await Deno.writeTextFile(path, nested.replace('{"a":1}', `{"a":${deep}}`));
    await assertRejects(() => readRuns([directory]), Error, "its settings.a.0.0.0 is a list");
    await Deno.writeTextFile(path, JSON.stringify(runOf({})));
    assertEquals(await readRuns([directory]), [runOf({})]);
  }));

Deno.test({
  name: "the page shows images of its data set, and no other file",
  ignore: Deno.build.os === "windows",
  fn: () =>
    withDirectory(async (directory) => {
      const bag = join(IMAGES, "test", "bag");
      const [{ name }] = await Array.fromAsync(Deno.readDir(bag));
      const image = await Deno.readFile(join(bag, name));
      const secret = new Uint8Array([...image, 1, 2, 3]);
      const root = join(directory, "data");
      await Deno.mkdir(root);
      await Deno.writeFile(join(directory, "secret.png"), secret);
      await Deno.writeTextFile(join(directory, "key"), "a secret key");
      await Deno.writeFile(join(root, "inside.png"), image);
      await Deno.symlink(join(directory, "key"), join(root, "key.png"));
      await Deno.symlink(join(bag, name), join(root, "linked.png"));
      assert(
        (await new Deno.Command("mkfifo", { args: [join(root, "pipe.png")] }).output()).success,
      );
      const shownOf = async (path: string) => {
        const images = [path, ...Array(3).fill("none.png")];
        const page = await pageOf([runOf({ images })], new Map([["two things", root]]));
        return [...page.matchAll(/src="data:image\/(\w+);base64,([^"]*)"/g)]
          .map(([, type, data]) => [type, data === image.toBase64()]);
      };
      assertEquals(await shownOf("inside.png"), [["png", true]]);
      // A link was put there by whoever made the directory, not by whoever wrote the result.
      assertEquals(await shownOf("linked.png"), [["png", true]]);
      const outside = ["../secret.png", `${directory}/secret.png`, "x/../../secret.png"];
      for (const path of [...outside, "key.png", "pipe.png", ".", "\0"]) {
        assertEquals(await shownOf(path), [], path);
      }

      const run = join(directory, "run");
      await Deno.mkdir(run);
      for (const command of ["mkfifo", "ln -s /dev/zero", "ln -s result.json"]) {
        const [name, ...args] = [...command.split(" "), join(run, "result.json")];
        assert((await new Deno.Command(name, { args }).output()).success);
        await assertRejects(() => readRuns([run]), Error, "result.json: ");
        await Deno.remove(join(run, "result.json"));
      }
    }),
});

/** Runs in which every text is markup, ends an attribute or commands a terminal. */
const HOSTILE = [
  "<script>document.title = 1</script>",
  '"><img src=x onerror="document.title = 2">',
  "&quot; onload=&quot;alert(1)",
  "</style></svg></title><style>* { color: red }</style>",
  "\x1b[2J\u009b31m\u202egnp\nline",
].map((text, seed) =>
  runOf({
    version: text,
    device: text,
    model: text,
    data: text,
    classes: [text, text],
    template: text,
    seed,
    settings: { [text]: text, list: [text], nested: { [text]: text } },
    identity: { model: text, train: text, test: text },
  })
);

Deno.test("names and values are text on the page, in Markdown and on the terminal", () =>
  withDirectory(async (directory) => {
    for (const [i, run] of HOSTILE.entries()) {
      await Deno.mkdir(join(directory, `${i}`));
      await Deno.writeTextFile(join(directory, `${i}`, "result.json"), JSON.stringify(run));
    }
    const data = join(directory, "data\x1b");
    for (const name of ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.bmp"]) {
      await Deno.mkdir(join(data, name[0]), { recursive: true });
      await Deno.writeTextFile(join(data, name), "");
    }
    const args = ["report", "--runs", directory, "--data", data, "--markdown"];
    const { code, stdout, stderr } = await octograd(args);
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, "data\\u001b: left out 1 .bmp: only jpg, jpeg, png and webp");
    const page = await Deno.readTextFile(join(directory, "report.html"));
    assert(!/<script|<img|onload="|<style>\*/.test(page));
    assertEquals(page.match(/<\/style>/g)?.length, 1);
    for (const shown of ["&lt;script&gt;", "\\u001b[2J\\u009b31m\\u202egnp\\u000aline"]) {
      assertStringIncludes(page, shown);
    }
    assertStringIncludes(stdout, "\\\\u001b\\[2J\\\\u009b31m\\\\u202egnp\\\\u000aline:");
    // deno-lint-ignore no-control-regex -- they must not be there
    assert(!/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/.test(page + stdout + stderr));
    assert(!/[^\\]</.test(stdout));
  }));

const chromium = await findChromium();
Deno.test({
  name: "a browser shows the page, and its policy blocks nothing of it but all else",
  ignore: chromium === null,
  fn: () =>
    withDirectory(async (directory) => {
      const [{ name }] = await Array.fromAsync(Deno.readDir(join(IMAGES, "test", "bag")));
      const images = Array.from({ length: 4 }, () => `test/bag/${name}`);
      const runs = [...RUNS, ...HOSTILE].map((run) => ({ ...run, images }));
      const page = await pageOf(runs, new Map([["two things", IMAGES]]));
      const path = join(directory, "page.html");
      await Deno.writeTextFile(path, page);
      const shown = await openPage(chromium!, path);
      assertEquals(shown.console, []);
      assertStringIncludes(shown.document, "<title>What few labelled images teach a CLIP</title>");
      assertEquals(shown.document.match(/<img /g)?.length, 4);

      const foreign =
        '<p style="color: red"></p><style>p {}</style><img src="http://127.0.0.1/x">' +
        "<script>document.title = 1</script>";
      await Deno.writeTextFile(path, page.replace("<main>", `$&${foreign}`));
      const attacked = await openPage(chromium!, path);
      assertEquals(attacked.console.length, 4, attacked.console.join("\n"));
      assertEquals(attacked.console.filter((line) => !line.includes("has been blocked")), []);
      assert(!attacked.document.includes("<title>1"));
    }),
});

Deno.test("SvgDocument writes elements in their order, and escapes text and quotes", () => {
  const document = new SvgDocument();
  const [text, first, last] = ["text", "style", "g"].map((name) =>
    document.createElementNS("http://www.w3.org/2000/svg", name)
  );
  text.setAttribute("x", 1);
  text.setAttribute("aria-label", '"<&gt;');
  text.setAttribute("y", 2);
  text.removeAttribute("x");
  assertEquals([text.hasAttribute("x"), text.getAttribute("y")], [false, "2"]);
  text.appendChild(last);
  text.append(document.createTextNode(NASTY));
  first.textContent = "a > b";
  text.insertBefore(first, last);
  assertEquals(
    text.outerHTML,
    '<text y="2" aria-label="&quot;&lt;&amp;gt;"><style>a &gt; b</style><g />&lt;b&gt;&amp;"</text>',
  );
});
