/**
 * Matrix products.
 *
 * @module
 */

import { broadcast, broadcastStrides, collapse } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { Kernel, spread } from "./kernel.ts";
import wgsl from "./matmul.wgsl" with { type: "text" };
import { pointwise, pointwiseInto } from "./pointwise.ts";

const product = new Kernel("matmul.wgsl", wgsl);
const TILE_ROWS = 32;
const TILE_COLS = 64;
const MAX_BATCH_AXES = 3;

/**
 * `a × b` over the last two axes, the leading ones broadcast: `[…, m, k] × […, k, n] → […, m, n]`.
 *
 * @throws {RangeError} If the inner sizes differ, or the leading axes do not broadcast.
 */
export function multiply(a: Tensor, b: Tensor): Tensor {
  const [m, k] = a.shape.slice(-2);
  const [inner, n] = b.shape.slice(-2);
  if (a.shape.length < 2 || b.shape.length < 2 || k !== inner) {
    const what = a.shape.length < 2 || b.shape.length < 2
      ? "both need two axes"
      : `inner sizes are ${k} and ${inner}`;
    throw new RangeError(`Cannot matmul [${a.shape}] with [${b.shape}]: ${what}`);
  }
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const out = Tensor.empty([...batch, m, n]);
  if (out.size === 0) return out;
  if (k === 0) {
    pointwiseInto(out, "0.0", {});
    return out;
  }
  const strides = [a, b].map((x) =>
    broadcastStrides(x.shape.slice(0, -2), x.strides.slice(0, -2), batch)
  );
  const axes = collapse(batch, strides);
  if (axes.shape.length > MAX_BATCH_AXES) {
    // More batch axes than the kernel counts: row-major copies have one.
    out.drop();
    const copies = [a, b].map((x) => pointwise("x", { x }, [...batch, ...x.shape.slice(-2)]));
    return multiply(copies[0], copies[1]);
  }
  const lead = MAX_BATCH_AXES - axes.shape.length;
  const step = (operand: number, axis: number) => axes.strides[operand][axis - lead] ?? 0;
  const [tiles_m, tiles_n] = [Math.ceil(m / TILE_ROWS), Math.ceil(n / TILE_COLS)];
  const groups = batch.reduce((count, size) => count * size, tiles_m * tiles_n);
  product.run([a, b], [out], {
    m,
    n,
    k,
    tiles_m,
    tiles_n,
    groups,
    batch1: axes.shape[1 - lead] ?? 1,
    batch2: axes.shape[2 - lead] ?? 1,
    a_offset: a.offset,
    a_batch0: step(0, 0),
    a_batch1: step(0, 1),
    a_batch2: step(0, 2),
    a_row: a.strides.at(-2)!,
    a_col: a.strides.at(-1)!,
    c_offset: b.offset,
    c_batch0: step(1, 0),
    c_batch1: step(1, 1),
    c_batch2: step(1, 2),
    c_row: b.strides.at(-2)!,
    c_col: b.strides.at(-1)!,
  }, spread(groups));
  return out;
}
