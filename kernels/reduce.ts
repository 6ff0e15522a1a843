/**
 * Sums and extremes over one axis of three.
 *
 * @module
 */

import { Tensor } from "../tensor/tensor.ts";
import { Kernel, spread } from "./kernel.ts";
import narrowWgsl from "./reduce.wgsl" with { type: "text" };
import wideWgsl from "./reduce_wide.wgsl" with { type: "text" };

const narrow = new Kernel("reduce.wgsl", narrowWgsl);
const wide = new Kernel("reduce_wide.wgsl", wideWgsl);
const KINDS = { sum: 0, max: 1, min: 2 } as const;

/** What a reduction makes of several values. */
export type Reduction = keyof typeof KINDS;

/** Rows longer than this, and fewer than `MANY_ROWS` of them, get a workgroup each. */
const LONG_ROW = 1024;
const MANY_ROWS = 1024;

/** Reduces the middle axis of a contiguous `x` seen as `[outer, count, inner]`: `[outer, inner]`, flat. */
export function reduceMiddle(
  x: Tensor,
  outer: number,
  count: number,
  inner: number,
  kind: Reduction,
): Tensor {
  const outputs = outer * inner;
  const y = Tensor.empty([outputs]);
  const KIND = KINDS[kind];
  if (inner === 1 && count > LONG_ROW && outputs < MANY_ROWS) {
    wide.run([x], [y], { count }, [outputs], { KIND });
  } else {
    narrow.run([x], [y], { outputs, count, inner }, spread(Math.ceil(outputs / 64)), { KIND });
  }
  return y;
}
