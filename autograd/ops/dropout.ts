/**
 * Dropout: with a mask that the kernel draws, or with a given one.
 *
 * @module
 */

import type { Mask } from "../../kernels/matmul.ts";
import { pointwise } from "../../kernels/pointwise.ts";
import { numel, sameShape, type Shape } from "../../tensor/shape.ts";
import { checkFloats, type Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";

/** Names one mask: the same seed and stream give the same mask, on every GPU. */
export interface DropoutKey {
  /** An integer from 0 to 2³² - 1. */
  readonly seed: number;
  /** Which of the seed's masks, from 0 to 2³² - 1. */
  readonly stream: number;
  /**
   * Given if `x` holds some items of a larger batch, along its first axis. `numbers`, u32 `[B]`,
   * are the indices of these items in the batch; `size` is how many elements an item has there. The
   * mask is then the same slice of the batch's mask.
   */
  readonly rows?: { readonly numbers: Tensor; readonly size: number };
}

/**
 * `x` with each element set to 0 with probability `p`, and the rest divided by `1 - p`. Element `i`
 * is dropped if the hash of (`i`, stream, seed) is below `p · 2³²` (`hash3` in tensor/random.ts).
 * The mask is not saved: the backward pass draws it again.
 *
 * @throws {RangeError} If `p` is not from 0 to below 1, or the seed or stream is not as
 * {@linkcode DropoutKey} says.
 */
export function dropout(x: Tensor, p: number, key: DropoutKey): Tensor {
  checkFloats("dropout", x);
  const mask = dropoutMask(p, key, x.shape);
  if (!mask) return x;
  const { seed, stream, below, gain: c, items } = mask;
  const words = { below: BigInt(below), stream: BigInt(stream), seed: BigInt(seed), c };
  const batch = items && {
    row: items.numbers.view([x.shape[0], ...x.shape.slice(1).map(() => 1)]),
    pitch: BigInt(items.pitch),
    size: BigInt(items.item),
  };
  const index = batch ? "row * pitch + i % size" : "i";
  const masked = `x * select(0.0, c, hash3_(vec3u(${index}, stream, seed)).x >= below)`;
  const masking = (x: Tensor) => pointwise(masked, { x, ...batch, ...words }, x.shape);
  return record(masking(x), [wrt(x, batch ? [batch.row] : [], masking)]);
}

/**
 * What a kernel needs to draw the mask of a tensor of `shape`; null if nothing is dropped. Throws
 * as {@linkcode dropout}.
 */
export function dropoutMask(
  p: number,
  { seed, stream, rows }: DropoutKey,
  shape: Shape,
): Mask | null {
  checkProbability(p);
  for (const word of [seed, stream]) {
    if (Number.isInteger(word) && word >= 0 && word < 2 ** 32) continue;
    throw new RangeError(`Cannot draw a mask by ${word}: it must be an integer below 2³²`);
  }
  if (p === 0) return null;
  return {
    seed,
    stream,
    below: Math.min(Math.round(p * 2 ** 32), 2 ** 32 - 1),
    gain: 1 / (1 - p),
    ...(rows &&
      { items: { numbers: rows.numbers, item: numel(shape.slice(1)), pitch: rows.size } }),
  };
}

/**
 * Dropout with a given mask, of the same shape: `x / (1 - p)` where the mask is not 0, else 0.
 *
 * @throws {RangeError} If `p` is not from 0 to below 1, or the shapes differ.
 */
export function maskedDropout(x: Tensor, mask: Tensor, p: number): Tensor {
  checkProbability(p);
  checkFloats("dropout", x);
  if (!sameShape(x.shape, mask.shape)) {
    throw new RangeError(`Cannot drop from [${x.shape}] by a mask of [${mask.shape}]`);
  }
  const apply = (x: Tensor) =>
    pointwise("select(0.0, x * c, bool(m))", { x, m: mask, c: 1 / (1 - p) }, mask.shape);
  return record(apply(x), [wrt(x, [mask], apply)]);
}

function checkProbability(p: number): void {
  if (p >= 0 && p < 1) return;
  throw new RangeError(`Cannot drop with probability ${p}: it must be from 0 to below 1`);
}
