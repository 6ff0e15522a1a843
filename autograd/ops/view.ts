/**
 * Ops that view the same elements in another order, and ops that join or pad tensors.
 *
 * @module
 */

import { pointwise, pointwiseInto } from "../../kernels/pointwise.ts";
import { scope } from "../../tensor/scope.ts";
import {
  broadcast,
  broadcastStrides,
  numel,
  resolveAxis,
  sameShape,
  type Shape,
} from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { full } from "./create.ts";
import { sumTo } from "./reduce.ts";

/**
 * `x` with its elements row-major from the start of its buffer: `x` itself if they are so already,
 * else a copy. The copy of an f16 tensor is f32.
 */
export function contiguous(x: Tensor): Tensor {
  if (x.contiguous) return x;
  const dtype = x.dtype === "f16" ? "f32" : x.dtype;
  return record(pointwise("x", { x }, x.shape, dtype), [wrt(x, [], (g) => g)]);
}

/**
 * The same elements, row-major, in another shape; one size may be -1 and is worked out. A view
 * where possible.
 *
 * @throws {RangeError} If the shapes do not hold equally many elements.
 */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const known = shape.reduce((count, size) => size === -1 ? count : count * size, 1);
  const sizes = shape.map((size) => size === -1 ? x.size / known : size);
  if (numel(sizes) !== x.size || sizes.some((size) => !Number.isInteger(size) || size < 0)) {
    throw new RangeError(`Cannot reshape [${x.shape}] to [${shape}]: it has ${x.size} elements`);
  }
  const from = x.shape;
  return scope(() => {
    const flat = contiguous(x);
    return record(flat.view(sizes), [wrt(flat, [], (g) => reshape(g, from))]);
  });
}

/** Axes in another order: axis `i` of the result is axis `order[i]` of `x`. A view. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  const axes = order.map((axis) => resolveAxis(axis, x.shape.length));
  if (axes.length !== x.shape.length || new Set(axes).size !== axes.length) {
    throw new RangeError(`Cannot permute [${x.shape}] by [${order}]: each axis must be named once`);
  }
  const inverse = axes.map((_, axis) => axes.indexOf(axis));
  const y = x.view(axes.map((axis) => x.shape[axis]), axes.map((axis) => x.strides[axis]));
  return record(y, [wrt(x, [], (g) => permute(g, inverse))]);
}

/** Two axes swapped, the last two by default. A view. */
export function transpose(x: Tensor, first = -2, second = -1): Tensor {
  const order = x.shape.map((_, axis) => axis);
  const a = resolveAxis(first, order.length);
  const b = resolveAxis(second, order.length);
  [order[a], order[b]] = [b, a];
  return permute(x, order);
}

/**
 * Elements `start`, `start + step`, … below `stop` along `axis`; negative bounds count from the
 * end. A view.
 *
 * @throws {RangeError} If a bound is no integer, or `step` is not a positive integer.
 */
export function slice(x: Tensor, axis: number, start = 0, stop?: number, step = 1): Tensor {
  const at = resolveAxis(axis, x.shape.length);
  const size = x.shape[at];
  if (!Number.isInteger(step) || step < 1) {
    throw new RangeError(
      `Cannot slice [${x.shape}] by steps of ${step}: a step is a positive integer`,
    );
  }
  if (!Number.isInteger(start) || !Number.isInteger(stop ?? size)) {
    throw new RangeError(`Cannot slice [${x.shape}] from ${start} to ${stop}: bounds are integers`);
  }
  const bound = (value: number) => Math.min(size, Math.max(0, value < 0 ? value + size : value));
  const first = bound(start);
  const count = Math.max(0, Math.ceil((bound(stop ?? size) - first) / step));
  const { shape, strides } = x;
  const y = x.view(
    shape.with(at, count),
    strides.with(at, strides[at] * step),
    x.offset + first * strides[at],
  );
  return record(y, [wrt(x, [], (g) =>
    scope(() => {
      const dx = full(shape, 0);
      pointwiseInto(slice(dx, at, first, first + count * step, step), "g", { g });
      return dx;
    }))]);
}

/**
 * `x` repeated along its axes of size 1, and along new leading ones, to `shape`. A view.
 *
 * @throws {RangeError} If `x` does not broadcast to `shape`.
 */
