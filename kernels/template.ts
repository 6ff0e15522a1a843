/**
 * WGSL templates: shaders whose loops are unrolled and whose cases are chosen before they are
 * compiled.
 *
 * A template is a `.wgsl` file that is read from top to bottom. A line is WGSL or a directive:
 *
 * - `#for i in ROWS / 4` … `#end` repeats lines, with i from 0 to before the count; `#for name in
 *   NAMES` goes over a list.
 * - `#if NAME` or `#if !NAME` … `#else` … `#end` chooses lines.
 * - `#include NAME` inserts another template.
 *
 * `${…}` is a text by its name, or arithmetic of integers and their names: `row${4 * q + 1}`.
 *
 * @module
 */

/** What a name in a template stands for: a number, a case, a text, or a list to go over. */
export type TemplateValue = number | boolean | string | readonly string[];

/** Templates by the names that `#include` gives them. */
export type Templates = Readonly<Record<string, string>>;

type Values = Readonly<Record<string, TemplateValue>>;

/**
 * Expands a template.
 *
 * @throws {Error} If it names something that has no value, or a value is given that it never names.
 */
export function expand(template: string, values: Values, includes: Templates = {}): string {
  const lines = included(template, includes);
  const named = new Set(lines.flatMap(namesIn));
  for (const name of Object.keys(values)) {
    if (!named.has(name)) throw new Error(`Cannot expand a template: it never names "${name}"`);
  }
  const output: string[] = [];
  const end = expandLines(lines, 0, values, output);
  if (end < lines.length) {
    throw new Error(`Cannot expand a template: "${lines[end].trim()}" ends nothing`);
  }
  // A case that was left out leaves its blank lines behind.
  return output.join("\n").replace(/\n{3,}/g, "\n\n").replace(/\{\n\n/g, "{\n").trim() + "\n";
}

function included(template: string, includes: Templates): string[] {
  return template.split("\n").flatMap((line) => {
    const name = /^\s*#include (\w+)$/.exec(line)?.[1];
    if (name === undefined) return [line];
    return included(valueOf(name, includes).trimEnd(), includes);
  });
}

function namesIn(line: string): string[] {
  const expressions = line.trim().startsWith("#")
    ? [line]
    : [...line.matchAll(/\$\{([^}]*)\}/g)].map(([, expression]) => expression);
  return expressions.flatMap((expression) => expression.match(/[A-Za-z_]\w*/g) ?? []);
}

/**
 * Expands lines from `start` on until the `#else` or `#end` of the block around them, whose index
 * it returns.
 */
function expandLines(
  lines: readonly string[],
  start: number,
  values: Values,
  output: string[] | null,
): number {
  let at = start;
  while (at < lines.length) {
    const line = lines[at];
    const [, directive, subject] = /^\s*#(for|if|else|end)\b ?(.*)$/.exec(line) ?? [];
    if (directive === "else" || directive === "end") return at;
    if (directive === "for") at = expandFor(lines, at, subject, values, output);
    else if (directive === "if") at = expandIf(lines, at, subject, values, output);
    else output?.push(filledIn(line, values));
    at++;
  }
  return at;
}

function expandFor(
  lines: readonly string[],
  at: number,
  subject: string,
  values: Values,
  output: string[] | null,
): number {
  const [variable, count] = subject.split(" in ");
  const end = expandLines(lines, at + 1, values, null);
  if (lines[end]?.trim() !== "#end") throw new Error(`Cannot expand "#for ${subject}": no #end`);
  if (!output) return end;
  const list = values[count];
  const items = Array.isArray(list)
    ? list
    : Array.from({ length: evaluate(count, values) }, (_, i) => i);
  for (const item of items) expandLines(lines, at + 1, { ...values, [variable]: item }, output);
  return end;
}

function expandIf(
  lines: readonly string[],
  at: number,
  subject: string,
  values: Values,
  output: string[] | null,
): number {
  const name = subject.replace("!", "");
  const holds = output !== null && valueOf(name, values) === !subject.startsWith("!");
  let end = expandLines(lines, at + 1, values, holds ? output : null);
  if (lines[end]?.trim() === "#else") {
    end = expandLines(lines, end + 1, values, holds ? null : output);
  }
  if (lines[end]?.trim() !== "#end") throw new Error(`Cannot expand "#if ${subject}": no #end`);
  return end;
}

function filledIn(line: string, values: Values): string {
  return line.replace(/\$\{([^}]*)\}/g, (_, expression) => {
    const value = values[expression];
    return typeof value === "string" ? value : String(evaluate(expression, values));
  }).trimEnd();
}

function valueOf<T>(name: string, values: Readonly<Record<string, T>>): T {
  if (name in values) return values[name];
  throw new Error(`Cannot expand a template: "${name}" has no value`);
}

/** The integer that an expression comes to, from left to right; `/` rounds down. */
function evaluate(expression: string, values: Values): number {
  const tokens = expression.match(/\w+|[-+*/%()]/g) ?? [];
  const operand = (): number => {
    const token = tokens.shift() ?? "";
    if (token === "(") {
      const value = sum();
      tokens.shift();
      return value;
    }
    const value = /^\d+$/.test(token) ? Number(token) : valueOf(token, values);
    if (typeof value === "number") return value;
    throw new Error(`Cannot expand "${expression}": "${token}" is no number`);
  };
  const product = (): number => {
    let value = operand();
    while (/^[*/%]$/.test(tokens[0] ?? "")) {
      const operator = tokens.shift();
      const next = operand();
      value = operator === "*"
        ? value * next
        : operator === "/"
        ? Math.floor(value / next)
        : value % next;
    }
    return value;
  };
  const sum = (): number => {
    let value = product();
    while (/^[-+]$/.test(tokens[0] ?? "")) value += tokens.shift() === "-" ? -product() : product();
    return value;
  };
  return sum();
}

/**
 * Replaces every match of `from` in an expression.
 *
 * @throws {Error} If there is none.
 */
export function replaced(text: string, from: string | RegExp, to: string): string {
  const result = text.replaceAll(
    typeof from === "string" ? from : new RegExp(from.source, "g"),
    () => to,
  );
  if (result !== text) return result;
  throw new Error(`Cannot replace ${from} in a kernel: it is not there`);
}
