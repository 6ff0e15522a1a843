/**
 * Matrix products.
 *
 * @module
 */

import { isSoftware } from "../tensor/device.ts";
import { broadcast, broadcastStrides, collapse, type Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { Kernel, MAX_STEPS, type Sizes, spread } from "./kernel.ts";
import { type Layout, type Tile, tileWgsl } from "./matmul_tile.ts";
import { pointwise } from "./pointwise.ts";

/** A multiplication and an addition for each element of the inner axis. */
const WORK = {
  flops: ({ m, n, k, groups, tiles_m, tiles_n }: Sizes) =>
    2 * m * n * k * (groups / (tiles_m * tiles_n)),
};
const kernels = new Map<string, Kernel>();
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
  const variant = choose(a, b, m, n, k);
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

/** A kernel that multiplies, the rows and columns that a workgroup of it makes, and its constants. */
interface Variant {
  readonly kernel: Kernel;
  readonly rows: number;
  readonly cols: number;
  readonly constants: { readonly LANES_X: number; readonly LANES_Y: number };
}

/** Multiplications from which on the large tile earns the half second that it takes to compile. */
const MANY = 2 ** 22;

function choose(a: Tensor, b: Tensor, m: number, n: number, k: number): Variant {
  // Eight lanes, the width of a software adapter, lie along the columns, or along the rows of a narrow product. Such an
  // adapter gains nothing from more; a GPU wants whole waves.
  const across = isSoftware() ? 1 : 8;
  const [LANES_X, LANES_Y] = n > 8 ? [8, across] : [1, 8 * across];
  const layout = layoutOf(a, b, m, n, k);
  const [rows, cols] = tileSize(layout, m, n, k);
  return {
    kernel: kernelOf({ layout, rows, cols, halves: b.dtype === "f16" }),
    rows: rows * LANES_Y,
    cols: cols * LANES_X,
    constants: { LANES_X, LANES_Y },
  };
}

/** Rows and columns of an invocation's tile. A GPU has no registers for the large one. */
function tileSize(layout: Layout, m: number, n: number, k: number): [rows: number, cols: number] {
  if (layout === "any strides") {
    return n <= 2 ? [8, 2] : n <= 4 ? [8, 4] : m <= 2 ? [2, 8] : [4, 8];
  }
  if (isSoftware() && m >= 16 && n >= 64 && m * n * k >= MANY) return [16, 16];
  return n <= 4 ? [8, 4] : [8, 8];
}

function layoutOf(a: Tensor, b: Tensor, m: number, n: number, k: number): Layout {
  const along = (x: Tensor, axis: number) =>
    x.strides.at(axis) === 1 &&
    [x.offset, ...x.strides.toSpliced(x.strides.length + axis, 1)].every((step) => step % 4 === 0);
  if (n % 4 === 0 && along(b, -1)) {
    if (k % 4 === 0 && along(a, -1)) return "a along k, c along n";
    if (m % 4 === 0 && along(a, -2)) return "a along m, c along n";
  }
  const alongK = k % 4 === 0 && along(a, -1) && along(b, -2);
  return alongK ? "a along k, c along k" : "any strides";
}

function kernelOf(tile: Tile): Kernel {
  const { layout, rows, cols, halves } = tile;
  const name = `matmul ${rows}x${cols}, ${layout}${halves ? " (f16)" : ""}`;
  let kernel = kernels.get(name);
  if (!kernel) kernels.set(name, kernel = new Kernel(name, tileWgsl(tile), WORK));
  return kernel;
}
