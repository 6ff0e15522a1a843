/**
 * One row for each op: it is held to a plain loop in 64 bits, and its gradients to that loop's
 * central differences.
 */

import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { conv2d, type Conv2dOptions, patchEmbedding } from "../autograd/ops/conv.ts";
import { full, ones, zeros } from "../autograd/ops/create.ts";
import { crossEntropy } from "../autograd/ops/cross_entropy.ts";
import { cumsum } from "../autograd/ops/cumsum.ts";
import { dropout, maskedDropout } from "../autograd/ops/dropout.ts";
import { embedding, gather, indexSelect, takeToken } from "../autograd/ops/embedding.ts";
import { layerNorm } from "../autograd/ops/layer_norm.ts";
import { linear } from "../autograd/ops/linear.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import { l2Normalize } from "../autograd/ops/normalize.ts";
import {
  abs,
  add,
  addScalar,
  type Binary,
  clamp,
  cos,
  div,
  exp,
  gelu,
  geluTanh,
  log,
  maskedFill,
  maximum,
  minimum,
  mul,
  mulScalar,
  neg,
  pow,
  quickGelu,
  reciprocal,
  relu,
  rsqrt,
  sigmoid,
  sin,
  sqrt,
  square,
  sub,
  tanh,
  type Unary,
  where,
} from "../autograd/ops/pointwise.ts";
import { max, mean, min, norm, type ReduceOptions, sum, variance } from "../autograd/ops/reduce.ts";
import { attention } from "../autograd/ops/attention.ts";
import { logSoftmax, softmax } from "../autograd/ops/softmax.ts";
import { argmax, argmin, topK } from "../autograd/ops/top_k.ts";
import {
  concat,
  contiguous,
  expand,
  pad,
  permute,
  reshape,
  slice,
  squeeze,
  stack,
  transpose,
  unsqueeze,
} from "../autograd/ops/view.ts";
import { record, valueAndGrad, wrt } from "../autograd/tape.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { tensor } from "../tensor/create.ts";
import { currentEngine } from "../tensor/engine.ts";
import { gpu } from "../tensor/device.ts";
import { hash3, type Random } from "../tensor/random.ts";
import { trim } from "../tensor/queue.ts";
import { scope } from "../tensor/scope.ts";
import { broadcast, numel, type Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { checkOp, Grid, type Operand, type Row } from "./check_op.ts";
import { gpuTest } from "./gpu.ts";

/** 1 - erf(x) in 64 bits: the series of erf near 0, else the continued fraction of erfc. */
function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    let [term, total] = [x, x];
    for (let n = 1; n < 60; n++) {
      term *= -x * x / n;
      total += term / (2 * n + 1);
    }
    return 1 - 2 / Math.sqrt(Math.PI) * total;
  }
  let fraction = x;
  for (let n = 80; n > 0; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / fraction / Math.sqrt(Math.PI);
}

const logistic = (x: number) => 1 / (1 + Math.exp(-x));
const map = (f: (x: number) => number) => (x: Grid) => new Grid(x.shape, x.data.map(f));

const normal = (random: Random) => random.normal();
const positive = (random: Random) => Math.exp(random.normal());
const away = (random: Random) => (0.2 + Math.abs(random.normal())) * Math.sign(random.normal());
/** Every fourth value is as large as values get. */
const large = (random: Random, i: number) => i % 4 === 3 ? random.normal() * 100 : random.normal();
const below = (count: number) => (random: Random) => random.below(count);
const ids = (shape: Shape, count: number): Operand => ({
  shape,
  values: below(count),
  dtype: "u32",
});
const like = (values: Operand["values"], ...shapes: Shape[]): Operand[] =>
  shapes.map((shape) => ({ shape, values }));

const ROWS: Record<string, Row> = {};

function unary(
  name: string,
  op: Unary,
  f: (x: number) => number,
  values?: Operand["values"],
  tolerance?: Row["tolerance"],
): void {
  const reference = map(f);
  for (const shape of [[], [7], [257]]) {
    ROWS[`${name} of [${shape}]`] = { op, operands: like(values, shape), reference, tolerance };
  }
  ROWS[`${name} of a transposed operand`] = {
    op: (x) => op(transpose(x)),
    operands: like(values, [33, 5]),
    reference: (x) => Grid.of([5, 33], (i, j) => f(x.at(j, i))),
    tolerance,
  };
}

unary("neg", neg, (x) => -x, large);
unary("exp", exp, Math.exp, undefined);
unary("log", log, Math.log, positive);
unary("sqrt", sqrt, Math.sqrt, positive);
unary("rsqrt", rsqrt, (x) => 1 / Math.sqrt(x), positive);
unary("square", square, (x) => x * x, large);
unary("reciprocal", reciprocal, (x) => 1 / x, away);
unary("abs", abs, Math.abs, away);
unary("sin", sin, Math.sin);
unary("cos", cos, Math.cos);
unary("tanh", tanh, Math.tanh, large);
unary("tanh of small values", tanh, Math.tanh, (random) => random.normal() * 0.2);
unary("sigmoid", sigmoid, logistic, large);
unary("relu", relu, (x) => Math.max(x, 0), away);
unary("gelu", gelu, (x) => x * erfc(-x / Math.SQRT2) / 2, large);
const tanhGelu = (x: number) => x * logistic(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3));
unary("geluTanh", geluTanh, tanhGelu, large);
unary("quickGelu", quickGelu, (x) => x * logistic(1.702 * x), large);
unary("clamp", (x) => clamp(x, -0.5, 1.5), (x) => Math.min(Math.max(x, -0.5), 1.5), large);
unary("addScalar", (x) => addScalar(x, -1.25), (x) => x - 1.25, large);
unary("mulScalar", (x) => mulScalar(x, 0.3), (x) => Math.fround(0.3) * x, large);
for (const power of [-3, -2, -1, 0, 1, 2, 3, 4]) {
  unary(`pow ${power}`, (x) => pow(x, power), (x) => x ** power, away);
}
for (const power of [-0.5, 0.5, 1.5]) {
  unary(`pow ${power}`, (x) => pow(x, power), (x) => x ** power, positive);
}

