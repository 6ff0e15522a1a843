/**
 * `parseArgs`, to what `@std/cli` 1.0 gives: with the `links` of deno.json deleted this holds the
 * original to the same.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { parseArgs } from "@std/cli/parse-args";

/** How the command line asks. */
const FLAGS = {
  boolean: ["json", "flip"],
  negatable: ["json", "flip"],
  string: ["model", "rank", "_"],
  collect: ["model", "rank"],
  default: { flip: true },
};

/** The result of no arguments. */
const NONE = { _: [], json: false, flip: true, model: [], rank: [] };

/** How words on the command line change it. */
const WORDS: [words: string[], changes: Record<string, unknown>][] = [
  [[], {}],
  [["--json", "--no-flip"], { json: true, flip: false }],
  [["--no-json", "--flip=false", "--json"], { json: true, flip: false }],
  [["--json=false", "--json=yes", "a"], { json: true, _: ["a"] }],
  [["--json", "false", "--flip", "true", "a"], { _: ["a"] }],
  [["--json", "a", "--no-json", "true"], { _: ["a", "true"] }],
  [["--model", "a", "--model=b=c", "--rank=-1"], { model: ["a", "b=c"], rank: ["-1"] }],
  [["--model", "true", "--rank", "08"], { model: ["true"], rank: ["08"] }],
  [["--model", "--json"], { model: [""], json: true }],
  [["--model=", "--rank"], { model: [""], rank: [""] }],
  [["--model", "", "a"], { model: [""], _: ["", "a"] }],
  [["3", "-", "x.jpg", "--", "--json", "4"], { _: ["3", "-", "x.jpg", "--json", "4"] }],
];

Deno.test("parseArgs() reads flags by their kinds", () => {
  for (const [words, changes] of WORDS) {
    const given = [...words];
    assertEquals({ ...parseArgs(given, FLAGS) }, { ...NONE, ...changes }, words.join(" "));
    assertEquals(given, words, "the words themselves are left alone");
  }
});

Deno.test("parseArgs() makes numbers of values that are not declared strings", () => {
  const words = ["3", "1e3", "0x10", "Infinity", "", "x", "--rank=8", "--seed", "9", "--", "4"];
  assertEquals({ ...parseArgs(words, { collect: ["seed"] }) }, {
    _: [3, 1000, 16, "Infinity", "", "x", "4"],
    rank: 8,
    seed: [9],
  });
});

Deno.test("parseArgs() keeps flags that no option names, the last value of each", () => {
  const words = ["--typo", "3", "--typo=4", "--loud", "--no-loud", "-v"];
  assertEquals({ ...parseArgs(words) }, { _: [], typo: 4, loud: true, "no-loud": true, v: true });
});

Deno.test("parseArgs() passes to unknown() what no option names, and drops it on false", () => {
  const told: unknown[][] = [];
  const words = ["--typo=1", "--no-model", "--typo", "x", "a", "b", "--json", "--", "c"];
  const parsed = parseArgs(words, {
    ...FLAGS,
    unknown(arg, key, value) {
      told.push(key === undefined ? [arg] : [arg, key, value]);
      return arg !== "--typo" && arg !== "b";
    },
  });
  assertEquals(told, [
    ["--typo=1", "typo", "1"],
    ["--no-model", "no-model", true],
    ["--typo", "typo", "x"],
    ["a"],
    ["b"],
  ]);
  assertEquals({ ...parsed }, {
    ...NONE,
    _: ["a", "c"],
    typo: 1,
    "no-model": true,
    json: true,
  });
});

Deno.test("parseArgs() takes a default only where nothing is given", () => {
  const tags = ["z"];
  const options = { string: ["tags"], collect: ["tags"], default: { tags, size: 1 } };
  assertEquals({ ...parseArgs(["--tags=a", "--tags=b"], options) }, {
    _: [],
    tags: ["a", "b"],
    size: 1,
  });
  assertEquals({ ...parseArgs(["--size=3"], options) }, { _: [], tags: ["z"], size: 3 });
  assertEquals(tags, ["z"]);
});
