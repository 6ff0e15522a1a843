/** Products in every kernel variant, on awkward shapes, with all that is done in the same pass. */

import { assertEquals, assertLess } from "@std/assert";
import { attention } from "../autograd/ops/attention.ts";
import { dropout, type DropoutKey } from "../autograd/ops/dropout.ts";
import { linear } from "../autograd/ops/linear.ts";
import { lowRankLinear } from "../autograd/ops/low_rank.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import { add, gelu, mulScalar, quickGelu, tanh } from "../autograd/ops/pointwise.ts";
import { permute, reshape, transpose } from "../autograd/ops/view.ts";
import { vjp } from "../autograd/tape.ts";
import { pinKernels, TILE_SIZES } from "../kernels/variant.ts";
import { multiplyThen } from "../kernels/matmul.ts";
import { tensor } from "../tensor/create.ts";
import { counters } from "../tensor/queue.ts";
import { Random } from "../tensor/random.ts";
import { scope } from "../tensor/scope.ts";
import { numel, type Shape } from "../tensor/shape.ts";
import { checkOp, Grid, type Row } from "./check_op.ts";
import { gpuTest } from "./gpu.ts";
import { EACH_TILE, EACH_VARIANT, withVariant } from "./variants.ts";

function normals(shape: Shape, stream: string): Float32Array<ArrayBuffer> {
  const random = new Random(5, stream);
  return Float32Array.from({ length: numel(shape) }, () => random.normal());
}

/** Full and ragged tiles, sizes one past a tile, thin ones, long ones, empty ones. */
const SHAPES: readonly (readonly [m: number, k: number, n: number, batch: number])[] = [
  ...[[1, 1, 1, 1], [4, 4, 4, 1], [7, 5, 3, 1], [33, 17, 65, 2], [64, 64, 64, 1]],
  ...[[40, 44, 36, 3], [129, 64, 132, 1], [130, 20, 33, 1]],
  ...[[257, 96, 12, 1], [12, 96, 260, 1], [300, 40, 2, 1], [2, 300, 96, 1]], // thin
  ...[[8, 2000, 8, 1], [5, 4100, 68, 1]], // long: a GPU cuts them into parts
  ...[[5, 0, 7, 1], [0, 3, 4, 1]],
].map((sizes) => sizes as [number, number, number, number]);

for (const variant of EACH_TILE) {
  gpuTest(
    `matmul() agrees with 64 bits on ragged, thin and long shapes, ${variant.name}`,
    () =>
      withVariant(variant, async () => {
        for (const [m, k, n, batch] of SHAPES) {
          for (
            const [left, right] of [[false, false], [false, true], [true, false], [true, true]]
          ) {
            const [a, c] = [normals([batch, m, k], "a"), normals([batch, k, n], "c")];
            const made = [
              tensor(a, left ? [batch, k, m] : [batch, m, k]),
              tensor(c, right ? [batch, n, k] : [batch, k, n]),
            ];
            const y = scope(() =>
              matmul(left ? transpose(made[0]) : made[0], right ? transpose(made[1]) : made[1])
            );
            const found = await y.data();
            let worst = 0;
            for (let i = 0; i < found.length; i++) {
              const [b, row, col] = [Math.floor(i / m / n), Math.floor(i / n) % m, i % n];
              let sum = 0;
              for (let l = 0; l < k; l++) {
                const x = a[b * m * k + (left ? l * m + row : row * k + l)];
                sum += x * c[b * k * n + (right ? col * k + l : l * n + col)];
              }
              worst = Math.max(worst, Math.abs(found[i] - sum) / (1 + Math.sqrt(k)));
            }
            assertEquals(found.length, batch * m * n);
            assertLess(worst, 1e-5, `[${m},${k}] x [${k},${n}], ${left}, ${right}`);
            for (const each of [...made, y]) each.release();
          }
        }
      }),
  );
}

for (const { name, kernels } of EACH_VARIANT) {
  gpuTest(
    `tiles of all sizes give the same numbers, ${name}`,
    () =>
      withVariant({ name, kernels }, async () => {
        const [a, c] = [
          tensor(normals([70, 96], "a"), [70, 96]),
          tensor(normals([96, 72], "c"), [96, 72]),
        ];
        const results = [];
        for (const tile of TILE_SIZES) {
          pinKernels({ ...kernels, tile });
          const y = matmul(a, c);
          results.push(await y.data());
          y.release();
        }
        assertEquals(results[1], results[0]);
        assertEquals(results[2], results[0]);
        for (const each of [a, c]) each.release();
      }),
  );
}

