/**
 * Sums and extremes over the middle one of three axes.
 *
 * @module
 */

import { numel } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { KernelWork } from "./declaration.ts";
import columnsWgsl from "./reduce_columns.wgsl" with { type: "text" };
import rowsWgsl from "./reduce_rows.wgsl" with { type: "text" };
import { ColumnsKernel, RowsKernel } from "./rows.ts";
import { variant } from "./variant.ts";

/** An addition, or a comparison, for each element. */
const WORK: KernelWork = { flops: (_, [x]) => numel((x as Tensor).shape) };
const constants = { KIND: "u32" } as const;
const chunkSizes = { count: "u32", chunk: "u32", chunks: "u32" } as const;
const rowsKernel = new RowsKernel("reduce_rows.wgsl", rowsWgsl, {
  inputs: { x: "E" },
  outputs: { y: "f32" },
  sizes: { rows: "u32", cols: "u32", ...chunkSizes },
  constants,
  ...WORK,
}, { writes: false });
const columnsKernel = new ColumnsKernel("reduce_columns.wgsl", columnsWgsl, {
  inputs: { x: "E" },
  outputs: { y: "E" },
  sizes: chunkSizes,
  constants,
  ...WORK,
});
/** The values of KIND. */
const KINDS = { sum: 0, max: 1, min: 2 } as const;

/** What a reduction makes of several values. */
export type Reduction = keyof typeof KINDS;

/**
 * Longer axes are reduced in chunks first: more lanes have work, and none of them takes too many
 * steps.
 */
const LONGEST_CHUNK = 2048;

/** Invocations that keep a GPU busy, and the shortest chunk of a column that is worth one. */
const [BUSY, LEAST_CHUNK] = [2 ** 14, 32];

/** Elements of the middle axis that an invocation takes, where it goes down `columns` of them. */
export function chunkOf(count: number, columns: number): number {
  if (variant() !== "workgroup") return Math.min(count, LONGEST_CHUNK);
  const chunks = Math.ceil(BUSY / columns);
  return Math.min(count, LONGEST_CHUNK, Math.max(LEAST_CHUNK, Math.ceil(count / chunks)));
}

/**
 * Reduces the middle axis of a contiguous `x` seen as `[outer, count, inner]`: `[outer, inner]`,
 * flat.
 */
export function reduceMiddle(
  x: Tensor,
  outer: number,
  count: number,
  inner: number,
  kind: Reduction,
): Tensor {
  const KIND = KINDS[kind];
  const longest = inner === 1 ? Math.min(count, LONGEST_CHUNK) : chunkOf(count, outer * inner);
  const chunk = Math.max(1, longest);
  const chunks = Math.max(1, Math.ceil(count / chunk));
  const y = Tensor.empty([outer * chunks * inner]);
  if (inner === 1) {
    const sizes = { rows: outer * chunks, cols: chunk, count, chunk, chunks };
    rowsKernel.run([x], [y], sizes, { KIND, ALIGNED: Number(count % 4 === 0) });
  } else {
    columnsKernel.run([x], [y], inner, outer * chunks, { count, chunk, chunks }, { KIND });
  }
  return chunks === 1 ? y : reduceMiddle(y, outer, chunks, inner, kind);
}
