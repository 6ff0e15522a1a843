/**
 * Operands stored in half precision, two in each word. They are unpacked as they are read, which every adapter can; the
 * arithmetic is in f32.
 *
 * @module
 */

import { replaced } from "./kernel.ts";

/** What bindings of halves are arrays of: by these names kernel.ts knows them. */
export const HALVES = `alias halves = u32;
alias halves4 = vec2u;
`;

/** WGSL for the element at `at` of the halves `name`. */
export function half(name: string, at: string): string {
  return `unpack2x16float(${name}[(${at}) / 2u])[(${at}) % 2u]`;
}

/** WGSL for the four elements from `4 at` on of the halves `name`. */
export function half4(name: string, at: string): string {
  return `vec4f(unpack2x16float(${name}[${at}].x), unpack2x16float(${name}[${at}].y))`;
}

/** A shader's source in which the operand `name`, of f32 and read by its `load_name` alone, is of halves. */
export function readingHalves(wgsl: string, name: string): string {
  const typed = replaced(wgsl, `${name}: array<f32>;`, `${name}: array<halves>;`);
  const load = (element: string) => `-> f32 {\n  return ${element};`;
  return replaced(typed, load(`${name}[at]`), load(half(name, "at"))) + HALVES;
}
