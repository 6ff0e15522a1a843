/**
 * `parseArgs` of `@std/cli` on `node:util`: a stand-in where JSR is out of reach, holding just the
 * options that the command line uses. Of short flags, which it has none of, only their names are
 * read.
 *
 * @module
 */

import { parseArgs as nodeParseArgs } from "node:util";

/** The options of `@std/cli`'s `parseArgs` that are kept here. */
export interface ParseOptions {
  /** Names of flags that take no value; false where they are not given. */
  readonly boolean?: readonly string[];
  /** Names of flags whose value stays a string; with `"_"`, so do the positional arguments. */
  readonly string?: readonly string[];
  /** What flags are that are not given. */
  readonly default?: Readonly<Record<string, unknown>>;
  /** Names of flags that may be given several times: an array, empty where they are not given. */
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
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const written = join(args.slice(0, end), options);
  const { tokens } = nodeParseArgs({
    args: written.map(({ joined }) => joined),
    strict: false,
    tokens: true,
  });
  const parsed: Record<string, unknown> & { _: (string | number)[] } = {
    _: [],
  };
  const typed = (name: string, text: string) =>
    string.includes(name) || text.trim() === "" ||
      !Number.isFinite(Number(text))
      ? text
      : Number(text);
  for (const token of tokens) {
    if (token.kind === "positional") {
      if (unknown?.(token.value) !== false) {
        parsed._.push(typed("_", token.value));
      }
    } else if (token.kind === "option") {
      const { name, value: text } = token;
      if (
        text === undefined && name.startsWith("no-") &&
        negatable.includes(name.slice(3))
      ) {
        parsed[name.slice(3)] = false;
        continue;
      }
      const value = boolean.includes(name) ? text !== "false" : text ?? true;
      const known = [boolean, string, collect].some((names) => names.includes(name));
      if (
        !known && unknown?.(written[token.index].arg, name, value) === false
      ) continue;
      const kept = typeof value === "string" ? typed(name, value) : value;
      parsed[name] = collect.includes(name)
        ? [...(parsed[name] as unknown[] | undefined) ?? [], kept]
        : kept;
    }
  }
  parsed._.push(...args.slice(end + 1));
  const absent = {
    ...Object.fromEntries(boolean.map((name) => [name, false])),
    ...Object.fromEntries(collect.map((name) => [name, []])),
    ...options.default,
  };
  return { ...absent, ...parsed };
}

/**
 * Each flag with its value as one argument, `--name=value`, beside the flag as it was given: where
 * a value is an argument of its own, `@std/cli` has other rules than `node:util`. A value does not
 * begin with a dash, and a switch takes `true` and `false` only.
 */
function join(
  args: readonly string[],
  { boolean = [], string = [], negatable = [] }: ParseOptions,
): { arg: string; joined: string }[] {
  const written = [];
  for (let i = 0; i < args.length; i++) {
    const [arg, next] = [args[i], args[i + 1]];
    const name = /^--([^=]+)$/.exec(arg)?.[1];
    const off = name?.startsWith("no-") && negatable.includes(name.slice(3));
    if (name === undefined || off) written.push({ arg, joined: arg });
    else if (
      next &&
      (boolean.includes(name) ? /^(true|false)$/.test(next) : !next.startsWith("-"))
    ) {
      written.push({ arg, joined: `${arg}=${next}` });
      i++;
    } else {written.push({
        arg,
        joined: string.includes(name) ? `${arg}=` : arg,
      });}
  }
  return written;
}
