/**
 * Sums, means, extremes and variances over axes.
 *
 * @module
 */

import { pointwise } from "../../kernels/pointwise.ts";
import { reduceMiddle, type Reduction } from "../../kernels/reduce.ts";
import { scope } from "../../tensor/scope.ts";
import { numel, resolveAxis, sameShape, type Shape } from "../../tensor/shape.ts";
import { checkFloats, type Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { mulScalar, square, sub } from "./pointwise.ts";
import { contiguous, expand, permute, reshape } from "./view.ts";

/** Which axes a reduction goes over, and whether they stay as axes of size 1. */
export interface ReduceOptions {
  /** One axis, or several; all of them by default. */
  readonly axis?: number | readonly number[];
  /** Whether the reduced axes stay, with size 1. */
  readonly keepAxes?: boolean;
}

/**
 * The axes to reduce, in ascending order; the result's shape with these axes at size 1; the shape
 * of the result itself; and how many elements make one element of the result.
 */
function reducedAxes(shape: Shape, { axis, keepAxes = false }: ReduceOptions) {
  const named = axis === undefined ? shape.map((_, i) => i) : [axis].flat() as number[];
  const axes = named.map((a) => resolveAxis(a, shape.length)).sort((a, b) => a - b);
  if (new Set(axes).size < axes.length) {
    throw new RangeError(`Cannot reduce axes [${named}]: one is named twice`);
  }
  const withAxes = shape.map((size, i) => axes.includes(i) ? 1 : size);
  const result = keepAxes ? withAxes : shape.filter((_, i) => !axes.includes(i));
  return { axes, withAxes, result, count: axes.reduce((n, i) => n * shape[i], 1) };
}

/**
 * Reduces `axes` without recording it. Neighbouring axes of a contiguous tensor need no copy; other
 * axes need one that moves them to the end.
 */
function reduceAxes(x: Tensor, axes: readonly number[], kind: Reduction, result: Shape): Tensor {
  return scope(() => {
    const { shape } = x;
    const count = axes.reduce((n, i) => n * shape[i], 1);
    if (count === 0 && kind !== "sum") {
      throw new RangeError(`Cannot take the ${kind} of no elements: the shape is [${shape}]`);
    }
    const first = axes[0] ?? shape.length;
    const neighbours = axes.every((axis, i) => axis === first + i);
    if (neighbours) {
      const outer = numel(shape.slice(0, first));
      const inner = numel(shape.slice(first + axes.length));
      return reduceMiddle(contiguous(x), outer, count, inner, kind).view(result);
    }
    const rest = shape.map((_, i) => i).filter((i) => !axes.includes(i));
    const moved = contiguous(permute(x, [...rest, ...axes]));
    return reduceMiddle(moved, numel(shape) / count, count, 1, kind).view(result);
  });
}

/** Sum over axes, all by default. */
export function sum(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkFloats("sum", x);
  const { axes, withAxes, result } = reducedAxes(x.shape, options);
  const { shape } = x;
  return record(reduceAxes(x, axes, "sum", result), [
    wrt(x, [], (g) => scope(() => expand(reshape(g, withAxes), shape))),
  ]);
}

/** Mean over axes, all by default. */
export function mean(x: Tensor, options: ReduceOptions = {}): Tensor {
  const { count } = reducedAxes(x.shape, options);
  return scope(() => mulScalar(sum(x, options), 1 / count));
}

/**
 * Largest element over axes, all by default. Equally large ones share the gradient, as in
 * `torch.amax`.
 *
 * @throws {RangeError} If there are no elements.
 */
export function max(x: Tensor, options: ReduceOptions = {}): Tensor {
  return extreme(x, "max", options);
}

/**
 * Smallest element over axes, all by default. Equally small ones share the gradient, as in
 * `torch.amin`.
 *
 * @throws {RangeError} If there are no elements.
 */
export function min(x: Tensor, options: ReduceOptions = {}): Tensor {
  return extreme(x, "min", options);
}

function extreme(x: Tensor, kind: "max" | "min", options: ReduceOptions): Tensor {
  checkFloats(kind, x);
  const { axes, withAxes, result } = reducedAxes(x.shape, options);
  const { shape } = x;
  const y = reduceAxes(x, axes, kind, result);
  return record(y, [
    wrt(x, [x, y], (g) =>
      scope(() => {
        const equal = pointwise("select(0.0, 1.0, x == y)", { x, y: reshape(y, withAxes) }, shape);
        const ties = reduceAxes(equal, axes, "sum", withAxes);
        return pointwise("equal * g / ties", { equal, ties, g: reshape(g, withAxes) }, shape);
      })),
  ]);
}

/**
 * Variance over axes, all by default: of the sample (divided by n - 1) or, if `unbiased` is false,
 * of all elements (divided by n).
 */
export function variance(
  x: Tensor,
  { unbiased = true, ...options }: ReduceOptions & { readonly unbiased?: boolean } = {},
): Tensor {
  const { count } = reducedAxes(x.shape, options);
  const centre = (x: Tensor) => sub(x, mean(x, { ...options, keepAxes: true }));
  return scope(() => {
    // Centred twice: the mean of large elements is rounded, and the second pass takes off what the
    // first one left.
    const centred = centre(centre(x));
    return mulScalar(sum(square(centred), options), 1 / (count - (unbiased ? 1 : 0)));
  });
}

/** Euclidean norm over axes, all by default. Its gradient at 0 is 0, as in PyTorch. */
export function norm(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkFloats("norm", x);
  const { axes, withAxes, result } = reducedAxes(x.shape, options);
  const { shape } = x;
  const y = scope(() => {
    const squares = pointwise("x * x", { x }, shape);
    return pointwise("sqrt(x)", { x: reduceAxes(squares, axes, "sum", result) }, result);
  });
  return record(y, [
    wrt(x, [x, y], (g) =>
      scope(() => {
        const [gradient, length] = [reshape(g, withAxes), reshape(y, withAxes)];
        const direction = "select(g * (x / y), 0.0, y == 0.0)";
        return pointwise(direction, { g: gradient, x, y: length }, shape);
      })),
  ]);
}

/**
 * Sums `x` over the axes that broadcasting `shape` to `x.shape` added or repeated: the gradient of
 * a broadcast.
 */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.shape.length - shape.length;
  const axes = x.shape.map((_, i) => i)
    .filter((i) => i < lead || (shape[i - lead] === 1 && x.shape[i] !== 1));
  return reduceAxes(x, axes, "sum", shape);
}
