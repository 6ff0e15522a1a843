/**
 * Cumulative sums.
 *
 * @module
 */

import wgsl from "../../kernels/cumsum.wgsl" with { type: "text" };
import { Kernel, spread } from "../../kernels/kernel.ts";
import { pointwise } from "../../kernels/pointwise.ts";
import { scope } from "../../tensor/scope.ts";
import { resolveAxis } from "../../tensor/shape.ts";
import { checkFloats, Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { contiguous, detach, pad, reshape, slice, transpose } from "./view.ts";

const kernel = new Kernel("cumsum.wgsl", wgsl, {
  inputs: { x: "f32" },
  outputs: { y: "f32" },
  sizes: { rows: "u32", cols: "u32" },
  constants: { REVERSE: "bool" },
  flops: ({ rows, cols }) => rows * cols,
});

/**
 * Elements that one invocation sums. A longer row is cut into chunks of this size. Each chunk is
 * summed by itself; then the total of the chunks before it is added.
 */
const CHUNK = 256;

/**
 * Cumulative sums of `x` along `axis`, the last by default: of each element and all before it.
 * Agrees with `torch.cumsum`.
 */
export function cumsum(x: Tensor, axis = -1): Tensor {
  checkFloats("cumsum", x);
  const at = resolveAxis(axis, x.shape.length);
  const run = (x: Tensor, reverse: boolean) =>
    scope(() => transpose(scan(contiguous(transpose(detach(x), at, -1)), reverse), at, -1));
  return record(run(x, false), [wrt(x, [], (g) => run(g, true))]);
}

/** The cumulative sums along the last axis; if `reverse`, from its end. */
function scan(x: Tensor, reverse: boolean): Tensor {
  const { shape } = x;
  const cols = shape.at(-1)!;
  if (cols <= CHUNK) {
    const y = Tensor.empty(shape);
    const rows = cols && x.size / cols;
    const grid = spread(Math.ceil(rows / 64));
    kernel.run([x], [y], { rows, cols }, grid, { REVERSE: Number(reverse) });
    return y;
  }
  return scope(() => {
    const [rows, chunks] = [x.size / cols, Math.ceil(cols / CHUNK)];
    const filled = pad(reshape(x, [rows, cols]), [[0, 0], [0, chunks * CHUNK - cols]]);
    const within = scan(reshape(filled, [rows, chunks, CHUNK]), reverse);
    const last = reverse ? 0 : CHUNK - 1;
    const totals = scan(reshape(slice(within, 2, last, last + 1), [rows, chunks]), reverse);
    const before = reverse
      ? slice(pad(totals, [[0, 0], [0, 1]]), 1, 1)
      : slice(pad(totals, [[0, 0], [1, 0]]), 1, 0, chunks);
    const sums = { within, before: reshape(before, [rows, chunks, 1]) };
    const y = pointwise("within + before", sums, [rows, chunks, CHUNK]);
    return reshape(slice(reshape(y, [rows, chunks * CHUNK]), 1, 0, cols), shape);
  });
}