/** A plain affine layer. */
function affine(x: Grid, w: Grid, b: Grid): Grid {
  const [rows, inner] = x.shape;
  return Grid.of([rows, w.shape[0]], (r, o) => {
    let sum = b.at(o);
    for (let i = 0; i < inner; i++) sum += x.at(r, i) * w.at(o, i);
    return sum;
  });
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const plus = (a: Grid, b: Grid) => new Grid(a.shape, a.data.map((value, i) => value + b.data[i]));
const through = (y: Grid, f: (x: number) => number) => new Grid(y.shape, y.data.map(f));

const quick = (x: number) => x * sigmoid(1.702 * x);

/** An affine layer with all that is done in its pass, on ragged sizes. */
const LAYERS: readonly Row[] = [[5, 7, 3], [9, 8, 12], [33, 20, 68], [2, 12, 130]]
  .flatMap(([rows, inner, outer]): Row[] => {
    const operands: Shape[] = [[rows, inner], [outer, inner], [outer]];
    const residual: Shape = [rows, outer];
    return [
      { op: (x, w, b) => linear(x, w, b), operands, reference: affine },
      {
        op: (x, w, b) => linear(x, w, b, { activation: quickGelu }),
        operands,
        reference: (x, w, b) => through(affine(x, w, b), quick),
      },
      // The derivative of tanh is written in its value.
      {
        op: (x, w, b, r) => linear(x, w, b, { activation: tanh, residual: r }),
        operands: [...operands, residual],
        reference: (x, w, b, r) => plus(through(affine(x, w, b), Math.tanh), r),
      },
      {
        op: (x, w, b, r) => linear(x, w, b, { residual: r }),
        operands: [...operands, residual],
        reference: (x, w, b, r) => plus(affine(x, w, b), r),
      },
      ...[1, 2, 5].map((rank): Row => ({
        op: (x, w, b, down, up, r) =>
          lowRankLinear(
            x,
            w,
            b,
            { down, up, scale: 0.5 },
            { activation: quickGelu, residual: r },
          ),
        operands: [...operands, [rank, inner], [outer, rank], residual],
        reference: (x, w, b, down, up, r) => {
          const changed = Grid.of([outer, inner], (o, i) => {
            let sum = w.at(o, i);
            for (let l = 0; l < rank; l++) sum += 0.5 * up.at(o, l) * down.at(l, i);
            return sum;
          });
          return plus(through(affine(x, changed, b), quick), r);
        },
      })),
      // Two layers of one input: its gradient is summed within a product.
      {
        op: (x, w, b) => add(linear(x, w, b), linear(x, w, b, { activation: quickGelu })),
        operands,
        reference: (x, w, b) => through(affine(x, w, b), (y) => y + quick(y)),
      },
    ];
  });

for (const variant of EACH_VARIANT) {
  gpuTest(
    `linear() adds bias, activation, residual and a change in its pass, ${variant.name}`,
    () =>
      withVariant(variant, async () => {
        for (const row of LAYERS) await checkOp(row);
      }),
  );

  gpuTest(
    `a change's dropout is that of dropout(), forward and back, ${variant.name}`,
    () =>
      withVariant(variant, async () => {
        const [batch, tokens, inner, outer, rank] = [3, 5, 12, 20, 2];
        const shapes: Shape[] = [[batch, tokens, inner], [outer, inner], [outer], [rank, inner], [
          outer,
          rank,
        ]];
        const given = shapes.map((shape, i) => tensor(normals(shape, `${i}`), shape));
        const [x, w, b, down, up] = given;
        const numbers = tensor(Uint32Array.of(4, 0, 2));
        const g = tensor(normals([batch, tokens, outer], "g"), [batch, tokens, outer]);
        const keys: DropoutKey[] = [
          { seed: 7, stream: 3 },
          // Items of nine tokens, cut to five.
          { seed: 7, stream: 3, rows: { numbers, size: 9 * inner } },
        ];
        for (const key of keys) {
          const fused = () =>
            lowRankLinear(x, w, b, { down, up, scale: 0.7, dropout: { p: 0.4, key } });
          const apart = () => {
            const change = linear(mulScalar(linear(dropout(x, 0.4, key), down), 0.7), up);
            return add(linear(x, w, b), change);
          };
          const [one, other] = [fused, apart].map((run) =>
            scope(() => {
              const { value, backward } = vjp(() => scope(run), [x, down, up, b]);
              return [value, ...backward(g)];
            })
          );
          for (const [i, expected] of other.entries()) {
            const [actual, wanted] = [await one[i].data(), await expected.data()];
            assertEquals(actual.length, wanted.length);
            wanted.forEach((value, j) =>
              assertLess(Math.abs(actual[j] - value), 1e-5 * (1 + Math.abs(value)))
            );
          }
          for (const each of [...one, ...other]) each.release();
        }
        for (const each of [...given, numbers, g]) each.release();
      }),
  );

  gpuTest(
    `multiplyThen() keeps a second result, ${variant.name}`,
    () =>
      withVariant(variant, async () => {
        for (const n of [8, 9]) {
          const shapes: Shape[] = [[6, 4], [4, n], [n], [6, n]];
          const given = shapes.map((shape, i) => tensor(normals(shape, `${i}`), shape));
          const [a, c, bias, more] = given;
          const [y, second] = multiplyThen(a, c, {
            expression: "2.0 * (x + bias) + factor * more",
            saved: "x + bias",
            vectors: { bias },
            matrices: { more },
            numbers: { factor: 3 },
          });
          const plain = matmul(a, c);
          const [found, beside, product, shift, added] = await Promise.all(
            [y, second!, plain, bias, more].map((each) => each.data()),
          );
          product.forEach((x, i) => {
            const sum = x + shift[i % n];
            assertLess(Math.abs(beside[i] - sum), 1e-5);
            assertLess(Math.abs(found[i] - (2 * sum + 3 * added[i])), 1e-5);
          });
          for (const each of [...given, y, second!, plain]) each.release();
        }
      }),
  );
}

/** Attention in 64 bits. */
function attended(q: Grid, k: Grid, v: Grid, causal: boolean): Grid {
  const [heads, rows, width] = q.shape;
  const columns = k.shape[1];
  const depth = v.shape[2];
  const y = new Float64Array(heads * rows * depth);
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < rows; i++) {
      const seen = causal ? Math.min(i + 1, columns) : columns;
      const scores = Float64Array.from({ length: seen }, (_, j) => {
        let sum = 0;
        for (let d = 0; d < width; d++) sum += q.at(h, i, d) * k.at(h, j, d);
        return sum / Math.sqrt(width);
      });
      const top = Math.max(...scores);
      const e = scores.map((score) => Math.exp(score - top));
      const total = e.reduce((a, b) => a + b);
      for (let d = 0; d < depth; d++) {
        let sum = 0;
        for (let j = 0; j < seen; j++) sum += e[j] * v.at(h, j, d);
        y[(h * rows + i) * depth + d] = sum / total;
      }
    }
  }
  return new Grid([heads, rows, depth], y);
}

