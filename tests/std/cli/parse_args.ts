/**
 * `parseArgs` of `@std/cli` on `node:util`: a stand-in where JSR is out of reach, holding just the options that the
 * command line uses.
 *
 * @module
 */

import { parseArgs as nodeParseArgs } from "node:util";

/** The options of `@std/cli`'s `parseArgs` that are kept here. */
export interface ParseOptions {
  /** Names of flags that take no value. */
  readonly boolean?: readonly string[];
  /** Names of flags whose value stays a string; with `"_"`, so do the positional arguments. */
  readonly string?: readonly string[];
  /** What flags are that are not given. */
  readonly default?: Readonly<Record<string, unknown>>;
  /** Names of flags that may be given several times. */
  readonly collect?: readonly string[];
  /** Names of flags that `--no-NAME` turns off. */
  readonly negatable?: readonly string[];
  /** Told of each argument that no option names; what it returns false for is left out. */
  readonly unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** Reads a command line into an object of flags, with the positional arguments in `_`. */
export function parseArgs(
  args: string[],
  options: ParseOptions = {},
): Record<string, unknown> & { _: (string | number)[] } {
  const { boolean = [], string = [], collect = [], negatable = [], unknown } = options;
  const valued = string.filter((name) => name !== "_");
  const written = join(args, boolean, valued);
  const { tokens } = nodeParseArgs({
    args: written,
    options: Object.fromEntries([
      ...boolean.map((name) => [name, { type: "boolean" as const, multiple: true }]),
      ...valued.map((name) => [name, { type: "string" as const, multiple: true }]),
    ]),
    strict: false,
    tokens: true,
  });
  const parsed: Record<string, unknown> & { _: (string | number)[] } = { _: [] };
  for (const name of boolean) parsed[name] = false;
  for (const name of collect) parsed[name] = [];
  Object.assign(parsed, options.default);
  const positional = (text: string) =>
    string.includes("_") || text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
  const set = (name: string, value: unknown) => {
    if (collect.includes(name)) (parsed[name] as unknown[]).push(value);
    else parsed[name] = value;
  };
  for (const token of tokens) {
    if (token.kind === "positional") {
      if (unknown?.(token.value) !== false) parsed._.push(positional(token.value));
    } else if (token.kind === "option") {
      const { name, value } = token;
      const off = name.startsWith("no-") && negatable.includes(name.slice(3));
      if (off) set(name.slice(3), false);
      else if (boolean.includes(name)) set(name, value === undefined || value === "true");
      else if (valued.includes(name)) set(name, value ?? "");
      else if (unknown?.(written[token.index], name, value ?? true) !== false) {
        set(name, value ?? true);
      }
    }
  }
  return parsed;
}

/**
 * Writes flags and their values as one argument, `--name=value`, where `@std/cli` takes the next argument otherwise
 * than `node:util`: a value never begins with a dash, and a switch may be followed by `true` or `false`.
 */
function join(args: readonly string[], switches: readonly string[], valued: readonly string[]) {
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [arg, next] = [args[i], args[i + 1]];
    if (arg === "--") return [...joined, ...args.slice(i)];
    const name = arg.startsWith("--") ? arg.slice(2) : "";
    if (valued.includes(name) && next?.startsWith("-") !== false) joined.push(`${arg}=`);
    else if (
      valued.includes(name) || switches.includes(name) && (next === "true" || next === "false")
    ) {
      joined.push(`${arg}=${next}`);
      i++;
    } else joined.push(arg);
  }
  return joined;
}
