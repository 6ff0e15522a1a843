/**
 * Matrix products.
 *
 * @module
 */

import { gpu, lanes } from "../tensor/device.ts";
import { perEngine } from "../tensor/engine.ts";
import { attribute, count, currentLabel } from "../tensor/measure.ts";
import { broadcast, broadcastStrides, collapse } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { Kernel, type KernelWork, MAX_STEPS, type Sizes, spread } from "./kernel.ts";
import { type EpilogueCode, type Tile, tileSizes, tileWgsl } from "./matmul_tile.ts";
import { operations, pointwise } from "./pointwise.ts";
import { reduceMiddle } from "./reduce.ts";
import { pinnedTile, type TileSize, variant } from "./variant.ts";
import { type Along, stagingBytes } from "./tile.ts";

/** What becomes of a product before it is stored. */
export interface Epilogue {
  /** What is stored: WGSL of `x`, the product, and of the operands by their names; `"x"` by default. */
  readonly expression?: string;
  /** WGSL of `x` and the vectors, whose value is stored in a second result; none by default. */
  readonly saved?: string;
  /** Operands `[n]`, which all rows have in common. */
  readonly vectors?: Readonly<Record<string, Tensor>>;
  /** Operands of the result's shape. */
  readonly matrices?: Readonly<Record<string, Tensor>>;
  /** Numbers, which compile nothing anew when they change. */
  readonly numbers?: Readonly<Record<string, number>>;
  /** A product `[m, r] × [r, n]` of few terms, added to the other before all else. Takes no batch. */
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

/** Which elements dropout lets through (`dropout` in autograd/ops says how it is drawn), and what they are multiplied with. */
export interface Mask {
  /** The last of three words that are hashed. */
  readonly seed: number;
  /** The second of them. */
  readonly stream: number;
  /** Elements whose hash is below this fall. */
  readonly below: number;
  /** What all other elements are multiplied with. */
  readonly gain: number;
  /** Where the elements are a section of a batch: the number of each item in it, an item's elements here and there. */
  readonly items?: { readonly numbers: Tensor; readonly item: number; readonly pitch: number };
}

const kernels = perEngine(() => new Map<string, Kernel>());
const MAX_BATCH_AXES = 3;

/**
 * `a × c` over the last two axes, the leading ones broadcast: `[…, m, k] × […, k, n] → […, m, n]`. `c` may be f16.
 *
 * @throws {RangeError} If the inner sizes differ, or the leading axes do not broadcast.
 */
export function multiply(a: Tensor, c: Tensor): Tensor {
  return multiplyThen(a, c, {})[0];
}

/**
 * As {@linkcode multiply}, with what is done to the product before it is stored; gives the result, and what is saved
 * beside it. Matrices and vectors lie row-major from the start of their buffers.
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
  const dispatch = dispatchOf(a, c, { m, n, k, batches }, code);
  const { tile, chunks } = dispatch;
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
      ...[a, c, ...Object.values(vectors), ...Object.values(matrices)],
      ...(lowRank ? [lowRank.a, lowRank.c] : []),
      ...(mask?.items ? [mask.items.numbers] : []),
    ],
    saved ? [out, saved] : [out],
    {
      ...{ m, n, k, chunks, tiles_m, tiles_n, groups, batches },
      chunk: dispatch.chunk,
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
    attribute(lowRank.label ?? currentLabel(), () => count("low-rank product in matmul", work, 0));
  }
  return [
    chunks > 1 ? reduceMiddle(out, 1, chunks, out.size / chunks, "sum").view(shape) : out,
    saved,
  ];
}

function codeOf(
  { expression = "x", saved, vectors = {}, matrices = {}, numbers = {}, lowRank, mask }: Epilogue,
): EpilogueCode {
  return {
    expression,
    saved: saved ?? null,
    vectors: Object.keys(vectors),
    matrices: Object.keys(matrices),
    numbers: Object.keys(numbers),
    lowRank: lowRank !== undefined,
    masked: mask?.over ?? null,
    items: mask?.items !== undefined,
  };
}

function lowRankSizes(lowRank: Epilogue["lowRank"]): Sizes {
  if (!lowRank) return {};
  const { a, c } = lowRank;
  return {
    rank: a.shape[1],
    low_a_row: a.strides[0],
    low_a_col: a.strides[1],
    low_c_row: c.strides[1],
    low_c_col: c.strides[0],
  };
}

function maskSizes(mask: Epilogue["mask"]): Sizes {
  if (!mask) return {};
  const { seed, stream, below, gain, items } = mask;
  return { seed, stream, below, gain, item: items?.item ?? 1, pitch: items?.pitch ?? 1 };
}

interface Extent {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly batches: number;
}

/** Rows and columns of an invocation's tile, and the invocations of a workgroup along each. */
type Shape = Pick<Tile, "rows" | "cols" | "across" | "down">;

/** Which kernel makes a product, in how many chunks along k, and how many fours of k a chunk has. */
function dispatchOf(
  a: Tensor,
  c: Tensor,
  extent: Extent,
  epilogue: EpilogueCode,
): { tile: Tile; chunks: number; chunk: number } {
  const { m, n, k } = extent;
  const fours = Math.ceil(k / 4);
  const shape = shapeOf(extent);
  const summed = epilogue.expression === "x" && epilogue.saved === null && !epilogue.lowRank;
  const wanted = summed ? partsOf(extent, shape) : 1;
  // Parts begin where workgroup memory is filled anew.
  const chunk = Math.max(1, Math.ceil(fours / wanted / 4) * 4);
  if (chunk > MAX_STEPS) {
    throw new RangeError(
      `Cannot matmul [${a.shape}] with [${c.shape}]: at most ${
        4 * MAX_STEPS
      } are summed in one pass`,
    );
  }
  const tile: Tile = {
    ...shape,
    variant: variant(),
    a: alongOf(a, -1, -2, k, m),
    c: alongOf(c, -2, -1, k, n),
    halves: c.dtype === "f16",
    ragged: k % 4 !== 0,
    quads: n % 4 === 0,
    epilogue,
  };
  return { tile, chunk, chunks: Math.max(1, Math.ceil(fours / chunk)) };
}

function alongOf(x: Tensor, inner: number, outer: number, k: number, size: number): Along {
  const along = (axis: number) =>
    x.strides.at(axis) === 1 &&
    [x.offset, ...x.strides.toSpliced(x.strides.length + axis, 1)].every((step) => step % 4 === 0);
  if (k % 4 === 0 && along(inner)) return "inner";
  return size % 4 === 0 && along(outer) ? "outer" : "any";
}

/** Results with at most so many rows, or columns, have other tiles. */
const THIN = 16;

/** Multiplications from which on a larger tile earns the time that it takes to compile. */
const WORK: Readonly<Record<TileSize, number>> = { small: 0, medium: 2 ** 24 + 1, large: 2 ** 29 };

const APART: Readonly<
  Record<"perLane" | "subgroup", Record<TileSize, readonly [rows: number, cols: number]>>
> = {
  perLane: { small: [4, 4], medium: [8, 8], large: [16, 8] },
  subgroup: { small: [8, 4], medium: [16, 4], large: [24, 8] },
};

const fours = (count: number) => 4 * Math.ceil(count / 4);

function shapeOf({ m, n, k, batches }: Extent): Shape {
  const kind = variant();
  if (kind === "workgroup") return workgroupShape(m, n, batches);
  const width = kind === "subgroup" ? lanes() : 8;
  if (n <= THIN && m >= 4 * n) {
    const cols = Math.max(4, fours(n));
    return { rows: cols === 4 ? 8 : 4, cols, across: 1, down: width };
  }
  const work = m * n * k * batches;
  const size = pinnedTile() ??
    (work < WORK.medium ? "small" : work < WORK.large ? "medium" : "large");
  const [rows, cols] = APART[kind][size];
  return { rows: Math.min(rows, Math.max(4, fours(m))), cols, across: width, down: 1 };
}

/** Tiles of a GPU: 8 × 8 an invocation, in workgroups of 256 where there are enough of them to keep it busy. */
const TOGETHER: Readonly<Record<TileSize, Shape>> = {
  small: { rows: 4, cols: 4, across: 8, down: 8 },
  medium: { rows: 8, cols: 8, across: 8, down: 8 },
  large: { rows: 8, cols: 8, across: 16, down: 16 },
};
const BUSY = 512;

function workgroupShape(m: number, n: number, batches: number): Shape {
  const pinned = pinnedTile();
  if (!pinned && m <= THIN) return { rows: 4, cols: 4, across: 16, down: 4 };
  if (!pinned && n <= THIN) return { rows: 4, cols: 4, across: 4, down: 16 };
  const isBusy = batches * Math.ceil(m / 128) * Math.ceil(n / 128) >= BUSY;
  const size = pinned ?? (m <= 32 || n <= 32 ? "small" : isBusy ? "large" : "medium");
  const { rows, down, cols, across } = TOGETHER[size];
  const bytes = stagingBytes(rows * down / 4) + stagingBytes(cols * across / 4);
  return TOGETHER[bytes <= gpu().limits.maxComputeWorkgroupStorageSize ? size : "medium"];
}

/** Fewer workgroups than this leave a GPU idle, and chunks along k shorter than this are not worth their sum. */
const [FEW_GROUPS, LEAST_PART] = [256, 256];

/** Into how many chunks along k a product is cut. */
function partsOf({ m, n, k, batches }: Extent, { rows, cols, across, down }: Shape): number {
  const least = Math.max(1, Math.ceil(k / 4 / MAX_STEPS));
  if (variant() !== "workgroup") return least;
  const groups = batches * Math.ceil(m / (rows * down)) * Math.ceil(n / (cols * across));
  return Math.max(least, Math.min(Math.floor(k / LEAST_PART), Math.floor(FEW_GROUPS / groups)));
}

/** Operations for an element of a mask: the product, the selection, the hash of its index, the comparison. */
const DROPOUT = 4;

/** What a kernel counts as, but for its low-rank product and the mask of that. */
function workOf({ epilogue: { expression, saved, masked } }: Tile): KernelWork {
  const each = operations(expression) + (saved === null ? 0 : operations(saved));
  const drawn = ({ m, n, k }: Sizes) => masked === "a" ? m * k : masked === "c" ? k * n : 0;
  return {
    // A multiplication and an addition for each element of the inner axis; of chunks, the last addition is the sum's.
    flops: (sizes) => {
      const { m, n, k, batches, chunks } = sizes;
      return m * n * (2 * k - (chunks > 1 ? chunks : 0) + each) * batches + DROPOUT * drawn(sizes);
    },
  };
}

function kernelOf(tile: Tile): Kernel {
  const key = JSON.stringify(tile);
  let kernel = kernels().get(key);
  if (!kernel) {
    kernel = new Kernel(nameOf(tile), tileWgsl(tile), tileSizes(tile.epilogue), workOf(tile));
    kernels().set(key, kernel);
  }
  return kernel;
}

/** What profiles and errors call a kernel: its tile, how its operands lie, and what else it does. */
function nameOf({ rows, cols, across, down, a, c, halves, epilogue }: Tile): string {
  const { expression, lowRank, masked } = epilogue;
  return [
    `matmul ${rows * down}x${cols * across}, a ${a}, c ${c}${halves ? " f16" : ""}`,
    ...(lowRank ? ["low rank"] : []),
    ...(masked ? [`dropout of ${masked}`] : []),
    ...(expression === "x" ? [] : [expression]),
  ].join(", ");
}
