/**
 * What may be said of kernels: which of them run, and that they are compiled before they do.
 *
 * @module
 */

export { compileAhead } from "./warm_up.ts";
export {
  type KernelChoice,
  pinKernels,
  type Style,
  STYLES,
  TILE_SIZES,
  type TileSize,
} from "./style.ts";
