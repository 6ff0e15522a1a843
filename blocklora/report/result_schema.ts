/**
 * Checks that a value from a `result.json` is a result. Such files come from anywhere, and what is
 * in them goes into a page.
 *
 * @module
 */

import { isObject } from "../../clip/json.ts";
import { MEMORY_CATEGORIES } from "../../tensor/memory.ts";
import { leadsBelow } from "../data/folders.ts";
import type { RunResult } from "../training/result.ts";

/** Checks the value of a field. Throws what is wrong with it, with the path of the field. */
type Check = (value: unknown, field: string) => void;

/** A field that is not what it must be. */
class FieldError extends Error {
  constructor(field: string, wanted: string, value: unknown) {
    const given = value === undefined
      ? "is missing"
      : Array.isArray(value)
      ? "is a list"
      : Object(value) === value
      ? "is an object"
      : `is ${JSON.stringify(value).slice(0, 60)}`;
    super(`its ${field} ${given}, it must be ${wanted}`);
  }
}

const text: Check = (value, field) => {
  if (typeof value !== "string") throw new FieldError(field, "a text", value);
};

/** A path below the directory that it is relative to. */
const path: Check = (value, field) => {
  if (typeof value === "string" && leadsBelow(value)) return;
  throw new FieldError(field, "a path below the directory of the data set", value);
};

const number = (least = -Infinity, most = Infinity): Check => (value, field) => {
  if (typeof value === "number" && value >= least && value <= most) return;
  const range = most < Infinity ? ` from ${least} to ${most}` : ` from ${least}`;
  throw new FieldError(field, `a number${least > -Infinity ? range : ""}`, value);
};

const integer = (least: number, most = Number.MAX_SAFE_INTEGER): Check => (value, field) => {
  if (Number.isSafeInteger(value) && value as number >= least && value as number <= most) return;
  const range = most < Number.MAX_SAFE_INTEGER ? `${least} to ${most}` : `${least}`;
  throw new FieldError(field, `an integer from ${range}`, value);
};

const nullable = (check: Check): Check => (value, field) => {
  if (value !== null) check(value, field);
};

const optional = (check: Check): Check => (value, field) => {
  if (value !== undefined) check(value, field);
};

const list = (check: Check, length?: number): Check => (value, field) => {
  if (!Array.isArray(value)) throw new FieldError(field, "a list", value);
  if (length !== undefined && value.length !== length) {
    throw new Error(`its ${field} has ${value.length} items, it must have ${length}`);
  }
  value.forEach((item, i) => check(item, `${field}[${i}]`));
};

const record = (fields: Readonly<Record<string, Check>>): Check => (value, field) => {
  if (!isObject(value)) throw new FieldError(field, "an object", value);
  for (const [name, check] of Object.entries(fields)) check(value[name], `${field}.${name}`);
};

/** What a configuration may hold: texts, numbers, and lists and objects of such, not deeply. */
const setting = (depth: number): Check => (value, field) => {
  if (Object(value) !== value) return;
  if (depth === 0) throw new FieldError(field, "a text, a number or true or false", value);
  for (const [name, item] of Object.entries(value as object)) {
    setting(depth - 1)(item, `${field}.${name}`);
  }
};

const settings: Check = (value, field) => {
  if (!isObject(value)) throw new FieldError(field, "an object", value);
  setting(4)(value, field);
};

const FIELDS = {
  version: text,
  device: text,
  model: text,
  data: text,
  classes: list(text),
  template: text,
  method: text,
  rank: nullable(integer(1)),
  blocks: nullable(integer(1)),
  shots: integer(0),
  seed: nullable(integer(0)),
  iterations: integer(0),
  trainableParameters: integer(0),
  accuracy: number(0, 100),
  zeroShotAccuracy: nullable(number(0, 100)),
  losses: list(list(number(), 2)),
  peakGpuBytes: nullable(number(0)),
  peakBytesByOwner: nullable(
    record(Object.fromEntries(MEMORY_CATEGORIES.map((category) => [category, number(0)]))),
  ),
  images: list(path),
  settings: optional(settings),
  identity: optional(record({ model: text, train: nullable(text), test: text })),
};

/**
 * Checks a parsed `result.json`.
 *
 * @throws {Error} If it is not the result of a run, with the field that is not what it must be.
 */
export function assertResult(value: unknown): asserts value is RunResult {
  if (!isObject(value) || value.format !== 1) {
    throw new Error("it is not the result of a run of this version");
  }
  for (const [name, check] of Object.entries(FIELDS)) check(value[name], name);
  const { classes, images } = value as unknown as RunResult;
  if (classes.length === 0 || images.length === 0) {
    throw new Error("it has no classes or no test images");
  }
  const label = integer(0, classes.length - 1);
  for (const name of ["labels", "predictions"]) list(label, images.length)(value[name], name);
}
