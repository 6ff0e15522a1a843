/**
 * Dropout: with a mask that the kernel draws, or with a given one.
 *
 * @module
 */

import { pointwise } from "../../kernels/pointwise.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";

/** Names one mask: the same seed and stream give the same mask, on every adapter. */
export interface DropoutKey {
  /** A whole number from 0 to 2³² - 1. */
  readonly seed: number;
  /** Which of the seed's masks, from 0 to 2³² - 1. */
  readonly stream: number;
}

/**
 * Sets each element to 0 with probability `p` and divides the others by `1 - p`. Element `i` falls if the hash of
 * (`i`, stream, seed) is below `p · 2³²` (`hash3` in tensor/random.ts), so the backward pass draws the mask again and
 * nothing is kept.
 *
 * @throws {RangeError} If `p` is not from 0 to below 1.
 */
export function dropout(x: Tensor, p: number, { seed, stream }: DropoutKey): Tensor {
  if (!(p >= 0 && p < 1)) {
    throw new RangeError(`Cannot drop with probability ${p}: it must be from 0 to below 1`);
  }
  if (p === 0) return x;
  const key = {
    below: BigInt(Math.round(p * 2 ** 32)),
    stream: BigInt(stream),
    seed: BigInt(seed),
    c: 1 / (1 - p),
  };
  const mask = "select(0.0, c, hash3_(vec3u(i, stream, seed)).x >= below)";
  return record(pointwise(`x * ${mask}`, { x, ...key }, x.shape), [
    wrt(x, [], (g) => pointwise(`x * ${mask}`, { x: g, ...key }, g.shape)),
  ]);
}

/** Dropout with a given mask (u32; 1 keeps): `x · mask / (1 - p)`. */
export function maskedDropout(x: Tensor, mask: Tensor, p: number): Tensor {
  const apply = (x: Tensor) =>
    pointwise("select(0.0, x * c, m != 0u)", { x, m: mask, c: 1 / (1 - p) }, x.shape);
  return record(apply(x), [wrt(x, [mask], apply)]);
}
