/**
 * Sums and extremes over the middle one of three axes.
 *
 * @module
 */

import { numel } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { Kernel, type KernelWork, spread } from "./kernel.ts";
import narrowWgsl from "./reduce.wgsl" with { type: "text" };
import wideWgsl from "./reduce_wide.wgsl" with { type: "text" };

/** An addition, or a comparison, for each element. */
const WORK: KernelWork = { flops: (_, [x]) => numel((x as Tensor).shape) };
const narrow = new Kernel("reduce.wgsl", narrowWgsl, WORK);
const wide = new Kernel("reduce_wide.wgsl", wideWgsl, WORK);
const KINDS = { sum: 0, max: 1, min: 2 } as const;

/** What a reduction makes of several values. */
export type Reduction = keyof typeof KINDS;

/** Rows longer than this, and fewer than `MANY_ROWS` of them, get a workgroup each. */
const LONG_ROW = 1024;
const MANY_ROWS = 1024;

/** Longer axes are reduced in parts first: more lanes have work, and none of them takes too many steps. */
const PART = 4096;

/** Reduces the middle axis of a contiguous `x` seen as `[outer, count, inner]`: `[outer, inner]`, flat. */
export function reduceMiddle(
  x: Tensor,
  outer: number,
  count: number,
  inner: number,
  kind: Reduction,
): Tensor {
  const KIND = KINDS[kind];
  if (inner === 1 && count > LONG_ROW && outer < MANY_ROWS) {
    const y = Tensor.empty([outer]);
    wide.run([x], [y], { count }, [outer], { KIND });
    return y;
  }
  const part = Math.min(count, PART);
  const parts = Math.max(1, Math.ceil(count / PART));
  const outputs = outer * parts * inner;
  const y = Tensor.empty([outputs]);
  const sizes = { outputs, count, inner, part, parts };
  narrow.run([x], [y], sizes, spread(Math.ceil(outputs / 64)), { KIND });
  return parts === 1 ? y : reduceMiddle(y, outer, parts, inner, kind);
}
