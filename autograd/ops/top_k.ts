/**
 * The largest elements and where they are. These ops pass no gradient on.
 *
 * @module
 */

import { Kernel, MAX_STEPS, spread } from "../../kernels/kernel.ts";
import wgsl from "../../kernels/top_k.wgsl" with { type: "text" };
import { scope } from "../../tensor/scope.ts";
import { numel, resolveAxis } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { contiguous, reshape, transpose } from "./view.ts";

const kernel = new Kernel("top_k.wgsl", wgsl, {
  inputs: { x: "u32" },
  outputs: { values: "u32", indices: "i32" },
  sizes: { rows: "u32", cols: "u32", k: "u32" },
  constants: { SMALLEST: "bool", FLOAT: "bool", SIGNED: "bool" },
  // A comparison for each element and each of the k results.
  flops: ({ rows, cols, k }) => rows * cols * k,
});

/** Columns that the kernel compares in one loop step. */
const COLUMNS_AT_ONCE = 8;

/**
 * The `k` largest elements along `axis`, in descending order, and their indices (i32). Of equal
 * elements the first comes first.
 *
 * @throws {RangeError} If `k` is not from 1 to the axis's size, or if `k` times that size is above
 * about 480,000.
 */
export function topK(x: Tensor, k: number, axis = -1): { values: Tensor; indices: Tensor } {
  return select(x, k, axis, false);
}

/** The index of the largest element along `axis` (i32), the first of equal ones. */
export function argmax(x: Tensor, axis = -1): Tensor {
  return indexOf(x, axis, false);
}

/** The index of the smallest element along `axis` (i32), the first of equal ones. */
export function argmin(x: Tensor, axis = -1): Tensor {
  return indexOf(x, axis, true);
}

function indexOf(x: Tensor, axis: number, smallest: boolean): Tensor {
  const at = resolveAxis(axis, x.shape.length);
  return scope(() => reshape(select(x, 1, axis, smallest).indices, x.shape.toSpliced(at, 1)));
}

function select(x: Tensor, k: number, axis: number, smallest: boolean) {
  const at = resolveAxis(axis, x.shape.length);
  const cols = x.shape[at];
  if (!(Number.isInteger(k) && k >= 1 && k <= cols)) {
    throw new RangeError(
      `Cannot take the top ${k} along axis ${axis} of [${x.shape}]: it has ${cols} elements`,
    );
  }
  // Ending a search takes two more steps.
  const steps = k * (Math.ceil(cols / COLUMNS_AT_ONCE) + 2);
  if (steps > MAX_STEPS) {
    throw new RangeError(
      `Cannot take the top ${k} along axis ${axis} of [${x.shape}]: ` +
        `that is ${steps} steps for one invocation, at most ${MAX_STEPS} are possible`,
    );
  }
  return scope(() => {
    const moved = contiguous(transpose(x, at, -1));
    const shape = moved.shape.with(-1, k);
    const values = Tensor.empty(shape, x.dtype);
    const indices = Tensor.empty(shape, "i32");
    const rows = numel(shape.slice(0, -1));
    kernel.run([moved], [values, indices], { rows, cols, k }, spread(Math.ceil(rows / 64)), {
      SMALLEST: smallest ? 1 : 0,
      FLOAT: x.dtype === "f32" ? 1 : 0,
      SIGNED: x.dtype === "i32" ? 1 : 0,
    });
    return { values: transpose(values, at, -1), indices: transpose(indices, at, -1) };
  });
}
