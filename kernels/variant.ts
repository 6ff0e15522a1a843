/**
 * How the invocations of a kernel work together: decided once for a GPU, or pinned.
 *
 * @module
 */

import { isSoftware, lanes } from "../tensor/device.ts";
import { perEngine } from "../tensor/engine.ts";

/**
 * The variants of a kernel. Where a kernel has no such variant, the one before it runs.
 *
 * - `perLane`: each invocation by itself. On a software GPU an invocation is a lane of a vector
 *   register, workgroup memory is memory like any other, and a barrier costs as much as a load.
 * - `subgroup`: the lanes of a register load for each other, which such a GPU does as fast as
 *   it multiplies.
 * - `workgroup`: invocations share through workgroup memory, which suits a GPU.
 */
export const VARIANTS = ["perLane", "subgroup", "workgroup"] as const;
/** One of {@linkcode VARIANTS}. */
export type Variant = typeof VARIANTS[number];

/** Sizes of the tiles that products are made in: what suits small, middling and large products. */
export const TILE_SIZES = ["small", "medium", "large"] as const;
/** One of {@linkcode TILE_SIZES}. */
export type TileSize = typeof TILE_SIZES[number];

/** What rules decide otherwise: the variant by the GPU, a product's tile by its shape. */
export interface KernelChoice {
  /** The variant of every kernel. */
  readonly variant?: Variant;
  /** The tile of every product; where a GPU has no memory for large ones they are medium. */
  readonly tile?: TileSize;
}

const pinned = perEngine((): { kernels: KernelChoice } => ({ kernels: {} }));

/**
 * Pins which kernels run, until the next call; without an argument the rules decide again. The same
 * kernels gives the same numbers on a GPU.
 *
 * @throws {RangeError} If the variant is `subgroup` and the GPU's subgroups have no fixed size.
 */
export function pinKernels(kernels: KernelChoice = {}): void {
  if (kernels.variant === "subgroup" && lanes() === 0) {
    throw new RangeError(
      'Cannot pin the variant "subgroup": the GPU has no subgroups of a fixed size, ' +
        'pin "perLane"',
    );
  }
  pinned().kernels = kernels;
}

/** The variant of kernels on this GPU. */
export function variant(): Variant {
  return pinned().kernels.variant ??
    (!isSoftware() ? "workgroup" : lanes() > 0 ? "subgroup" : "perLane");
}

/** The tile that is pinned, if one is. */
export function pinnedTile(): TileSize | undefined {
  return pinned().kernels.tile;
}