const PAIRS: readonly (readonly [Shape, Shape])[] = [
  [[7], [7]],
  [[3, 257], [257]],
  [[1, 5], [4, 1]],
  [[], [2, 3]],
  [[2, 1, 3, 1], [4, 1, 5]],
];

function binary(
  name: string,
  op: Binary,
  f: (a: number, b: number) => number,
  left?: Operand["values"],
  right = left,
): void {
  for (const [a, b] of PAIRS) {
    ROWS[`${name} of [${a}] and [${b}]`] = {
      op,
      operands: [...like(left, a), ...like(right, b)],
      reference: (x, y) => Grid.of(broadcast(a, b), (...i) => f(x.at(...i), y.at(...i))),
    };
  }
  ROWS[`${name} of a transposed and a sliced operand`] = {
    op: (a, b) => op(transpose(a), slice(b, 1, 1, 10, 2)),
    operands: [...like(left, [5, 33]), ...like(right, [33, 11])],
    reference: (x, y) => Grid.of([33, 5], (i, j) => f(x.at(j, i), y.at(i, 1 + 2 * j))),
  };
  ROWS[`${name} of a tensor and itself`] = {
    op: (a) => op(a, a),
    operands: like(name === "pow" ? positive : right, [7]),
    reference: map((x) => f(x, x)),
  };
}

binary("add", add, (a, b) => a + b, large);
binary("sub", sub, (a, b) => a - b, large);
binary("mul", mul, (a, b) => a * b);
binary("div", div, (a, b) => a / b, undefined, away);
binary("maximum", maximum, Math.max);
binary("minimum", minimum, Math.min);
binary("pow", pow, (a, b) => a ** b, positive, (random) => random.normal());

const chosen = (c: number, a: number, b: number) => c ? a : b;
for (
  const [c, a, b] of [[[3, 5], [3, 5], [3, 5]], [[257], [2, 1], [1]], [[2, 1], [], [1, 3]]]
) {
  ROWS[`where [${c}] from [${a}] and [${b}]`] = {
    op: where,
    operands: [ids(c, 2), a, b],
    reference: (...x) =>
      Grid.of(
        broadcast(c, broadcast(a, b)),
        (...i) => chosen(x[0].at(...i), x[1].at(...i), x[2].at(...i)),
      ),
  };
}
for (const mask of [[4, 7], [7], [4, 1], []]) {
  ROWS[`maskedFill by [${mask}]`] = {
    op: (x, m) => maskedFill(x, m, -7),
    operands: [[4, 7], ids(mask, 2)],
    reference: (x, m) => Grid.of([4, 7], (...i) => chosen(m.at(...i), -7, x.at(...i))),
  };
}
ROWS["maskedDropout"] = {
  op: (x, m) => maskedDropout(x, m, 0.25),
  operands: [[5, 13], ids([5, 13], 2)],
  reference: (x, m) => Grid.of([5, 13], (...i) => m.at(...i) * x.at(...i) / 0.75),
};
ROWS["dropout"] = {
  op: (x) => dropout(x, 0.3, { seed: 7, stream: 2 ** 32 - 1 }),
  operands: [[5, 13]],
  reference: (x) =>
    Grid.of([5, 13], (i, j) => {
      const keeps = hash3(i * 13 + j, 2 ** 32 - 1, 7)[0] >= Math.round(0.3 * 2 ** 32);
      return keeps ? x.at(i, j) / 0.7 : 0;
    }),
};

/** `a × b` over the last two axes of shapes that have at least two. */
function product(a: Grid, b: Grid): Grid {
  const [m, k] = a.shape.slice(-2);
  const n = b.shape.at(-1)!;
  const batch = broadcast(a.shape.slice(0, -2), b.shape.slice(0, -2));
  return Grid.of([...batch, m, n], (...index) => {
    const [i, j] = index.splice(-2);
    let total = 0;
    for (let inner = 0; inner < k; inner++) {
      total += a.at(...index, i, inner) * b.at(...index, inner, j);
    }
    return total;
  });
}

const turned = (x: Grid): Grid =>
  Grid.of([...x.shape.slice(0, -2), x.shape.at(-1)!, x.shape.at(-2)!], (...index) => {
    const [i, j] = index.splice(-2);
    return x.at(...index, j, i);
  });

