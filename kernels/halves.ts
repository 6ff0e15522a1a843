/**
 * Operands stored in half precision, two in each word. They are unpacked as they are read, which
 * every GPU can; the arithmetic is in f32.
 *
 * @module
 */

/** WGSL for the element at `at` of the halves `name`. */
export function half(name: string, at: string): string {
  return `unpack2x16float(${name}[(${at}) / 2u])[(${at}) % 2u]`;
}

/** WGSL for the four elements from `4 at` on of the halves `name`. */
export function half4(name: string, at: string): string {
  return `vec4f(unpack2x16float(${name}[${at}].x), unpack2x16float(${name}[${at}].y))`;
}
