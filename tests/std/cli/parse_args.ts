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
  { boolean = [], string = [], collect = [], negatable = [], unknown }: ParseOptions = {},
): Record<string, unknown> & { _: (string | number)[] } {
  const options = Object.fromEntries([
    ...boolean.map((
      name,
    ) => [name, { type: "boolean" as const, multiple: collect.includes(name) }]),
    ...string.filter((name) => name !== "_")
      .map((name) => [name, { type: "string" as const, multiple: true }]),
  ]);
  const { tokens } = nodeParseArgs({
    args,
    options,
    strict: false,
    allowNegative: false,
    tokens: true,
  });
  const parsed: Record<string, unknown> & { _: (string | number)[] } = { _: [] };
  for (const name of boolean) parsed[name] = false;
  for (const name of collect) parsed[name] = [];
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
      const { name, rawName, value } = token;
      const off = name.startsWith("no-") && negatable.includes(name.slice(3));
      if (off) set(name.slice(3), false);
      else if (boolean.includes(name)) set(name, value === undefined || value === "true");
      else if (string.includes(name)) set(name, value ?? "");
      else if (unknown?.(rawName, name, value ?? true) !== false) set(name, value ?? true);
    }
  }
  return parsed;
}
