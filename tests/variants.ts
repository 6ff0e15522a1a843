/**
 * The variants of kernels, forced one by one.
 *
 * @module
 */

import { type KernelChoice, pinKernels, TILE_SIZES, VARIANTS } from "../kernels/variant.ts";
import { lanes } from "../tensor/device.ts";

/** Pinned kernels, and their name in tests. */
export interface PinnedKernels {
  readonly name: string;
  readonly kernels: KernelChoice;
}

/** Every variant, with the tiles that the rules choose. */
export const EACH_VARIANT: readonly PinnedKernels[] = VARIANTS.map((variant) => ({
  name: variant,
  kernels: { variant },
}));

/** Every variant with every tile: these differ in products only. */
export const EACH_TILE: readonly PinnedKernels[] = VARIANTS.flatMap((variant) =>
  TILE_SIZES.map((tile) => ({ name: `${variant}, ${tile} tiles`, kernels: { variant, tile } }))
);

/**
 * Runs `body` with a variant's kernels. Where the GPU has no subgroups of a fixed size, it prints
 * that it skips them.
 */
export async function withVariant(
  { name, kernels }: PinnedKernels,
  body: () => void | Promise<void>,
): Promise<void> {
  if (kernels.variant === "subgroup" && lanes() === 0) {
    console.log(`${name}: skipped, the GPU has no subgroups of a fixed size`);
    return;
  }
  pinKernels(kernels);
  try {
    await body();
  } finally {
    pinKernels();
  }
}
