/**
 * What may be said of kernels: which of them run, and that they are compiled before they do.
 *
 * @module
 */

export { compileAhead } from "./warm_up.ts";
export {
  type KernelChoice,
  pinKernels,
  TILE_SIZES,
  type TileSize,
  type Variant,
  VARIANTS,
} from "./variant.ts";
