/**
 * Shapes, strides and broadcasting: plain arithmetic, no GPU.
 *
 * @module
 */

/** The size of each axis. `[]` is a scalar. */
export type Shape = readonly number[];

/** How many elements a tensor of `shape` has. */
export function numel(shape: Shape): number {
  return shape.reduce((count, size) => count * size, 1);
}

/**
 * Checks that a tensor can have this shape.
 *
 * @throws {RangeError} If a size is no integer from 0 on.
 */
export function checkShape(shape: Shape): void {
  if (shape.every((size) => Number.isSafeInteger(size) && size >= 0)) return;
  throw new RangeError(
    `Cannot make a tensor of shape [${shape}]: sizes are integers from 0 on`,
  );
}

/** Elements to step along each axis of a row-major tensor of `shape`. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  for (let axis = shape.length - 1, step = 1; axis >= 0; step *= shape[axis--]) {
    strides[axis] = step;
  }
  return strides;
}

/** Whether `strides` walk a tensor of `shape` in row-major order without gaps. */
export function isContiguous(shape: Shape, strides: Shape): boolean {
  const wanted = contiguousStrides(shape);
  return shape.every((size, axis) => size === 1 || strides[axis] === wanted[axis]);
}

/** Whether two shapes are the same. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

/**
 * Turns an axis counted from the end into one counted from the start, for a tensor of `rank` axes.
 */
export function resolveAxis(axis: number, rank: number): number {
  const resolved = axis < 0 ? axis + rank : axis;
  if (!Number.isInteger(axis) || resolved < 0 || resolved >= rank) {
    throw new RangeError(`Cannot take axis ${axis} of a tensor with ${rank} axes`);
  }
  return resolved;
}

/**
 * The shape that tensors of shapes `a` and `b` broadcast to.
 *
 * @throws {RangeError} If two sizes of an axis differ and neither is 1.
 */
export function broadcast(a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const x = a[axis - rank + a.length] ?? 1;
    const y = b[axis - rank + b.length] ?? 1;
    if (x !== y && x !== 1 && y !== 1) {
      throw new RangeError(`Cannot broadcast [${a}] with [${b}]: axis ${axis} is ${x} and ${y}`);
    }
    return x === 1 ? y : x;
  });
}

/**
 * The strides that read a tensor of `shape` and `strides` as one of shape `to`: 0 along the axes
 * where its elements repeat.
 */
export function broadcastStrides(shape: Shape, strides: Shape, to: Shape): number[] {
  const lead = to.length - shape.length;
  return to.map((size, axis) => {
    const local = axis - lead;
    return local < 0 || (shape[local] === 1 && size !== 1) ? 0 : strides[local];
  });
}

/**
 * Merges neighbouring axes that all operands walk as one, and drops axes of size 1, so that kernels
 * compute fewer indices: `[32, 197, 768]` with a bias `[768]` becomes `[6304, 768]`.
 */
export function collapse(
  shape: Shape,
  operands: readonly Shape[],
): { shape: number[]; strides: number[][] } {
  const sizes: number[] = [];
  const strides: number[][] = operands.map(() => []);
  for (const [axis, size] of shape.entries()) {
    if (size === 1) continue;
    const last = sizes.length - 1;
    const merges = last >= 0 &&
      operands.every((steps, k) => strides[k][last] === steps[axis] * size);
    if (merges) sizes[last] *= size;
    else sizes.push(size);
    const at = sizes.length - 1;
    operands.forEach((steps, k) => strides[k][at] = steps[axis]);
  }
  return { shape: sizes, strides };
}
