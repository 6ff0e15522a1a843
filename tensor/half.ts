/**
 * Half-precision numbers (IEEE 754 binary16) on the host, by their bits: not every JavaScript
 * engine has a `Float16Array`.
 *
 * @module
 */

/** The numbers of the given half-precision bits, as f32. */
export function halvesToFloats(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const floats = new Float32Array(halves.length);
  const bits = new Uint32Array(floats.buffer);
  for (let i = 0; i < bits.length; i++) {
    const sign = (halves[i] & 0x8000) << 16;
    const size = halves[i] & 0x7fff;
    if (size >= 0x7c00) bits[i] = size > 0x7c00 ? 0x7fc00000 : sign | 0x7f800000; // NaN, infinity
    else if (size >= 0x400) bits[i] = sign | (size << 13) + 0x38000000;
    // Below 2⁻¹⁴ halves are plain multiples of 2⁻²⁴.
    else floats[i] = sign ? -size * 2 ** -24 : size * 2 ** -24;
  }
  return floats;
}

/** The largest half. */
export const LARGEST_HALF = 65504;

/**
 * Whether a finite number is at least halfway from the largest half to 2¹⁶, and so would become
 * infinite.
 */
export function beyondHalf(value: number): boolean {
  return Number.isFinite(value) && Math.abs(Math.fround(value)) >= 65520;
}

/**
 * Rounds `floats` to half precision, ties to even, and writes the bits into `halves`, from index
 * `start` on. Numbers that are {@linkcode beyondHalf} become infinite.
 */
export function floatsToHalves(floats: Float32Array, halves: Uint16Array, start = 0): void {
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  for (let i = 0; i < bits.length; i++) halves[start + i] = toHalf(bits[i]);
}

/** The bits of the half-precision number nearest to the f32 of the given bits, ties to even. */
function toHalf(bits: number): number {
  const sign = bits >>> 16 & 0x8000;
  const size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00; // NaN
  if (size >= 0x477ff000) return sign | 0x7c00; // from 65520 on: infinity
  // From 2⁻¹⁴ on only the exponent's bias changes; below, halves are plain multiples of 2⁻²⁴.
  const isNormal = size >= 0x38800000;
  const steps = isNormal ? size - 0x38000000 : size & 0x7fffff | 0x800000;
  const shift = isNormal ? 13 : Math.min(126 - (size >>> 23), 25);
  return sign | roundedShift(steps, shift);
}

/** `steps / 2^shift`, rounded to the nearest integer, ties to even. */
export function roundedShift(steps: number, shift: number): number {
  return (steps + (1 << shift - 1) - 1 + (steps >>> shift & 1)) >>> shift;
}
