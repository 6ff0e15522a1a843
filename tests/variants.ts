/**
 * The variants of kernels, forced one by one.
 *
 * @module
 */

import { type KernelChoice, pinKernels, STYLES, TILE_SIZES } from "../kernels/style.ts";
import { lanes } from "../tensor/device.ts";

/** A choice of kernels, and what tests call it. */
export interface Variant {
  readonly name: string;
  readonly choice: KernelChoice;
}

/** Every style, with the tiles that the rules choose. */
export const EACH_STYLE: readonly Variant[] = STYLES.map((style) => ({
  name: style,
  choice: { style },
}));

/** Every style with every tile: these differ in products only. */
export const EACH_TILE: readonly Variant[] = STYLES.flatMap((style) =>
  TILE_SIZES.map((tile) => ({ name: `${style}, ${tile} tiles`, choice: { style, tile } }))
);

/** Runs `body` with a variant's kernels; says so, and does not, where the adapter has no subgroups of a fixed size. */
export async function withVariant(
  { name, choice }: Variant,
  body: () => void | Promise<void>,
): Promise<void> {
  if (choice.style === "subgroup" && lanes() === 0) {
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