export function expand(x: Tensor, shape: Shape): Tensor {
  const from = x.shape;
  if (!sameShape(broadcast(from, shape), shape)) {
    throw new RangeError(`Cannot expand [${from}] to [${shape}]: it has more elements`);
  }
  const y = x.view(shape, broadcastStrides(from, x.strides, shape));
  return record(y, [wrt(x, [], (g) => sumTo(g, from))]);
}

/** `x` without its axis `axis`, which must be of size 1. */
export function squeeze(x: Tensor, axis: number): Tensor {
  const at = resolveAxis(axis, x.shape.length);
  if (x.shape[at] !== 1) {
    throw new RangeError(`Cannot squeeze axis ${axis} of [${x.shape}]: it is not of size 1`);
  }
  return reshape(x, x.shape.toSpliced(at, 1));
}

/** `x` with a new axis of size 1 at `axis`. */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  return reshape(x, x.shape.toSpliced(resolveAxis(axis, x.shape.length + 1), 0, 1));
}

/**
 * The tensors one after another along `axis`.
 *
 * @throws {RangeError} If they differ in another axis.
 * @throws {TypeError} If they differ in dtype.
 */
export function concat(tensors: readonly Tensor[], axis: number): Tensor {
  const [first] = tensors;
  if (!first) throw new RangeError("Cannot concat no tensors: give at least one");
  const at = resolveAxis(axis, first.shape.length);
  for (const { shape, dtype } of tensors) {
    if (dtype !== first.dtype) {
      throw new TypeError(`Cannot concat ${first.dtype} [${first.shape}] with ${dtype} [${shape}]`);
    }
    const rest = shape.toSpliced(at, 1);
    if (shape.length > at && sameShape(rest, first.shape.toSpliced(at, 1))) continue;
    throw new RangeError(`Cannot concat [${first.shape}] with [${shape}] along axis ${at}`);
  }
  return scope(() => {
    const total = tensors.reduce((sum, { shape }) => sum + shape[at], 0);
    const y = Tensor.empty(first.shape.with(at, total), first.dtype);
    let start = 0;
    const rules = tensors.map((x) => {
      const from = start;
      const to = start += x.shape[at];
      pointwiseInto(slice(y, at, from, to), "x", { x });
      return wrt(x, [], (g) => slice(g, at, from, to));
    });
    return record(y, rules);
  });
}

/**
 * The tensors, all of one shape, one after another along a new axis `axis`.
 *
 * @throws {RangeError} If their shapes differ.
 */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  const [first] = tensors;
  if (!first) throw new RangeError("Cannot stack no tensors: give at least one");
  const at = resolveAxis(axis, first.shape.length + 1);
  for (const { shape } of tensors) {
    if (sameShape(shape, first.shape)) continue;
    throw new RangeError(
      `Cannot stack [${first.shape}] with [${shape}]: they must be of one shape`,
    );
  }
  return scope(() => concat(tensors.map((x) => unsqueeze(x, at)), at));
}

/**
 * `x` with `value` around it: `pads` gives, for each axis, how many elements to add before and
 * after it.
 *
 * @throws {RangeError} If `pads` does not name every axis, or a count is negative.
 */
export function pad(
  x: Tensor,
  pads: readonly (readonly [before: number, after: number])[],
  value = 0,
): Tensor {
  if (
    pads.length !== x.shape.length ||
    !pads.flat().every((count) => Number.isInteger(count) && count >= 0)
  ) {
    throw new RangeError(
      `Cannot pad [${x.shape}] by [${pads.join("; ")}]: give two counts from 0 on for each axis`,
    );
  }
  const inner = (padded: Tensor, shape: Shape) =>
    pads.reduce((cut, [before], axis) => slice(cut, axis, before, before + shape[axis]), padded);
  const { shape } = x;
  return scope(() => {
    const padded = shape.map((size, axis) => size + pads[axis][0] + pads[axis][1]);
    const y = full(padded, value, x.dtype);
    pointwiseInto(inner(y, shape), "x", { x });
    return record(y, [wrt(x, [], (g) => inner(g, shape))]);
  });
}

/** The same elements as a constant: they pass no gradient on to `x`. */
export function detach(x: Tensor): Tensor {
  return x.view(x.shape, x.strides);
}