for (
  const [a, b] of [
    [[1, 1], [1, 1]],
    [[1, 7], [7, 1]],
    [[33, 7], [7, 65]],
    // Multiples of vec4: full tiles, and one past them.
    [[16, 32], [32, 64]],
    [[65, 36], [36, 68]],
    [[33, 4], [4, 4]],
    [[17, 8], [8, 3]],
    [[3, 4, 5], [3, 5, 6]],
    [[3, 4, 5], [5, 6]],
    [[4, 5], [3, 5, 6]],
    [[2, 1, 3, 4], [3, 4, 5]],
    [[1, 3, 5, 2], [4, 1, 2, 6]],
    // Four batch axes that cannot be walked as fewer.
    [[2, 1, 2, 1, 3, 4], [1, 3, 1, 3, 4, 2]],
    [[2, 0], [0, 3]],
    [[0, 2], [2, 3]],
    [[2, 3, 0], [0, 4]],
  ]
) {
  ROWS[`matmul of [${a}] and [${b}]`] = { op: matmul, operands: [a, b], reference: product };
}
for (const [m, k, n] of [[33, 7, 65], [16, 32, 12], [65, 36, 9]]) {
  ROWS[`matmul of transposed [${k},${m}] and [${k},${n}]`] = {
    op: (a, b) => matmul(transpose(a), b),
    operands: [[k, m], [k, n]],
    reference: (a, b) => product(turned(a), b),
  };
  ROWS[`matmul of [${m},${k}] and transposed [${n},${k}]`] = {
    op: (a, b) => matmul(a, transpose(b)),
    operands: [[m, k], [n, k]],
    reference: (a, b) => product(a, turned(b)),
  };
  ROWS[`matmul of transposed [${k},${m}] and transposed [${n},${k}]`] = {
    op: (a, b) => matmul(transpose(a), transpose(b)),
    operands: [[k, m], [n, k]],
    reference: (a, b) => product(turned(a), turned(b)),
  };
}
ROWS["matmul of heads that are read without a copy"] = {
  op: (q, k) => matmul(permute(q, [0, 2, 1, 3]), permute(k, [0, 2, 3, 1])),
  operands: [[2, 9, 3, 8], [2, 7, 3, 8]],
  reference: (q, k) =>
    Grid.of([2, 3, 9, 7], (b, h, i, j) => {
      let total = 0;
      for (let d = 0; d < 8; d++) total += q.at(b, i, h, d) * k.at(b, j, h, d);
      return total;
    }),
};
ROWS["matmul of slices"] = {
  op: (a, b) => matmul(slice(a, 0, 1, 10, 2), slice(b, 1, 3, 15, 3)),
  operands: [[10, 6], [6, 16]],
  reference: (a, b) =>
    product(
      Grid.of([5, 6], (i, j) => a.at(1 + 2 * i, j)),
      Grid.of([6, 4], (i, j) => b.at(i, 3 + 3 * j)),
    ),
};
ROWS["matmul of slices at multiples of vec4"] = {
  op: (a, b) => matmul(slice(a, 1, 4, 12), slice(b, 0, 8, 16)),
  operands: [[5, 16], [20, 8]],
  reference: (a, b) =>
    product(Grid.of([5, 8], (i, j) => a.at(i, 4 + j)), Grid.of([8, 8], (i, j) => b.at(8 + i, j))),
};
ROWS["matmul of an expanded operand"] = {
  op: (a, b) => matmul(expand(a, [3, 5, 4]), b),
  operands: [[1, 5, 4], [3, 4, 2]],
  reference: product,
};
for (const [m, k, n] of [[7, 257, 33], [1, 120_013, 2], [1, 120_012, 1]]) {
  // These take more than one invocation's steps. Products add up to about 1, as in a network.
  const values = (random: Random) => random.normal() / Math.sqrt(k);
  ROWS[`matmul of [${m},${k}] and [${k},${n}]`] = {
    op: matmul,
    operands: [{ shape: [m, k], values }, { shape: [k, n], values: normal }],
    reference: product,
  };
}
ROWS["matmul of a vector and a matrix"] = {
  op: matmul,
  operands: [[7], [2, 7, 3]],
  reference: (a, b) => Grid.of([2, 3], (i, j) => product(new Grid([1, 7], a.data), b).at(i, 0, j)),
};
ROWS["matmul of a matrix and a vector"] = {
  op: matmul,
  operands: [[2, 3, 7], [7]],
  reference: (a, b) => Grid.of([2, 3], (i, j) => product(a, new Grid([7, 1], b.data)).at(i, j, 0)),
};
ROWS["matmul of two vectors"] = {
  op: matmul,
  operands: [[257], [257]],
  reference: (a, b) =>
    new Grid([], product(new Grid([1, 257], a.data), new Grid([257, 1], b.data)).data),
};
for (const shape of [[7, 5], [2, 3, 5], [5]]) {
  ROWS[`linear of [${shape}]`] = {
    op: (x, w, b) => linear(x, w, b),
    operands: [shape, [4, 5], [4]],
    reference: (x, w, b) =>
      Grid.of([...shape.slice(0, -1), 4], (...index) => {
        const out = index.pop()!;
        let total = b.at(out);
        for (let i = 0; i < 5; i++) total += x.at(...index, i) * w.at(out, i);
        return total;
      }),
  };
}
ROWS["linear without bias"] = {
  op: (x, w) => linear(x, w),
  operands: [[7, 5], [4, 5]],
  reference: (x, w) => product(x, turned(w)),
};
for (const [height, width] of [[6, 9], [7, 10]]) {
  ROWS[`patchEmbedding of ${height} by ${width} pixels`] = {
    op: patchEmbedding,
    operands: [[2, 3, height, width], [5, 3, 3, 3]],
    reference: (x, w) =>
      Grid.of([2, 6, 5], (b, patch, out) => {
        const [top, left] = [3 * Math.floor(patch / 3), 3 * (patch % 3)];
        let total = 0;
        for (let c = 0; c < 3; c++) {
          for (let i = 0; i < 3; i++) {
            for (let j = 0; j < 3; j++) total += x.at(b, c, top + i, left + j) * w.at(out, c, i, j);
          }
        }
        return total;
      }),
  };
}

