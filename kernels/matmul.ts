/**
 * Matrix products.
 *
 * @module
 */

import { isSoftware } from "../tensor/device.ts";
import { broadcast, broadcastStrides, collapse, type Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { readingHalves } from "./halves.ts";
import { Kernel, MAX_STEPS, type Sizes, spread } from "./kernel.ts";
import wgsl from "./matmul.wgsl" with { type: "text" };
import vec4Wgsl from "./matmul_vec4.wgsl" with { type: "text" };
import { pointwise } from "./pointwise.ts";

/** A multiplication and an addition for each element of the inner axis. */
const WORK = {
  flops: ({ m, n, k, groups, tiles_m, tiles_n }: Sizes) =>
    2 * m * n * k * (groups / (tiles_m * tiles_n)),
};
/** The kernel of each dtype that the right operand may have. */
const kernels = (name: string, wgsl: string) => ({
  f32: new Kernel(name, wgsl, WORK),
  f16: new Kernel(`${name} (f16)`, readingHalves(wgsl, "c"), WORK),
});
const anyStrides = kernels("matmul.wgsl", wgsl);
const wholeVec4 = kernels("matmul_vec4.wgsl", vec4Wgsl);
const MAX_BATCH_AXES = 3;

/**
 * `a × b` over the last two axes, the leading ones broadcast: `[…, m, k] × […, k, n] → […, m, n]`. `b` may be f16.
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
  if (k === 0) return pointwise("0.0", {}, [...batch, m, n]);
  if (k > MAX_STEPS) return multiplyInParts(a, b, [...batch, m, n]);
  const strides = [a, b].map((x) =>
    broadcastStrides(x.shape.slice(0, -2), x.strides.slice(0, -2), batch)
  );
  const axes = collapse(batch, strides);
  if (axes.shape.length > MAX_BATCH_AXES) {
    // More batch axes than the kernel counts: row-major copies have one.
    const copies = [a, b].map((x) => pointwise("x", { x }, [...batch, ...x.shape.slice(-2)]));
    return multiply(copies[0], copies[1]);
  }
  const out = Tensor.empty([...batch, m, n]);
  if (out.size === 0) return out;
  const lead = MAX_BATCH_AXES - axes.shape.length;
  const step = (operand: number, axis: number) => axes.strides[operand][axis - lead] ?? 0;
  const variant = choose(a, b, n, k);
  const [tiles_m, tiles_n] = [Math.ceil(m / variant.rows), Math.ceil(n / variant.cols)];
  const groups = batch.reduce((count, size) => count * size, tiles_m * tiles_n);
  variant.kernel.run(
    [a, b],
    [out],
    {
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
    },
    spread(groups),
    variant.constants,
  );
  return out;
}

/** The sum of two products, each over a part of the inner axis. */
function multiplyInParts(a: Tensor, b: Tensor, shape: Shape): Tensor {
  const k = b.shape.at(-2)!;
  // Whole vec4s, for the kernel that wants them.
  const half = Math.ceil(k / 8) * 4;
  const part = (x: Tensor, axis: number, from: number, to: number) =>
    x.view(x.shape.with(axis, to - from), x.strides, x.offset + from * x.strides.at(axis)!);
  const [low, high] = [[0, half], [half, k]]
    .map(([from, to]) => multiply(part(a, -1, from, to), part(b, -2, from, to)));
  return pointwise("low + high", { low, high }, shape);
}

/** Which kernel multiplies, the rows and columns that a workgroup of it makes, and its constants. */
function choose(a: Tensor, b: Tensor, n: number, k: number) {
  const along = (x: Tensor, axis: number) =>
    x.strides.at(axis) === 1 &&
    [x.offset, ...x.strides.toSpliced(x.strides.length + axis, 1)].every((step) => step % 4 === 0);
  const cAlongK = along(b, -2);
  // Eight lanes, the width of a software adapter, lie along the columns, or along the rows of a narrow product.
  const [LANES_X, LANES_Y] = n > 8 ? [8, lanesAcross()] : [1, 8 * lanesAcross()];
  const cols = 8 * LANES_X;
  const dtype = b.dtype === "f16" ? "f16" : "f32";
  if (k % 4 === 0 && along(a, -1) && (cAlongK || (n % 4 === 0 && along(b, -1)))) {
    const constants = { C_ALONG_K: cAlongK ? 1 : 0, LANES_X, LANES_Y };
    return { kernel: wholeVec4[dtype], rows: 8 * LANES_Y, cols, constants };
  }
  return { kernel: anyStrides[dtype], rows: 4 * LANES_Y, cols, constants: { LANES_X, LANES_Y } };
}

/** A software adapter runs eight lanes at a time and gains nothing from more; a GPU wants whole waves. */
function lanesAcross(): number {
  return isSoftware() ? 1 : 8;
}
