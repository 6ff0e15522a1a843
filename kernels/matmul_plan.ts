/**
 * Which kernel a matrix product is made by: its tile, by the GPU and by the product's shape.
 *
 * @module
 */

import { gpu, lanes } from "../tensor/device.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { MAX_STEPS } from "./kernel.ts";
import { type EpilogueCode, type Layout, type MatmulTile, sharedBytes } from "./matmul_tile.ts";
import { pinnedTile, type TileSize, variant } from "./variant.ts";

/** The sizes of a product. */
export interface Extent {
  /** Rows of the result. */
  readonly m: number;
  /** Columns of the result. */
  readonly n: number;
  /** The inner axis. */
  readonly k: number;
  /** How many products. */
  readonly batches: number;
}

/** Rows and columns of an invocation's tile, and the invocations of a workgroup along each. */
type TileShape = Pick<MatmulTile, "rows" | "cols" | "across" | "down">;

/** What runs for a product. */
export interface DispatchPlan {
  /** What its kernel is made for. */
  readonly tile: MatmulTile;
  /** Into how many chunks the inner axis is cut, each of which has a result. */
  readonly chunks: number;
  /** How many fours of the inner axis a chunk has. */
  readonly chunk: number;
}

/** Decides which kernel makes a product, and into how many chunks its inner axis is cut. */
export function dispatchPlan(
  a: Tensor,
  c: Tensor,
  extent: Extent,
  epilogue: EpilogueCode,
): DispatchPlan {
  const { m, n, k } = extent;
  const fours = Math.ceil(k / 4);
  const shape = tileShape(extent);
  const isPlain = epilogue.expression === "x" && epilogue.saved === null &&
    !epilogue.lowRank;
  const wanted = isPlain ? wantedChunks(extent, shape) : 1;
  // Chunks begin where workgroup memory is filled anew.
  const chunk = Math.max(1, Math.ceil(fours / wanted / 4) * 4);
  if (chunk > MAX_STEPS) {
    throw new RangeError(
      `Cannot matmul [${a.shape}] with [${c.shape}]: at most ${
        4 * MAX_STEPS
      } are summed in one pass`,
    );
  }
  const tile: MatmulTile = {
    ...shape,
    variant: variant(),
    a: layoutOf(a, -1, -2, k, m),
    c: layoutOf(c, -2, -1, k, n),
    halves: c.dtype === "f16",
    ragged: k % 4 !== 0,
    quads: n % 4 === 0,
    epilogue,
  };
  return { tile, chunk, chunks: Math.max(1, Math.ceil(fours / chunk)) };
}

function layoutOf(x: Tensor, inner: number, outer: number, k: number, size: number): Layout {
  const liesAlong = (axis: number) =>
    x.strides.at(axis) === 1 &&
    [x.offset, ...x.strides.toSpliced(x.strides.length + axis, 1)].every((step) => step % 4 === 0);
  if (k % 4 === 0 && liesAlong(inner)) return "inner";
  return size % 4 === 0 && liesAlong(outer) ? "outer" : "any";
}

/** Results with at most so many rows, or columns, have other tiles. */
const THIN = 16;

/** Multiplications from which on a larger tile earns the time that it takes to compile. */
const WORK: Readonly<Record<TileSize, number>> = { small: 0, medium: 2 ** 24 + 1, large: 2 ** 29 };

/** Tiles of a software GPU. */
const SOFTWARE_TILES: Readonly<
  Record<"perLane" | "subgroup", Record<TileSize, readonly [rows: number, cols: number]>>
> = {
  perLane: { small: [4, 4], medium: [8, 8], large: [16, 8] },
  subgroup: { small: [8, 4], medium: [16, 4], large: [24, 8] },
};

const fours = (count: number) => 4 * Math.ceil(count / 4);

function tileShape({ m, n, k, batches }: Extent): TileShape {
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
  const [rows, cols] = SOFTWARE_TILES[kind][size];
  return { rows: Math.min(rows, Math.max(4, fours(m))), cols, across: width, down: 1 };
}

/**
 * Tiles of a GPU: 8 × 8 an invocation, in workgroups of 256 where there are enough of them to keep
 * it busy.
 */
const WORKGROUP_TILES: Readonly<Record<TileSize, TileShape>> = {
  small: { rows: 4, cols: 4, across: 8, down: 8 },
  medium: { rows: 8, cols: 8, across: 8, down: 8 },
  large: { rows: 8, cols: 8, across: 16, down: 16 },
};
const BUSY = 512;

function workgroupShape(m: number, n: number, batches: number): TileShape {
  const pinned = pinnedTile();
  if (!pinned && m <= THIN) return { rows: 4, cols: 4, across: 16, down: 4 };
  if (!pinned && n <= THIN) return { rows: 4, cols: 4, across: 4, down: 16 };
  const isBusy = batches * Math.ceil(m / 128) * Math.ceil(n / 128) >= BUSY;
  const size = pinned ?? (m <= 32 || n <= 32 ? "small" : isBusy ? "large" : "medium");
  const { rows, down, cols, across } = WORKGROUP_TILES[size];
  const bytes = sharedBytes(rows * down / 4) + sharedBytes(cols * across / 4);
  return WORKGROUP_TILES[bytes <= gpu().limits.maxComputeWorkgroupStorageSize ? size : "medium"];
}

/**
 * Fewer workgroups than this leave a GPU idle, and chunks of the inner axis shorter than this are
 * not worth their sum.
 */
const [FEW_GROUPS, LEAST_CHUNK] = [256, 256];

/** Into how many chunks along the inner axis a product is best cut. */
function wantedChunks(
  { m, n, k, batches }: Extent,
  { rows, cols, across, down }: TileShape,
): number {
  const least = Math.max(1, Math.ceil(k / 4 / MAX_STEPS));
  if (variant() !== "workgroup") return least;
  const groups = batches * Math.ceil(m / (rows * down)) * Math.ceil(n / (cols * across));
  return Math.max(least, Math.min(Math.floor(k / LEAST_CHUNK), Math.floor(FEW_GROUPS / groups)));
}
