/**
 * Vectors of length 1.
 *
 * @module
 */

import { scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { clamp, div } from "./pointwise.ts";
import { norm } from "./reduce.ts";

/**
 * `x` divided by its Euclidean norm along `axis`, or by `epsilon` where that is larger (as
 * `torch.nn.functional.normalize`); CLIP divides by the norm alone, which is the default.
 */
export function l2Normalize(x: Tensor, axis = -1, epsilon = 0): Tensor {
  return scope(() => {
    const length = norm(x, { axis, keepAxes: true });
    return div(x, epsilon > 0 ? clamp(length, epsilon, Infinity) : length);
  });
}
