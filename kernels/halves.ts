/**
 * Operands stored in half precision, two in each word. They are unpacked as they are read, which every adapter can; the
 * arithmetic is in f32.
 *
 * @module
 */

/** What bindings of halves are arrays of: by these names kernel.ts knows them. */
export const HALVES = `alias halves = u32;
alias halves4 = vec2u;
`;

/** WGSL for the element at `at` of the halves `name`. */
export function half(name: string, at: string): string {
  return `unpack2x16float(${name}[(${at}) / 2u])[(${at}) % 2u]`;
}

/** A shader's source in which the operand `name`, of f32 or vec4f and read by its `load_name` alone, is of halves. */
export function readingHalves(wgsl: string, name: string): string {
  const quad = `vec4f(unpack2x16float(${name}[at].x), unpack2x16float(${name}[at].y))`;
  return wgsl
    .replace(`${name}: array<f32>;`, `${name}: array<halves>;`)
    .replace(`${name}: array<vec4f>;`, `${name}: array<halves4>;`)
    .replace(`-> f32 {\n  return ${name}[at];`, `-> f32 {\n  return ${half(name, "at")};`)
    .replace(`-> vec4f {\n  return ${name}[at];`, `-> vec4f {\n  return ${quad};`) + HALVES;
}
