/**
 * The variants of kernels, forced one by one.
 *
 * @module
 */

import { type KernelChoice, pinKernels, TILE_SIZES, VARIANTS } from "../kernels/variant.ts";
import { lanes } from "../tensor/device.ts";

/** A choice of kernels, and what tests call it. */
export interface Variant {
  readonly name: string;
  readonly choice: KernelChoice;
}

/** Every variant, with the tiles that the rules choose. */
export const EACH_VARIANT: readonly Variant[] = VARIANTS.map((variant) => ({
  name: variant,
  choice: { variant },
}));

/** Every variant with every tile: these differ in products only. */
export const EACH_TILE: readonly Variant[] = VARIANTS.flatMap((variant) =>
  TILE_SIZES.map((tile) => ({ name: `${variant}, ${tile} tiles`, choice: { variant, tile } }))
);

/** Runs `body` with a variant's kernels; says so, and does not, where the adapter has no subgroups of a fixed size. */
export async function withVariant(
  { name, choice }: Variant,
  body: () => void | Promise<void>,
): Promise<void> {
  if (choice.variant === "subgroup" && lanes() === 0) {
    console.log(`${name}: skipped, the adapter has no subgroups of a fixed size`);
    return;
  }
  pinKernels(choice);
  try {
    await body();
  } finally {
    pinKernels();
  }
}
