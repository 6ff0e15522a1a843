/**
 * Random numbers from a counter: the n-th number of a stream is a hash of n and the stream's key.
 * Integer arithmetic only, so that a seed gives the same numbers on every platform, for ever.
 *
 * @module
 */

/**
 * Hashes three u32 to three u32, whose upper bits are better than the lowest. The hash is pcg3d of
 * Jarzynski and Olano, "Hash Functions for GPU Rendering", Journal of Computer Graphics Techniques
 * 9(3), 2020.
 *
 * @example
 * ```ts
 * import { hash3 } from "./random.ts";
 *
 * hash3(0, 0, 0); // [2611992518, 2833812075, 1058359340]
 * ```
 */
export function hash3(x: number, y: number, z: number): [number, number, number] {
  x = Math.imul(x, 1664525) + 1013904223 | 0;
  y = Math.imul(y, 1664525) + 1013904223 | 0;
  z = Math.imul(z, 1664525) + 1013904223 | 0;
  x = x + Math.imul(y, z) | 0;
  y = y + Math.imul(z, x) | 0;
  z = z + Math.imul(x, y) | 0;
  x ^= x >>> 16;
  y ^= y >>> 16;
  z ^= z >>> 16;
  x = x + Math.imul(y, z) | 0;
  y = y + Math.imul(z, x) | 0;
  z = z + Math.imul(x, y) | 0;
  return [x >>> 0, y >>> 0, z >>> 0];
}

/**
 * Marks the end of each word of a key. It is no UTF-16 code unit, so that the words "ab", "c" and
 * "a", "bc" give different keys.
 */
const END_OF_WORD = 0x10000;

/** The key of a stream, by which its numbers differ from those of other streams. */
type Key = readonly [number, number];

function extend(key: Key, word: number | string): Key {
  let [a, b] = key;
  const text = String(word);
  for (let i = 0; i < text.length; i++) [a, b] = hash3(a, b, text.charCodeAt(i));
  [a, b] = hash3(a, b, END_OF_WORD);
  return [a, b];
}

/**
 * A stream of random numbers. Streams of different names, or of different seeds, are independent.
 *
 * @example
 * ```ts
 * import { Random } from "./random.ts";
 *
 * const crops = new Random(1, "crops");
 * crops.uniform(); // in [0, 1), the same on every machine
 * crops.fork(7).shuffle(["a", "b", "c"]); // does not depend on what `crops` has drawn
 * ```
 */
export class Random {
  #key: Key;
  #count = 0;

  /**
   * A stream for `seed`, as a number or in words; with a `stream`, the same as
   * `new Random(seed).fork(stream)`.
   */
  constructor(seed: number | string, stream?: number | string) {
    this.#key = extend([0, 0], seed);
    if (stream !== undefined) this.#key = extend(this.#key, stream);
  }

  /**
   * Another stream, whose numbers depend on this one's seed and on `name`, not on what has been
   * drawn.
   */
  fork(name: number | string): Random {
    const forked = new Random("");
    forked.#key = extend(this.#key, name);
    return forked;
  }

  /** The next number: a u32. */
  next(): number {
    const [x, y] = hash3(this.#count++, ...this.#key);
    // Only the upper halves are used: the lowest bits of each word follow those of the counter.
    return (x & 0xffff0000 | y >>> 16) >>> 0;
  }

  /** A number in [0, 1), a multiple of 2⁻²⁴: exact in float32. */
  uniform(): number {
    return (this.next() >>> 8) / 2 ** 24;
  }

  /**
   * An integer from 0 to `count` - 1, each equally likely.
   *
   * @throws {RangeError} If `count` is not an integer from 1 to 2³².
   */
  below(count: number): number {
    if (!Number.isInteger(count) || count < 1 || count > 2 ** 32) {
      throw new RangeError(`Cannot draw an integer below ${count}: it must be from 1 to 2³²`);
    }
    const fair = 2 ** 32 - 2 ** 32 % count;
    let drawn: number;
    do drawn = this.next(); while (drawn >= fair);
    return drawn % count;
  }

  /**
   * A number from the normal distribution with mean 0 and variance 1, by the ratio of uniforms
   * (Kinderman and Monahan, ACM Transactions on Mathematical Software 3(3), 1977). JavaScript
   * engines may round the logarithm differently, but it only decides which numbers are accepted.
   */
  normal(): number {
    for (;;) {
      const u = (this.next() + 1) / 2 ** 32;
      const x = Math.sqrt(8 / Math.E) * ((this.next() + 0.5) / 2 ** 32 - 0.5) / u;
      if (x * x <= -4 * Math.log(u)) return x;
    }
  }

  /** A copy of `values` in random order. */
  shuffle<T>(values: readonly T[]): T[] {
    const shuffled = [...values];
    for (let last = shuffled.length - 1; last > 0; last--) {
      const other = this.below(last + 1);
      [shuffled[last], shuffled[other]] = [shuffled[other], shuffled[last]];
    }
    return shuffled;
  }
}