for (
  const [height, width, options] of [
    [5, 6, {}],
    [5, 7, { padding: 1, stride: [2, 3] }],
    [9, 8, { dilation: [3, 2], padding: [2, 0], groups: 2 }],
  ] as [number, number, Conv2dOptions][]
) {
  const { groups = 1 } = options;
  const [down, across] = (["stride", "padding", "dilation"] as const).map((name) =>
    [options[name] ?? (name === "padding" ? 0 : 1)].flat() as number[]
  ).reduce<number[][]>(
    (all, values) => [0, 1].map((axis) => [...all[axis], values[axis] ?? values[0]]),
    [[], []],
  );
  const count = (size: number, kernel: number, [stride, padding, dilation]: number[]) =>
    Math.floor((size + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1;
  const shape = [2, 6, count(height, 3, down), count(width, 2, across)];
  ROWS[`conv2d of ${height} by ${width} pixels, ${JSON.stringify(options)}`] = {
    op: (x, w, b) => conv2d(x, w, b, options),
    operands: [[2, 4, height, width], [6, 4 / groups, 3, 2], [6]],
    reference: (x, w, b) =>
      Grid.of(shape, (image, out, row, col) => {
        let total = b.at(out);
        const first = Math.floor(out / (6 / groups)) * 4 / groups;
        for (let c = 0; c < 4 / groups; c++) {
          for (let i = 0; i < 3; i++) {
            for (let j = 0; j < 2; j++) {
              const y = row * down[0] - down[1] + i * down[2];
              const at = col * across[0] - across[1] + j * across[2];
              if (y < 0 || y >= height || at < 0 || at >= width) continue;
              total += x.at(image, first + c, y, at) * w.at(out, c, i, j);
            }
          }
        }
        return total;
      }),
  };
}
for (const [shape, axis] of [[[3, 5, 2], 1], [[2, 700], -1], [[515, 3], 0], [[0, 4], 1]] as const) {
  const at = axis < 0 ? shape.length + axis : axis;
  ROWS[`cumsum of [${shape}] along ${axis}`] = {
    op: (x) => cumsum(x, axis),
    operands: [shape],
    reference: (x) =>
      Grid.of(shape, (...index) => {
        let total = 0;
        for (let i = 0; i <= index[at]; i++) total += x.at(...index.with(at, i));
        return total;
      }),
  };
}

/** Folds every slice over `axes` to one number. */
function reduced(
  x: Grid,
  axes: readonly number[],
  keepAxes: boolean,
  fold: (slice: number[]) => number,
): Grid {
  const ones = x.shape.map((size, axis) => axes.includes(axis) ? 1 : size);
  const over = Grid.of(x.shape.map((size, axis) => axes.includes(axis) ? size : 1), () => 0).shape;
  const result = Grid.of(ones, (...index) => {
    const values: number[] = [];
    Grid.of(over, (...inner) => values.push(x.at(...index.map((i, axis) => i + inner[axis]))));
    return fold(values);
  });
  const shape = keepAxes ? ones : x.shape.filter((_, axis) => !axes.includes(axis));
  return new Grid(shape, result.data);
}

const total = (values: number[]) => values.reduce((a, b) => a + b, 0);
const average = (values: number[]) => total(values) / values.length;
const squares = (values: number[]) => {
  const centre = average(values);
  return total(values.map((x) => (x - centre) ** 2));
};
const REDUCTIONS: Record<
  string,
  [(x: Tensor, options: ReduceOptions) => Tensor, (values: number[]) => number]
> = {
  sum: [sum, total],
  mean: [mean, average],
  max: [max, (values) => Math.max(...values)],
  min: [min, (values) => Math.min(...values)],
  norm: [norm, (values) => Math.hypot(...values)],
  variance: [variance, (values) => squares(values) / (values.length - 1)],
  "variance of all": [
    (x, options) => variance(x, { ...options, unbiased: false }),
    (values) => squares(values) / values.length,
  ],
};
for (const [name, [op, fold]] of Object.entries(REDUCTIONS)) {
  for (
    const [shape, axis, keepAxes] of [
      [[257], undefined, false],
      [[3, 5, 7], undefined, true],
      [[3, 5, 7], 0, false],
      [[3, 5, 7], -2, true],
      [[3, 5, 7], [2, 0], false],
      [[3, 5, 7], [1, 2], false],
      [[65, 33], -1, false],
      [[2, 3, 2, 5], [1, 3], true],
      [[4, 1, 5], [1, 2], false],
      // One workgroup takes a row, or several take chunks of a long axis.
      [[2, 1033], 1, false],
      [[4099, 2], 0, false],
    ] as const
  ) {
    const axes = (axis === undefined ? shape.map((_, i) => i) : [axis].flat() as number[])
      .map((each) => each < 0 ? each + shape.length : each);
    ROWS[`${name} of [${shape}] over ${axis ?? "all"}${keepAxes ? ", axes retained" : ""}`] = {
      op: (x) => op(x, { axis, keepAxes }),
      operands: [shape],
      reference: (x) => reduced(x, axes, keepAxes, fold),
    };
  }
  ROWS[`${name} of a transposed operand`] = {
    op: (x) => op(permute(x, [2, 0, 1]), { axis: 1 }),
    operands: [[3, 5, 7]],
    reference: (x) => reduced(Grid.of([7, 3, 5], (i, j, k) => x.at(j, k, i)), [1], false, fold),
  };
}
ROWS["sum of no elements"] = {
  op: (x) => sum(x, { axis: 1 }),
  operands: [[3, 0]],
  reference: () => Grid.of([3], () => 0),
};
ROWS["variance far from 0"] = {
  op: (x) => variance(x, { axis: 1 }),
  operands: like((random) => 1000 + random.normal(), [3, 257]),
  reference: (x) => reduced(x, [1], false, (values) => squares(values) / 256),
};

/** Replaces each row along the last axis by `f` of it. */
const rowwise = (f: (row: number[]) => number[]) => (x: Grid) => {
  const cols = x.shape.at(-1)!;
  const data = new Float64Array(x.data.length);
  for (let i = 0; i < data.length; i += cols) data.set(f([...x.data.slice(i, i + cols)]), i);
  return new Grid(x.shape, data);
};
const shifted = (row: number[]) => {
  const largest = Math.max(...row);
  return row.map((x) => x - largest);
};
const probabilities = (row: number[]) => {
  const e = shifted(row).map(Math.exp);
  const sum = total(e);
  return e.map((x) => x / sum);
};
const logProbabilities = (row: number[]) => {
  const e = Math.log(total(shifted(row).map(Math.exp)));
  return shifted(row).map((x) => x - e);
};
for (
  const [name, op, f] of [
    ["softmax", softmax, probabilities],
    ["logSoftmax", logSoftmax, logProbabilities],
  ] as const
) {
  for (const shape of [[1], [7], [3, 257], [65, 33], [5, 1]]) {
    ROWS[`${name} of [${shape}]`] = {
      op: (x) => op(x),
      operands: like(large, shape),
      reference: rowwise(f),
    };
  }
  ROWS[`${name} along another axis`] = {
    op: (x) => op(x, 0),
    operands: [[7, 5]],
    reference: (x) => turned(rowwise(f)(turned(x))),
  };
  ROWS[`${name} of far too small values`] = {
    op: (x) => op(x),
    // With -1e9 the logarithm would have no digits left, so it gets -1e3.
    operands: like((random, i) => i % 3 === 1 ? op === softmax ? -1e9 : -1e3 : random.normal(), [
      3,
      7,
    ]),
    reference: rowwise(f),
  };
  ROWS[`${name} of a row longer than one invocation's steps`] = {
    op: (x) => op(x),
    operands: [[2, 15_001]],
    reference: rowwise(f),
  };
}

for (const axes of [[1], [7], [257], [2, 5]]) {
  const cols = numel(axes);
  ROWS[`layerNorm over [${axes}]`] = {
    op: (x, w, b) => layerNorm(x, w, b),
    operands: [...like(large, [3, 2, ...axes]), axes, axes],
    reference: (x, w, b) => {
      const normal = rowwise((row) => {
        const centre = average(row);
        const spread = Math.sqrt(squares(row) / cols + 1e-5);
        return row.map((value, i) => (value - centre) / spread * w.data[i] + b.data[i]);
      });
      return new Grid(x.shape, normal(new Grid([6, cols], x.data)).data);
    },
  };
}

for (const labelSmoothing of [0, 0.1, 1]) {
  for (const [rows, cols] of [[1, 1], [7, 5], [65, 33], [3, 1031]]) {
    const loss = (x: Grid, labels: Grid) =>
      Grid.of([rows], (row) => {
        const y = logProbabilities([...x.data.slice(row * cols, (row + 1) * cols)]);
        return -(1 - labelSmoothing) * y[labels.at(row)] - labelSmoothing * average(y);
      });
    const operands = [...like(large, [rows, cols]), ids([rows], cols)];
    const name = `crossEntropy of [${rows},${cols}], smoothed by ${labelSmoothing}`;
    const with_ = (reduction: "mean" | "sum" | "none"): Row["op"] => (x, t) =>
      crossEntropy(x, t, { labelSmoothing, reduction });
    ROWS[name] = {
      op: with_("mean"),
      operands,
      reference: (x, t) => new Grid([], Float64Array.of(average([...loss(x, t).data]))),
    };
    ROWS[`${name}, its sum`] = {
      op: with_("sum"),
      operands,
      reference: (x, t) => new Grid([], Float64Array.of(total([...loss(x, t).data]))),
    };
    ROWS[`${name}, each row's`] = { op: with_("none"), operands, reference: loss };
  }
}
for (const [ignoreIndex, labels] of [[2, [0, 2, 3, 2]], [-100, [1, -100, 0, 4]]] as const) {
  const targets: Operand = { shape: [4], values: (_, i) => labels[i], dtype: "i32" };
  ROWS[`crossEntropy without the rows of label ${ignoreIndex}`] = {
    op: (x, t) => crossEntropy(x, t, { labelSmoothing: 0.1, ignoreIndex }),
    operands: [[4, 5], targets],
    reference: (x, t) => {
      const counted = [...t.data.keys()].filter((row) => t.data[row] !== ignoreIndex);
      const losses = counted.map((row) => {
        const logits = [...x.data.slice(5 * row, 5 * row + 5)];
        const above = Math.log(total(logits.map(Math.exp)));
        return above - 0.9 * logits[t.data[row]] - 0.1 * average(logits);
      });
      return new Grid([], Float64Array.of(average(losses)));
    },
  };
}
ROWS["crossEntropy of a label that is no class"] = {
  op: (x, t) => crossEntropy(x, t, { reduction: "none" }),
  operands: [[2, 3], { shape: [2], values: (_, i) => i === 0 ? -100 : 1, dtype: "i32" }],
  reference: (x) =>
    Grid.of([2], (row) => row === 0 ? 0 : -logProbabilities([...x.data.slice(3)])[1]),
};

const rowOf = (table: Grid, id: number, col: number) => id < table.shape[0] ? table.at(id, col) : 0;
for (const [rows, cols, shape] of [[10, 4, [7]], [5, 1, [2, 3]], [33, 65, [257]]] as const) {
  ROWS[`embedding of [${shape}] in [${rows},${cols}], one id too large`] = {
    op: embedding,
    operands: [[rows, cols], ids(shape, rows + 1)],
    reference: (table, i) =>
      Grid.of([...shape, cols], (...index) => {
        const col = index.pop()!;
        return rowOf(table, i.at(...index), col);
      }),
  };
}
ROWS["embedding of more ids than one invocation's steps"] = {
  op: embedding,
  operands: [[3, 2], ids([130_001], 3)],
  reference: (table, i) => Grid.of([130_001, 2], (row, col) => table.at(i.at(row), col)),
  tolerance: {
    forward: 1e-5,
    backward: 2e-3,
    why: "each gradient is a sum of 43,000, in one chain",
  },
};
ROWS["takeToken"] = {
  op: takeToken,
  operands: [[4, 9, 6], ids([4], 9)],
  reference: (x, i) => Grid.of([4, 6], (row, col) => x.at(row, i.at(row), col)),
};
ROWS["indexSelect"] = {
  op: (x, i) => indexSelect(x, 1, i),
  operands: [[3, 6, 2], ids([7], 6)],
  reference: (x, i) => Grid.of([3, 7, 2], (a, b, c) => x.at(a, i.at(b), c)),
};
ROWS["gather along the last axis"] = {
  op: (x, i) => gather(x, -1, i),
  operands: [[4, 5], ids([3, 7], 5)],
  reference: (x, i) => Grid.of([3, 7], (a, b) => x.at(a, i.at(a, b))),
};
ROWS["gather along the first axis"] = {
  op: (x, i) => gather(x, 0, i),
  operands: [[4, 5, 2], ids([7, 3, 2], 4)],
  reference: (x, i) => Grid.of([7, 3, 2], (a, b, c) => x.at(i.at(a, b, c), b, c)),
};

const flat = (shape: Shape) => (x: Grid) => new Grid(shape, x.data);
ROWS["reshape"] = {
  op: (x) => reshape(x, [5, -1]),
  operands: [[3, 5, 7]],
  reference: flat([5, 21]),
};
ROWS["reshape of a transposed operand"] = {
  op: (x) => reshape(transpose(x), [4, 6]),
  operands: [[3, 8]],
  reference: (x) => new Grid([4, 6], turned(x).data),
};
ROWS["reshape of a slice"] = {
  op: (x) => reshape(slice(x, 0, 1), [14]),
  operands: [[3, 7]],
  reference: (x) => new Grid([14], x.data.slice(7)),
};
ROWS["contiguous"] = {
  op: (x) => contiguous(transpose(x)),
  operands: [[33, 7]],
  reference: turned,
};
ROWS["transpose"] = {
  op: (x) => transpose(x, 0, 2),
  operands: [[3, 5, 7]],
  reference: (x) => Grid.of([7, 5, 3], (i, j, k) => x.at(k, j, i)),
};
ROWS["permute"] = {
  op: (x) => permute(x, [2, 0, -2]),
  operands: [[3, 5, 7]],
  reference: (x) => Grid.of([7, 3, 5], (i, j, k) => x.at(j, k, i)),
};
ROWS["slice by steps"] = {
  op: (x) => slice(x, 1, 1, 10, 3),
  operands: [[2, 11]],
  reference: (x) => Grid.of([2, 3], (i, j) => x.at(i, 1 + 3 * j)),
};
ROWS["slice from the end"] = {
  op: (x) => slice(x, -2, -3, -1),
  operands: [[7, 2]],
  reference: (x) => Grid.of([2, 2], (i, j) => x.at(4 + i, j)),
};
ROWS["slice of nothing"] = {
  op: (x) => slice(x, 0, 7),
  operands: [[7, 2]],
  reference: () => Grid.of([0, 2], () => 0),
};
ROWS["expand"] = {
  op: (x) => expand(x, [2, 3, 257]),
  operands: [[3, 1]],
  reference: (x) => Grid.of([2, 3, 257], (...index) => x.at(...index)),
};
ROWS["squeeze"] = { op: (x) => squeeze(x, -2), operands: [[3, 1, 4]], reference: flat([3, 4]) };
ROWS["unsqueeze"] = { op: (x) => unsqueeze(x, -1), operands: [[3, 4]], reference: flat([3, 4, 1]) };
ROWS["concat"] = {
  op: (...x) => concat(x, 1),
  operands: [[2, 3], [2, 0], [2, 257]],
  reference: (a, _, c) => Grid.of([2, 260], (i, j) => j < 3 ? a.at(i, j) : c.at(i, j - 3)),
};
ROWS["concat of a transposed operand"] = {
  op: (a, b) => concat([transpose(a), b], 0),
  operands: [[3, 2], [1, 3]],
  reference: (a, b) => Grid.of([3, 3], (i, j) => i < 2 ? a.at(j, i) : b.at(0, j)),
};
ROWS["concat of a tensor and itself"] = {
  op: (a) => concat([a, a], -1),
  operands: [[3, 2]],
  reference: (a) => Grid.of([3, 4], (i, j) => a.at(i, j % 2)),
};
ROWS["stack"] = {
  op: (...x) => stack(x, 1),
  operands: [[2, 3], [2, 3], [2, 3]],
  reference: (...x) => Grid.of([2, 3, 3], (i, j, k) => x[j].at(i, k)),
};
ROWS["pad"] = {
  op: (x) => pad(x, [[2, 0], [1, 3]], 0.5),
  operands: [[3, 4]],
  reference: (x) => Grid.of([5, 8], (i, j) => i < 2 || j < 1 || j > 4 ? 0.5 : x.at(i - 2, j - 1)),
};
const normalized = (epsilon: number) => (row: number[]) => {
  const length = Math.max(epsilon, Math.hypot(...row));
  return row.map((x) => x / length);
};
ROWS["l2Normalize"] = {
  op: (x) => l2Normalize(x),
  operands: like(large, [3, 257]),
  reference: rowwise(normalized(0)),
};
ROWS["l2Normalize by epsilon"] = {
  op: (x) => l2Normalize(x, 0, 2.5),
  operands: [[7, 5]],
  reference: (x) => turned(rowwise(normalized(2.5))(turned(x))),
};

for (const causal of [false, true]) {
  for (
    const [batch, queries, keys, depth, width] of [[2, 5, 5, 8, 8], [1, 1, 1, 3, 2], [
      3,
      7,
      33,
      5,
      9,
    ]]
  ) {
    for (const masked of [false, true]) {
      ROWS[
        `attention of ${queries} to ${keys}${causal ? ", causal" : ""}${masked ? ", masked" : ""}`
      ] = {
        op: (q, k, v, mask) => attention(q, k, v, { causal, ...(masked && { mask, scale: 0.7 }) }),
        operands: [
          [batch, queries, depth],
          [batch, keys, depth],
          [batch, keys, width],
          // The first key is always seen.
          { shape: [batch, 1, keys], values: (r, i) => i % keys ? r.below(2) : 1, dtype: "u32" },
        ],
        reference: (q, k, v, mask) => {
          const scale = masked ? 0.7 : 1 / Math.sqrt(depth);
          const scores = product(q, turned(k));
          const seen = Grid.of(scores.shape, (b, i, j) => {
            const hidden = (causal && j > i) || (masked && mask.at(b, 0, j) === 0);
            return hidden ? -1e30 : scale * scores.at(b, i, j);
          });
          return product(rowwise(probabilities)(seen), v);
        },
      };
    }
  }
}

const order = (row: number[]) =>
  row.map((x, i) => [x, i]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
/** Half of them are ties. */
const coarse = (random: Random) => Math.round(random.normal() * 2) / 2;
for (const dtype of ["f32", "i32", "u32"] as const) {
  const values = dtype === "f32"
    ? coarse
    : dtype === "i32"
    ? (random: Random) => random.below(9) - 4
    : below(9);
  const operands = [{ shape: [5, 257], values, dtype }];
  const differentiable = false;
  ROWS[`topK of ${dtype}, its values`] = {
    op: (x) => topK(x, 3).values,
    operands,
    reference: (x) =>
      Grid.of([5, 3], (i, k) => order([...x.data.slice(i * 257, (i + 1) * 257)])[k][0]),
    differentiable,
  };
  ROWS[`topK of ${dtype}, its indices`] = {
    op: (x) => topK(x, 3).indices,
    operands,
    reference: (x) =>
      Grid.of([5, 3], (i, k) => order([...x.data.slice(i * 257, (i + 1) * 257)])[k][1]),
    differentiable,
  };
  ROWS[`argmax of ${dtype}`] = {
    op: (x) => argmax(x, 0),
    operands,
    reference: (x) => Grid.of([257], (j) => order([0, 1, 2, 3, 4].map((i) => x.at(i, j)))[0][1]),
    differentiable,
  };
  ROWS[`argmin of ${dtype}`] = {
    op: (x) => argmin(x),
    operands,
    reference: (x) =>
      Grid.of([5], (i) => order([...x.data.slice(i * 257, (i + 1) * 257)].map((v) => -v))[0][1]),
    differentiable,
  };
}
ROWS["argmax of a long row"] = {
  op: (x) => argmax(x),
  operands: like((random, i) => i === 399_999 ? 9 : random.uniform(), [400_003]),
  reference: () => new Grid([], Float64Array.of(399_999)),
  differentiable: false,
};
ROWS["topK of all"] = {
  op: (x) => topK(x, 7, 0).values,
  operands: [[7, 2]],
  reference: (x) =>
    Grid.of([7, 2], (k, j) => order([...turned(x).data.slice(j * 7, j * 7 + 7)])[k][0]),
  differentiable: false,
};
for (const dtype of ["f32", "u32", "i32"] as const) {
  for (const [name, op, value] of [["zeros", zeros, 0], ["ones", ones, 1]] as const) {
    ROWS[`${name} of ${dtype}`] = {
      op: () => op([3, 5], dtype),
      operands: [],
      reference: () => Grid.of([3, 5], () => value),
      differentiable: false,
    };
  }
  ROWS[`full of ${dtype}`] = {
    op: () => full([257], 7, dtype),
    operands: [],
    reference: () => Grid.of([257], () => 7),
    differentiable: false,
  };
}

for (const [name, row] of Object.entries(ROWS)) {
  gpuTest(`${name} agrees with its twin in 64 bits`, () => checkOp(row));
}

gpuTest(
  "checkOp() catches a wrong output, a wrong gradient, and a save that was not declared",
  async () => {
    const expressions = (forward: string, derivative: string, saves: boolean): Row => ({
      op: (x) => {
        const { shape } = x;
        return record(pointwise(forward, { x }, shape), [
          wrt(x, saves ? [x] : [], (g) => pointwise(derivative, { g, x }, shape)),
        ]);
      },
      operands: [[7]],
      reference: map((x) => x * x),
    });
    await checkOp(expressions("x * x", "2.0 * g * x", true));
    const rows = [
      [expressions("x * x + 1e-3", "2.0 * g * x", true), "output[0] is"],
      [expressions("x * x", "2.01 * g * x", true), "gradient 0["],
      [expressions("x * x", "2.0 * g * x", false), "Cannot use a released tensor of shape [7]"],
    ] as const;
    for (const [row, message] of rows) await assertRejects(() => checkOp(row), Error, message);
  },
);

/** The values of `op` and of the gradient of its sum, at each of `points`. */
async function values(op: Unary, points: readonly number[]): Promise<[number[], number[]]> {
  const x = tensor(points);
  const { y, grads } = scope(() => ({
    y: op(x),
    grads: valueAndGrad(() => sum(op(x)), [x]).grads,
  }));
  const found = await Promise.all([y.data(), grads[0].data()]);
  for (const each of [x, y, ...grads]) each.release();
  return [[...found[0]], [...found[1]]];
}

function assertNear(actual: readonly number[], expected: readonly number[], rtol: number): void {
  assertEquals(actual.length, expected.length);
  for (const [i, want] of expected.entries()) {
    if (Object.is(actual[i], want)) continue;
    assert(
      Math.abs(actual[i] - want) <= rtol * Math.abs(want),
      `[${i}] is ${actual[i]}, not ${want}`,
    );
  }
}

gpuTest("activations keep their digits near 0 and far below it", async () => {
  const points = [1e-6, -1e-6, 1e-3, -1e-3, 0.1, -0.1, -1, -3, -5, -8, 3, 8].map(Math.fround);
  const exact: [Unary, (x: number) => number][] = [
    [tanh, Math.tanh],
    [sigmoid, logistic],
    [gelu, (x) => x * erfc(-x / Math.SQRT2) / 2],
    [geluTanh, tanhGelu],
    [quickGelu, (x) => x * logistic(1.702 * x)],
  ];
  for (const [op, f] of exact) {
    const [found] = await values(op, points);
    // The exponent of geluTanh(-8) is -74: half a unit in its last digit is 4e-6.
    assertNear(found, points.map(f), 1e-5);
  }
});

gpuTest("activations stay finite at their ends", async () => {
  const points = [-1e4, -100, 100, 1e4];
  assertEquals(await values(tanh, points), [[-1, -1, 1, 1], [0, 0, 0, 0]]);
  assertEquals(await values(relu, [-1e4, 0, -0, 1e4]), [[0, 0, 0, 1e4], [0, 0, 0, 1]]);
  for (const op of [sigmoid, gelu, geluTanh, quickGelu]) {
    const [found, slopes] = await values(op, points);
    const ends = op === sigmoid ? [0, 0, 1, 1] : [0, 0, 100, 1e4];
    const flat = op === sigmoid ? [0, 0, 0, 0] : [0, 0, 1, 1];
    found.forEach((y, i) => assertAlmostEquals(y, ends[i], 1e-20));
    slopes.forEach((y, i) => assertAlmostEquals(y, flat[i], 1e-20));
  }
});

gpuTest("sqrt(), norm() and pow() at 0 are as in PyTorch", async () => {
  assertEquals(await values(sqrt, [0]), [[0], [Infinity]]);
  assertEquals(await values((x) => norm(x), [0, 0]), [[0], [0, 0]]);
  assertEquals(await values((x) => pow(x, 0), [0, -2]), [[1, 1], [0, 0]]);
  assertEquals(await values((x) => pow(x, 2), [0, -2]), [[0, 4], [0, -4]]);
  assertEquals(await values((x) => pow(x, 1), [0, -2]), [[0, -2], [1, 1]]);
  // A vector of zeros has no direction. With an epsilon it stays 0 and has a gradient.
  assertEquals(await values((x) => l2Normalize(x, 0, 0.5), [0, 0]), [[0, 0], [2, 2]]);
});

gpuTest("equal extremes share the gradient", async () => {
  assertEquals(await values((x) => max(x), [3, 1, 3, 0]), [[3], [0.5, 0, 0.5, 0]]);
  // WGSL leaves open which of the zeros is smaller.
  const [[least], shares] = await values((x) => min(x), [-0, 1, 0, 0.5]);
  assertEquals([least + 0, shares], [0, [0.5, 0, 0.5, 0]]);
  assertEquals(await values((x) => maximum(x, relu(x)), [2, 0, -2]), [[2, 0, 0], [1, 0.5, 0]]);
});

gpuTest("crossEntropy() of large logits keeps the digits of small differences", async () => {
  const points = [1000, 1000.5, 999];
  const e = points.map((x) => Math.exp(x - 1000));
  const labels = tensor(Uint32Array.of(1));
  const [loss, grads] = await values(
    (x) => crossEntropy(reshape(x, [1, 3]), labels, { reduction: "none" }),
    points,
  );
  labels.release();
  assertNear(loss, [Math.log(total(e)) - 0.5], 1e-6);
  assertNear(grads, e.map((x, i) => x / total(e) - (i === 1 ? 1 : 0)), 1e-6);
});

gpuTest("long sums keep their digits", async () => {
  const count = 1_000_003;
  const x = tensor(new Float32Array(count).fill(0.1), [count]);
  const columns = tensor(new Float32Array(3 * 100_001).fill(0.1), [100_001, 3]);
  const found = scope(() => [sum(x), sum(columns, { axis: 0 }), mean(columns, { axis: 0 })]);
  const [all, each, means] = await Promise.all(found.map((y) => y.data()));
  const tenth = Math.fround(0.1);
  assertNear([...all], [count * tenth], 1e-6);
  assertNear([...each], [1, 1, 1].map(() => 100_001 * tenth), 1e-6);
  assertNear([...means], [tenth, tenth, tenth], 1e-6);
  for (const y of [x, columns, ...found]) y.release();
});

gpuTest("embedding() reads a table that is larger than one binding", async () => {
  const { maxStorageBufferBindingSize, maxBufferSize } = gpu().limits;
  // ViT-L/14's table of tokens takes 152 MB, more than the default of 128 MiB.
  const [rows, cols] = [49_408, 768];
  assert(rows * cols * 4 < maxBufferSize);
  const table = Tensor.empty([rows, cols]);
  const wanted = [0, 7, 43_690, 43_691, 43_692, rows - 2, rows - 1];
  const ids = tensor(Uint32Array.of(...wanted, rows));
  // Each chunk has a separate binding, and its values are the numbers of its rows.
  const chunks = 4;
  for (let chunk = 0; chunk < chunks; chunk++) {
    const size = rows / chunks;
    const values = new Float32Array(size * cols);
    for (let row = 0; row < size; row++) {
      values.fill(chunk * size + row, row * cols, (row + 1) * cols);
      values[(row + 1) * cols - 1] = -1;
    }
    currentEngine().queue.write(table.binding.buffer, chunk * values.byteLength, values);
  }
  const y = embedding(table, ids);
  const found = await y.data();
  for (const [i, row] of [...wanted, 0].entries()) {
    assertEquals(
      [found[i * cols], found[(i + 1) * cols - 1]],
      i < wanted.length ? [row, -1] : [0, 0],
    );
  }
  console.log(
    `embedding: a table of ${
      rows * cols * 4
    } bytes, bindings of at most ${maxStorageBufferBindingSize}`,
  );
  for (const each of [table, ids, y]) each.release();
  trim();
});

gpuTest(
  "dropout() keeps the right share, and which elements depends on seed and stream alone",
  async () => {
    const x = ones([100, 1000]);
    const draw = (seed: number, stream: number, p = 0.25) => dropout(x, p, { seed, stream });
    const made = [draw(1, 2), draw(1, 2), draw(2, 2), draw(1, 3), draw(1, 2, 1 - 1e-12)];
    const [first, again, seed, stream, all] = await Promise.all(made.map((y) => y.data()));
    const share = first.filter((value) => value !== 0).length / first.length;
    // Five standard deviations.
    assertAlmostEquals(share, 0.75, 5 * Math.sqrt(0.25 * 0.75 / first.length));
    assert(first.every((value) => value === 0 || value === Math.fround(1 / 0.75)));
    assertEquals(first, again);
    for (const other of [seed, stream]) {
      const same = other.filter((value, i) => value === first[i]).length / first.length;
      // Two masks agree by chance where both keep or both drop.
      assertAlmostEquals(same, 0.75 ** 2 + 0.25 ** 2, 0.02);
    }
    assert(all.filter((value) => value !== 0).length < 10);
    for (const y of [x, ...made]) y.release();
  },
);
