/**
 * How the invocations of a kernel work together: decided once an adapter, or pinned.
 *
 * @module
 */

import { isSoftware, lanes } from "../tensor/device.ts";
import { perEngine } from "../tensor/engine.ts";

/**
 * The ways. A kernel that a way has nothing to offer for takes the way before it.
 *
 * - `perLane`: each invocation by itself. On a software adapter an invocation is a lane of a vector register, workgroup
 *   memory is memory like any other, and a barrier costs as much as a load.
 * - `subgroup`: the lanes of a register load for each other, which such an adapter does as fast as it multiplies.
 * - `workgroup`: invocations share through workgroup memory. What a GPU wants.
 */
export const VARIANTS = ["perLane", "subgroup", "workgroup"] as const;
/** One of {@linkcode VARIANTS}. */
export type Variant = typeof VARIANTS[number];

/** Sizes of the tiles that products are made in: what suits small, middling and large products. */
export const TILE_SIZES = ["small", "medium", "large"] as const;
/** One of {@linkcode TILE_SIZES}. */
export type TileSize = typeof TILE_SIZES[number];

/** What is decided otherwise by rule: the variant by the adapter, a product's tile by its shape. */
export interface KernelChoice {
  /** The variant of every kernel. */
  readonly variant?: Variant;
  /** The tile of every product; where an adapter has no memory for large ones they are medium. */
  readonly tile?: TileSize;
}

const pinned = perEngine((): { pins: KernelChoice } => ({ pins: {} }));

/**
 * Pins which kernels run, until the next call; without an argument the rules decide again. The same pins gives the
 * same numbers on an adapter.
 *
 * @throws {RangeError} If the variant is `subgroup` and the adapter's subgroups have no fixed size.
 */
export function pinKernels(pins: KernelChoice = {}): void {
  if (pins.variant === "subgroup" && lanes() === 0) {
    throw new RangeError(
      'Cannot pin the variant "subgroup": the adapter has no subgroups of a fixed size, pin "perLane"',
    );
  }
  pinned().pins = pins;
}

/** The variant of kernels on this adapter. */
export function variant(): Variant {
  return pinned().pins.variant ??
    (!isSoftware() ? "workgroup" : lanes() > 0 ? "subgroup" : "perLane");
}

/** The tile that is pinned, if one is. */
export function pinnedTile(): TileSize | undefined {
  return pinned().pins.tile;
}
