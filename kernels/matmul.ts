/**
 * Matrix products.
 *
 * @module
 */

import { perEngine } from "../tensor/engine.ts";
import { attribute, count, currentLabel } from "../tensor/measure.ts";
import { broadcast, broadcastStrides, collapse } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { cacheKey, type KernelWork, type Sizes } from "./declaration.ts";
import { Kernel, spread } from "./kernel.ts";
import { dispatchPlan } from "./matmul_plan.ts";
import {
  type EpilogueCode,
  matmulDeclaration,
  type MatmulTile,
  matmulTileWgsl,
} from "./matmul_tile.ts";
import { operations, pointwise } from "./pointwise.ts";
import { reduceMiddle } from "./reduce.ts";

/** What becomes of a product before it is stored. */
export interface Epilogue {
  /**
   * What is stored: WGSL of `x`, the product, and of the operands by their names; `"x"` by default.
   */
  readonly expression?: string;
  /** WGSL of `x` and the vectors, whose value is stored in a second result; none by default. */
  readonly saved?: string;
  /** Operands `[n]`, which all rows have in common. */
  readonly vectors?: Readonly<Record<string, Tensor>>;
  /** Operands of the result's shape. */
  readonly matrices?: Readonly<Record<string, Tensor>>;
  /** Numbers, which compile nothing anew when they change. */
  readonly numbers?: Readonly<Record<string, number>>;
  /**
   * A product `[m, r] × [r, n]` of few terms, added to the other before all else. Takes no batch.
   */
  readonly lowRank?: LowRankProduct;
  /** A mask over the elements of a row-major operand, or over the low-rank product. */
  readonly mask?: Mask & { readonly over: "a" | "c" | "lowRank" };
}

/** A product of few terms. */
export interface LowRankProduct {
  /** `[m, r]`. */
  readonly a: Tensor;
  /** `[r, n]`. */
  readonly c: Tensor;
  /** What its work is attributed to; what the other's is by default. */
  readonly label?: string;
}

/**
 * Which elements dropout lets through (`dropout` in autograd/ops says how it is drawn), and what
 * they are multiplied with.
 */
export interface Mask {
  /** The last of three words that are hashed. */
  readonly seed: number;
  /** The second of them. */
  readonly stream: number;
  /** Elements whose hash is below this fall. */
  readonly below: number;
  /** What elements that stay are multiplied with. */
  readonly gain: number;
  /**
   * Where the elements are some items of a larger batch: the number of each item in it, an item's
   * elements here and there.
   */
  readonly items?: { readonly numbers: Tensor; readonly item: number; readonly pitch: number };
}

const kernels = perEngine(() => new Map<string, Kernel>());
const MAX_BATCH_AXES = 3;

/**
 * `a × c` over the last two axes, the leading ones broadcast: `[…, m, k] × […, k, n] → […, m, n]`.
 * `c` may be f16.
 *
 * @throws {RangeError} If the inner sizes differ, or the leading axes do not broadcast.
 */
export function multiply(a: Tensor, c: Tensor): Tensor {
  return multiplyThen(a, c, {})[0];
}

/**
 * As {@linkcode multiply}, with what is done to the product before it is stored; gives the result,
 * and the pre-activation where the epilogue has one. Matrices and vectors lie row-major from the
 * start of their buffers.
 */