/**
 * Attention of widths that are one, several and no even share of a subgroup, of rows past a block
 * and past a tile.
 */
const ATTENTION: readonly Row[] = [[1, 1, 4, 4], [65, 65, 64, 64], [9, 33, 8, 36], [34, 5, 20, 132]]
  .flatMap(([rows, columns, width, depth]) =>
    [false, true].map((causal): Row => ({
      op: (q, k, v) => attention(q, k, v, { causal }),
      operands: [[2, rows, width], [2, columns, width], [2, columns, depth]],
      reference: (q, k, v) => attended(q, k, v, causal),
    }))
  );

for (const variant of EACH_TILE.filter(({ kernels }) => kernels.variant !== "perLane")) {
  gpuTest(
    `attention() agrees with 64 bits, also backwards, ${variant.name}`,
    () =>
      withVariant(variant, async () => {
        for (const row of ATTENTION) await checkOp(row);
      }),
  );
}

for (const variant of EACH_VARIANT.filter(({ kernels }) => kernels.variant !== "perLane")) {
  gpuTest(
    `attention() takes and gives heads in the order of layers, without a copy, ${variant.name}`,
    () =>
      withVariant(variant, () => {
        const [batch, tokens, heads, width] = [2, 5, 3, 8];
        const flat = tensor(normals([batch, tokens, heads * width], "q"), [
          batch,
          tokens,
          heads * width,
        ]);
        const before = counters.dispatches;
        const y = scope(() => {
          const split = permute(reshape(flat, [batch, tokens, heads, width]), [0, 2, 1, 3]);
          const mixed = attention(split, split, split);
          return reshape(permute(mixed, [0, 2, 1, 3]), [batch, tokens, heads * width]);
        });
        assertEquals(counters.dispatches - before, 1);
        for (const each of [flat, y]) each.release();
      }),
  );
}

gpuTest("an exact GELU is as exact in a layer's pass", async () => {
  const [x, w] = [tensor(normals([6, 8], "x"), [6, 8]), tensor(normals([12, 8], "w"), [12, 8])];
  const [one, other] = scope(() => [linear(x, w, null, { activation: gelu }), gelu(linear(x, w))]);
  assertEquals(await one.data(), await other.data());
  for (const each of [x, w, one, other]) each.release();
});
