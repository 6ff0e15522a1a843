/**
 * The oracle of ops: a slow, plain twin in 64 bits, and its central differences.
 *
 * @module
 */

import { assertEquals, fail } from "@std/assert";
import { addScalar } from "../autograd/ops/pointwise.ts";
import { vjp } from "../autograd/tape.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { tensor } from "../tensor/create.ts";
import { memory } from "../tensor/memory.ts";
import { Random } from "../tensor/random.ts";
import { keep, scope } from "../tensor/scope.ts";
import { contiguousStrides, numel, type Shape } from "../tensor/shape.ts";
import type { Data, Dtype, Tensor } from "../tensor/tensor.ts";

/** An n-dimensional array of doubles on the host. */
export class Grid {
  readonly shape: Shape;
  readonly data: Float64Array;
  readonly #strides: Shape;

  constructor(shape: Shape, data: Float64Array) {
    this.shape = shape;
    this.data = data;
    this.#strides = contiguousStrides(shape);
  }

  /** A grid whose elements `value` gives for their indices. */
  static of(shape: Shape, value: (...index: number[]) => number): Grid {
    const strides = contiguousStrides(shape);
    const data = new Float64Array(numel(shape));
    for (let i = 0; i < data.length; i++) {
      data[i] = value(...shape.map((size, axis) => Math.floor(i / strides[axis]) % size));
    }
    return new Grid(shape, data);
  }

  /** The element at an index. Axes of size 1 are repeated; leading axes may be missing. */
  at(...index: number[]): number {
    const lead = index.length - this.shape.length;
    let at = 0;
    for (let axis = 0; axis < this.shape.length; axis++) {
      if (this.shape[axis] !== 1) at += index[lead + axis] * this.#strides[axis];
    }
    return this.data[at];
  }
}

/** An operand: its shape, how its values are drawn (normal ones by default), and its dtype. */
export interface Operand {
  readonly shape: Shape;
  readonly values?: (random: Random, i: number) => number;
  readonly dtype?: Dtype;
}

/** An op, its operands, and its twin. */
export interface Row {
  readonly op: (...operands: Tensor[]) => Tensor;
  readonly operands: readonly (Operand | Shape)[];
  readonly reference: (...operands: Grid[]) => Grid;
  /** False for an op without gradients. */
  readonly differentiable?: boolean;
  /**
   * The largest error, relative to 1 + the expected value, and why it is not the usual 1e-5 forward
   * and 1e-4 backward.
   */
  readonly tolerance?: {
    readonly forward: number;
    readonly backward: number;
    readonly why: string;
  };
}

/** What an op should give for operands that are drawn. */
interface Expected {
  readonly operands: readonly (Operand & { readonly grid: Grid })[];
  /** The inputs, of these operands, whose gradients are checked. */
  readonly inputs: readonly number[];
  readonly output: Grid;
  /** The gradient of the output. */
  readonly weights: Float32Array<ArrayBuffer>;
  /** Of each input the gradients of some elements. */
  readonly slopes: readonly ReadonlyMap<number, number>[];
}

/** What was expected of a row: it is the same whatever variant of a kernel runs. */
const KNOWN = new WeakMap<Row, Expected>();

const USUAL = { forward: 1e-5, backward: 1e-4, why: "the usual one" };
const STEP = 1e-5;
/** How many gradients of a large operand are checked, evenly spread; of a huge one, fewer. */
const CHECKED = 40;
const HUGE = 10_000;
const CHECKED_OF_HUGE = 5;

/**
 * Compares an op's output with its reference, and its gradients with the reference's central
 * differences (not with those of the op, whose rounding would hide errors). The operands are copies
 * that die before the vjps run unless they are saved, so that a vjp that reads what it did not save
 * throws. Fails if a buffer is left. Given the same row again, it computes no reference again.
 */
export async function checkOp(row: Row): Promise<void> {
  const { op, tolerance = USUAL } = row;
  const { liveBuffers } = memory();
  const expected = KNOWN.get(row) ?? expectedOf(row);
  KNOWN.set(row, expected);
  const { output: { shape, data }, weights, slopes } = expected;
  const bases = expected.operands.map(({ grid, shape, dtype = "f32" }) =>
    keep(tensor(Float32Array.from(grid.data), shape, dtype))
  );
  const inputs = expected.inputs.map((operand) => bases[operand]);

  const owned = [...bases];
  let found: Data[];
  try {
    const { value, grads } = scope(() => {
      const { value, backward } = vjp(() => scope(() => op(...bases.map(copy))), inputs);
      assertEquals([...value.shape], [...shape]);
      return { value, grads: backward(tensor(weights, value.shape)) };
    });
    owned.push(value, ...grads);
    found = await Promise.all([value, ...grads].map((each) => each.data()));
  } finally {
    for (const each of owned) each.release();
  }
  assertEquals(memory().liveBuffers, liveBuffers, "buffers are left");
  const [output, ...gradients] = found;

  assertEquals(output.length, data.length);
  data.forEach((want, i) => near(`output[${i}]`, output[i], want, tolerance.forward));
  for (const [k, gradient] of gradients.entries()) {
    assertEquals(gradient.length, inputs[k].size);
    for (const [i, slope] of slopes[k]) {
      near(`gradient ${k}[${i}]`, gradient[i], slope, tolerance.backward);
    }
  }
}

/** Draws the operands of a row, and computes what its reference makes of them. */
function expectedOf({ operands, reference, differentiable = true }: Row): Expected {
  const random = new Random(1, "operands");
  const drawn = operands.map((given) => {
    const operand: Operand = "shape" in given ? given : { shape: given as Shape };
    const { shape, values = (random) => random.normal() } = operand;
    const data = Float64Array.from({ length: numel(shape) }, (_, i) =>
      // Both sides see the same numbers.
      Math.fround(values(random, i)));
    return { ...operand, grid: new Grid(shape, data) };
  });
  const grids = drawn.map(({ grid }) => grid);
  const output = reference(...grids);
  const weights = Float32Array.from(output.data, () => random.normal());
  const loss = () => reference(...grids).data.reduce((sum, y, i) => sum + weights[i] * y, 0);
  const inputs = differentiable
    ? drawn.flatMap(({ dtype = "f32" }, i) => dtype === "f32" ? [i] : [])
    : [];
  const slopes = inputs.map((operand) => {
    const { data } = grids[operand];
    const checked = data.length > HUGE ? CHECKED_OF_HUGE : CHECKED;
    const stride = Math.max(1, Math.floor(data.length / checked));
    const found = new Map<number, number>();
    for (let i = 0; i < data.length; i += stride) found.set(i, slope(data, i, loss));
    return found;
  });
  return { operands: drawn, inputs, output, weights, slopes };
}

function copy(x: Tensor): Tensor {
  return x.dtype === "f32" ? addScalar(x, 0) : pointwise("x", { x }, x.shape, x.dtype);
}

function slope(data: Float64Array, i: number, loss: () => number): number {
  const value = data[i];
  const step = STEP * Math.max(1, Math.abs(value));
  data[i] = value + step;
  const above = loss();
  data[i] = value - step;
  const below = loss();
  data[i] = value;
  return (above - below) / (2 * step);
}

function near(what: string, actual: Data[number], expected: number, tolerance: number): void {
  // Written so that NaN fails.
  if (Math.abs(actual - expected) <= tolerance * (1 + Math.abs(expected))) return;
  fail(`${what} is ${actual}, not ${expected}`);
}
