/**
 * Pillow's bicubic resampling of bytes, exact to the last bit. When an image shrinks, the kernel's
 * support is widened by the scale. Weights are in fixed point, and each pass is rounded to 8 bits.
 * Agrees with `src/libImaging/Resample.c` of Pillow 9.4.
 *
 * @module
 */

/** The inputs of each output of a pass: where they begin, how many there are, and their weights. */
export interface Taps {
  /** Index of the first input of each output. */
  readonly starts: Int32Array;
  /** Number of inputs of each output. */
  readonly counts: Int32Array;
  /** The weights in fixed point, in rows of `stride` for each output. */
  readonly weights: Int32Array;
  /** How many weights each output has room for. */
  readonly stride: number;
}

/**
 * Pillow's fixed point has 22 fractional bits: 32, less 8 for the pixel and 2 for weights that add
 * up to more than 1.
 */
const PRECISION_BITS = 22;
const ONE_HALF = 1 << (PRECISION_BITS - 1);

/**
 * The taps of the outputs from `first` up to but not including `first + count`, when `size` pixels
 * are resized to `resized`.
 */
export function tapsOf(size: number, resized: number, first: number, count: number): Taps {
  const scale = size / resized;
  const stretch = Math.max(1, scale);
  const support = 2 * stretch;
  const stride = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(count);
  const counts = new Int32Array(count);
  const weights = new Int32Array(count * stride);
  const exact = new Float64Array(stride);
  for (let output = 0; output < count; output++) {
    const center = (first + output + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const taps = Math.min(size, Math.trunc(center + support + 0.5)) - start;
    let total = 0;
    for (let tap = 0; tap < taps; tap++) {
      total += exact[tap] = bicubic((start + tap - center + 0.5) * (1 / stretch));
    }
    for (let tap = 0; tap < taps; tap++) {
      const fixed = exact[tap] / total * (1 << PRECISION_BITS);
      weights[output * stride + tap] = Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    }
    starts[output] = start;
    counts[output] = taps;
  }
  return { starts, counts, weights, stride };
}

/**
 * Computes one row of the horizontal pass. It reads the pixels of `source` from byte `at` on, and
 * writes those of `target` from byte `to` on.
 */
export function resampleRow(
  source: Uint8Array,
  at: number,
  { starts, counts, weights, stride }: Taps,
  target: Uint8Array,
  to: number,
): void {
  for (let x = 0; x < starts.length; x++, to += 3) {
    let red = ONE_HALF, green = ONE_HALF, blue = ONE_HALF;
    const end = x * stride + counts[x];
    for (let k = x * stride, i = at + 3 * starts[x]; k < end; k++, i += 3) {
      const weight = weights[k];
      red = red + weight * source[i] | 0;
      green = green + weight * source[i + 1] | 0;
      blue = blue + weight * source[i + 2] | 0;
    }
    target[to] = toByte(red);
    target[to + 1] = toByte(green);
    target[to + 2] = toByte(blue);
  }
}

/**
 * Computes the vertical pass over rows of `width` bytes. The first row of `source` is the first one
 * that `taps` refers to.
 */
export function resampleRows(
  source: Uint8Array,
  width: number,
  taps: Taps,
): Uint8Array<ArrayBuffer> {
  const { starts, counts, weights, stride } = taps;
  const target = new Uint8Array(width * starts.length);
  const sums = new Int32Array(width);
  for (let y = 0; y < starts.length; y++) {
    sums.fill(ONE_HALF);
    for (let tap = 0; tap < counts[y]; tap++) {
      const weight = weights[y * stride + tap];
      const at = (starts[y] - starts[0] + tap) * width;
      for (let i = 0; i < width; i++) sums[i] += weight * source[at + i];
    }
    for (let i = 0, to = y * width; i < width; i++) target[to + i] = toByte(sums[i]);
  }
  return target;
}

/** The cubic convolution kernel with a = -0.5 (Keys, 1981). */
function bicubic(x: number): number {
  const distance = Math.abs(x);
  if (distance < 1) return (1.5 * distance - 2.5) * distance * distance + 1;
  if (distance < 2) return (((distance - 5) * distance + 8) * distance - 4) * -0.5;
  return 0;
}

/** Converts a fixed-point sum to a byte, clamped to 0 to 255. */
function toByte(sum: number): number {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
