/**
 * Convolutions of images, as matrix products over windows.
 *
 * @module
 */

import foldWgsl from "../../kernels/fold.wgsl" with { type: "text" };
import { Kernel, spread } from "../../kernels/kernel.ts";
import { scope } from "../../tensor/scope.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { matmul } from "./matmul.ts";
import { add } from "./pointwise.ts";
import { contiguous, pad, permute, reshape, slice, transpose } from "./view.ts";

const fold = new Kernel("fold.wgsl", foldWgsl, {
  inputs: { g: "f32" },
  outputs: { dx: "f32" },
  sizes: {
    ...{ count: "u32", height: "u32", width: "u32", rows: "u32", cols: "u32" },
    ...{ kernel_rows: "u32", kernel_cols: "u32" },
    ...{ down: "u32", across: "u32", down_step: "u32", across_step: "u32" },
  },
  // One addition for each element of each window.
  flops: ({ count, height, width, rows, cols, kernel_rows, kernel_cols }) =>
    count / (height * width) * rows * cols * kernel_rows * kernel_cols,
});

/** How a convolution's kernel moves over an image. A single number holds for both directions. */
export interface Conv2dOptions {
  /** Pixels from one window to the next, down and across; 1 by default. */
  readonly stride?: number | Pair;
  /** Rows of zeros above and below the image, and columns left and right; 0 by default. */
  readonly padding?: number | Pair;
  /** Pixels from one element of a window to the next; 1 by default. */
  readonly dilation?: number | Pair;
  /**
   * The number of groups that the channels are split into, each convolved by itself; 1 by default.
   */
  readonly groups?: number;
}

/** A number for each direction: down, then across. */
export type Pair = readonly [down: number, across: number];

/**
 * Convolution (strictly, correlation) of `x` `[B, C, H, W]` with `weight` `[O, C / groups, P, Q]`,
 * plus `bias` `[O]`: `[B, O, rows, cols]`. Agrees with `torch.nn.functional.conv2d`. The windows
 * are copied into a matrix, which is multiplied with the weight. If the stride is the kernel's
 * size, {@linkcode patchEmbedding} does the same more simply.
 *
 * @throws {RangeError} If the channels do not fit, the kernel is larger than the padded image, or
 * an option is out of range.
 */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  { stride = 1, padding = 0, dilation = 1, groups = 1 }: Conv2dOptions = {},
): Tensor {
  const [batch, channels] = x.shape;
  const [out, depth, ...kernel] = weight.shape;
  const options = { stride: pair(stride), padding: pair(padding), dilation: pair(dilation) };
  const what = `Cannot take the conv2d of [${x.shape}] with [${weight.shape}]`;
  if (x.shape.length !== 4 || weight.shape.length !== 4) {
    throw new RangeError(`${what}: both need four axes`);
  }
  for (const [name, values] of Object.entries({ ...options, groups: [groups] })) {
    const least = name === "padding" ? 0 : 1;
    if (values.every((value) => Number.isInteger(value) && value >= least)) continue;
    throw new RangeError(`${what}: ${name} is ${values}, it must be integers from ${least} on`);
  }
  if (channels !== depth * groups || out % groups !== 0) {
    throw new RangeError(
      `${what}: ${groups} groups of ${depth} channels are not ${channels}, ` +
        `or do not share ${out} evenly`,
    );
  }
  return scope(() => {
    const [down, across] = options.padding;
    const padded = down + across > 0 ? pad(x, [[0, 0], [0, 0], [down, down], [across, across]]) : x;
    const seen = windows(padded, kernel as unknown as Pair, options.stride, options.dilation);
    const [rows, cols] = seen.shape.slice(2, 4);
    const inner = depth * kernel[0] * kernel[1];
    const split = reshape(seen, [batch, groups, depth, rows, cols, ...kernel]);
    // [groups, B · rows · cols, inner] × [groups, inner, O / groups]
    const flat = reshape(permute(split, [1, 0, 3, 4, 2, 5, 6]), [groups, -1, inner]);
    const y = matmul(flat, transpose(reshape(weight, [groups, out / groups, inner])));
    const apart = permute(reshape(y, [groups, batch, rows, cols, out / groups]), [1, 0, 4, 2, 3]);
    const joined = reshape(apart, [batch, out, rows, cols]);
    return bias ? add(joined, reshape(bias, [out, 1, 1])) : joined;
  });
}

function pair(value: number | Pair): Pair {
  return typeof value === "number" ? [value, value] : value;
}

/**
 * The window under the kernel at each of its positions: `[B, C, H, W]` to
 * `[B, C, rows, cols, P, Q]`. A view, in which windows may overlap.
 */
function windows(x: Tensor, [p, q]: Pair, [down, across]: Pair, dilation: Pair): Tensor {
  const [batch, channels, height, width] = x.shape;
  const rows = Math.floor((height - dilation[0] * (p - 1) - 1) / down) + 1;
  const cols = Math.floor((width - dilation[1] * (q - 1) - 1) / across) + 1;
  if (!(rows > 0 && cols > 0 && p > 0 && q > 0)) {
    throw new RangeError(
      `Cannot take the conv2d of [${x.shape}] with [${p},${q}]: it fits the image nowhere`,
    );
  }
  const [image, channel, line, pixel] = x.strides;
  const strides = [line * down, pixel * across, line * dilation[0], pixel * dilation[1]];
  const shape = [batch, channels, rows, cols, p, q];
  return record(x.view(shape, [image, channel, ...strides]), [
    wrt(x, [], (g) =>
      scope(() => {
        const dx = Tensor.empty([batch, channels, height, width]);
        const sizes = {
          ...{ count: dx.size, height, width, rows, cols, kernel_rows: p, kernel_cols: q },
          ...{ down, across, down_step: dilation[0], across_step: dilation[1] },
        };
        fold.run([contiguous(g)], [dx], sizes, spread(Math.ceil(dx.size / 64)));
        return dx;
      })),
  ]);
}

/**
 * The patches of each image, multiplied with `weight`: `[B, 3, H, W]` with `[C, 3, P, P]` to
 * `[B, patches, C]`, row by row. This is a convolution whose stride is its kernel's size. Pixels
 * that fill no patch are ignored.
 *
 * @throws {RangeError} If the channels differ, or the patches are not square.
 */
export function patchEmbedding(images: Tensor, weight: Tensor): Tensor {
  const [batch, channels, height, width] = images.shape;
  const [embedding, depth, patch, across] = weight.shape;
  if (images.shape.length !== 4 || weight.shape.length !== 4) {
    throw new RangeError(
      `Cannot embed patches of [${images.shape}] by [${weight.shape}]: both need four axes`,
    );
  }
  if (channels !== depth || patch !== across || patch === 0) {
    throw new RangeError(
      `Cannot embed patches of [${images.shape}] by [${weight.shape}]: ` +
        `channels are ${channels} and ${depth}, a patch is ${patch} by ${across}`,
    );
  }
  const [rows, cols] = [Math.floor(height / patch), Math.floor(width / patch)];
  return scope(() => {
    const cut = slice(slice(images, 2, 0, rows * patch), 3, 0, cols * patch);
    const split = reshape(cut, [batch, channels, rows, patch, cols, patch]);
    const patches = permute(split, [0, 2, 4, 1, 3, 5]); // [B, rows, cols, 3, P, P]
    const flat = reshape(patches, [batch, rows * cols, channels * patch * patch]);
    return matmul(flat, transpose(reshape(weight, [embedding, channels * patch * patch])));
  });
}