export function multiplyThen(
  a: Tensor,
  c: Tensor,
  epilogue: Epilogue,
): [y: Tensor, saved: Tensor | null] {
  const [m, k] = a.shape.slice(-2);
  const [inner, n] = c.shape.slice(-2);
  if (a.shape.length < 2 || c.shape.length < 2 || k !== inner) {
    const what = a.shape.length < 2 || c.shape.length < 2
      ? "both need two axes"
      : `inner sizes are ${k} and ${inner}`;
    throw new RangeError(`Cannot matmul [${a.shape}] with [${c.shape}]: ${what}`);
  }
  const batch = broadcast(a.shape.slice(0, -2), c.shape.slice(0, -2));
  const strides = [a, c].map((x) =>
    broadcastStrides(x.shape.slice(0, -2), x.strides.slice(0, -2), batch)
  );
  const axes = collapse(batch, strides);
  if (axes.shape.length > MAX_BATCH_AXES) {
    // More batch axes than the kernel counts: row-major copies have one.
    const copies = [a, c].map((x) => pointwise("x", { x }, [...batch, ...x.shape.slice(-2)]));
    return multiplyThen(copies[0], copies[1], epilogue);
  }
  const batches = batch.reduce((count, size) => count * size, 1);
  const code = codeOf(epilogue);
  const { tile, chunks, chunk } = dispatchPlan(a, c, { m, n, k, batches }, code);
  const shape = [...batch, m, n];
  const out = Tensor.empty(chunks > 1 ? [chunks, ...shape] : shape);
  const saved = code.saved === null ? null : Tensor.empty(shape);
  const [tiles_m, tiles_n] = [
    Math.ceil(m / (tile.rows * tile.down)),
    Math.ceil(n / (tile.cols * tile.across)),
  ];
  const groups = tiles_m * tiles_n * batches * chunks;
  const lead = MAX_BATCH_AXES - axes.shape.length;
  const { vectors = {}, matrices = {}, lowRank, mask } = epilogue;
  const laid = (operand: 0 | 1, x: Tensor, outer: number, inner: number) => {
    const name = operand === 0 ? "a" : "c";
    const step = (axis: number) => axes.strides[operand][axis - lead] ?? 0;
    return {
      [`${name}_offset`]: x.offset,
      [`${name}_batch0`]: step(0),
      [`${name}_batch1`]: step(1),
      [`${name}_batch2`]: step(2),
      [`${name}_outer`]: x.strides.at(outer)!,
      [`${name}_inner`]: x.strides.at(inner)!,
    };
  };
  kernelOf(tile).run(
    [
      ...[a, c, ...code.vectors.map((name) => vectors[name])],
      ...code.matrices.map((name) => matrices[name]),
      ...(lowRank ? [lowRank.a, lowRank.c] : []),
      ...(mask?.items ? [mask.items.numbers] : []),
    ],
    saved ? [out, saved] : [out],
    {
      ...{ m, n, k, chunk, chunks, tiles_m, tiles_n, groups, batches },
      batch1: axes.shape[1 - lead] ?? 1,
      batch2: axes.shape[2 - lead] ?? 1,
      ...laid(0, a, -2, -1),
      ...laid(1, c, -1, -2),
      ...lowRankSizes(lowRank),
      ...maskSizes(mask),
      ...Object.fromEntries(
        Object.entries(epilogue.numbers ?? {}).map(([name, value]) => [`${name}_value`, value]),
      ),
    },
    spread(groups),
  );
  if (lowRank) {
    const flops = m * n * (2 * lowRank.a.shape[1] + (mask?.over === "lowRank" ? DROPOUT : 0));
    const work = () => ({ flops, bytesRead: 0, bytesWritten: 0 });
    attribute(lowRank.label ?? currentLabel(), () => count("low-rank product of matmul", work, 0));
  }
  const y = chunks > 1 ? reduceMiddle(out, 1, chunks, out.size / chunks, "sum").view(shape) : out;
  return [y, saved];
}

function codeOf(
  { expression = "x", saved, vectors = {}, matrices = {}, numbers = {}, lowRank, mask }: Epilogue,
): EpilogueCode {
  return {
    expression,
    saved: saved ?? null,
    // Sorted: the same epilogue is one kernel, in whatever order its operands are named.
    vectors: Object.keys(vectors).sort(),
    matrices: Object.keys(matrices).sort(),
    numbers: Object.keys(numbers).sort(),
    lowRank: lowRank !== undefined,
    masked: mask?.over ?? null,
    items: mask?.items !== undefined,
  };
}

function lowRankSizes(lowRank: LowRankProduct | undefined): Sizes {
  if (!lowRank) return {};
  const { a, c } = lowRank;
  return {
    rank: a.shape[1],
    low_rank_a_row: a.strides[0],
    low_rank_a_col: a.strides[1],
    low_rank_c_row: c.strides[1],
    low_rank_c_col: c.strides[0],
  };
}

function maskSizes(mask: Epilogue["mask"]): Sizes {
  if (!mask) return {};
  const { seed, stream, below, gain, items } = mask;
  return { seed, stream, below, gain, item: items?.item ?? 1, pitch: items?.pitch ?? 1 };
}

/**
 * Operations for an element of a mask: the product, the selection, the hash of its index, the
 * comparison.
 */
const DROPOUT = 4;

/** What a kernel counts as, but for its low-rank product and the mask of that. */
function workOf({ epilogue: { expression, saved, masked } }: MatmulTile): KernelWork {
  const each = operations(expression) + (saved === null ? 0 : operations(saved));
  const drawn = ({ m, n, k }: Sizes) => masked === "a" ? m * k : masked === "c" ? k * n : 0;
  return {
    // A multiplication and an addition for each element of the inner axis; of a chunk, the last
    // addition is the sum's.
    flops: (sizes) => {
      const { m, n, k, batches, chunks } = sizes;
      return m * n * (2 * k - (chunks > 1 ? chunks : 0) + each) * batches + DROPOUT * drawn(sizes);
    },
  };
}

function kernelOf(tile: MatmulTile): Kernel {
  const key = cacheKey(tile);
  let kernel = kernels().get(key);
  if (!kernel) kernels().set(key, kernel = matmulKernel(tile));
  return kernel;
}

/** The kernel of a tile. */
export function matmulKernel(tile: MatmulTile): Kernel {
  const declaration = { ...matmulDeclaration(tile), ...workOf(tile) };
  return new Kernel(nameOf(tile), matmulTileWgsl(tile), declaration);
}

/**
 * What profiles and errors call a kernel: its tile, how its operands lie, and what else it does.
 */
function nameOf({ rows, cols, across, down, a, c, halves, epilogue }: MatmulTile): string {
  const { expression, lowRank, masked } = epilogue;
  return [
    `matmul ${rows * down}x${cols * across}, a ${a}, c ${c}${halves ? " f16" : ""}`,
    ...(lowRank ? ["low rank"] : []),
    ...(masked ? [`dropout of ${masked}`] : []),
    ...(expression === "x" ? [] : [expression]),
  ].join(", ");
}
