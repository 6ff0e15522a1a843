import { assertEquals } from "@std/assert";
import { parseArgs } from "@std/cli/parse-args";

const FLAGS = {
  boolean: ["json", "flip"],
  string: ["data", "seed", "_"],
  default: { flip: true },
  collect: ["data", "seed"],
  negatable: ["json", "flip"],
};
type Parsed = Record<string, unknown>;
const parse = (...args: string[]): Parsed => ({ ...parseArgs(args, FLAGS) });
const nothing: Parsed = { json: false, flip: true, data: [], seed: [], _: [] };

Deno.test("parseArgs() gives flags that are not there their defaults", () => {
  assertEquals(parse(), nothing);
});

Deno.test("parseArgs() reads switches, negated ones and those with a value", () => {
  assertEquals(parse("--json"), { ...nothing, json: true });
  assertEquals(parse("--no-flip"), { ...nothing, flip: false });
  assertEquals(parse("--flip=false", "--json=true"), {
    ...nothing,
    flip: false,
    json: true,
  });
  assertEquals(parse("--flip", "false"), { ...nothing, flip: false });
  assertEquals(parse("--json", "x"), { ...nothing, json: true, _: ["x"] });
  assertEquals(parse("--no-flip", "--flip"), nothing);
});

Deno.test("parseArgs() reads values, the last argument and what begins with a dash being none", () => {
  assertEquals(parse("--data", "a b", "--data=c=d"), { ...nothing, data: ["a b", "c=d"] });
  assertEquals(parse("--seed", "007", "8"), { ...nothing, seed: ["007"], _: ["8"] });
  assertEquals(parse("--seed=-1"), { ...nothing, seed: ["-1"] });
  assertEquals(parse("--data", "--json"), { ...nothing, data: [""], json: true });
  assertEquals(parse("--data"), { ...nothing, data: [""] });
});

Deno.test("parseArgs() leaves what follows -- alone", () => {
  assertEquals(parse("a", "--", "--json", "--data", "x"), {
    ...nothing,
    _: ["a", "--json", "--data", "x"],
  });
});

Deno.test("parseArgs() makes numbers of positional arguments unless they are strings", () => {
  assertEquals(parseArgs(["1", "x", "0x10", ""])._, [1, "x", 16, ""]);
  assertEquals(parseArgs(["1", "x"], { string: ["_"] })._, ["1", "x"]);
});

Deno.test("parseArgs() tells of arguments that no option names, and leaves out what is refused", () => {
  const told: unknown[] = [];
  const unknown = (...call: unknown[]) => (told.push(call), call[1] !== "bad");
  const parsed: Parsed = parseArgs(["p", "--bad", "--good=3", "-h", "--no-data"], {
    ...FLAGS,
    unknown,
  });
  assertEquals(told, [
    ["p"],
    ["--bad", "bad", true],
    ["--good=3", "good", "3"],
    ["-h", "h", true],
    ["--no-data", "no-data", true],
  ]);
  assertEquals(
    parsed,
    {
      ...nothing,
      _: ["p"],
      good: 3,
      h: true,
      "no-data": true,
    },
  );
});
