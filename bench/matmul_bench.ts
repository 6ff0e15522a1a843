/**
 * Matrix products of CLIP's shapes against a plain loop. Each measurement runs several products and
 * waits once, since a wait costs as much as a small product.
 *
 * @module
 */

import { matmul } from "../autograd/ops/matmul.ts";
import { sum } from "../autograd/ops/reduce.ts";
import { transpose } from "../autograd/ops/view.ts";
import { tensor } from "../tensor/create.ts";
import { init } from "../tensor/device.ts";
import { Random } from "../tensor/random.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

await init();
const random = new Random(1);
const matrix = (rows: number, cols: number): Float32Array<ArrayBuffer> =>
  Float32Array.from({ length: rows * cols }, () => random.uniform() - 0.5);

const RUNS = 4;

/** Runs `product` several times, and waits for the last. */
async function several(product: () => Tensor): Promise<void> {
  const last = scope(() => {
    let y = product();
    for (let i = 1; i < RUNS; i++) y = product();
    return sum(y);
  });
  await last.item();
  last.release();
}

for (const [m, k, n] of [[256, 256, 256], [512, 512, 512], [544, 128, 512], [1576, 768, 768]]) {
  const group = `[${m},${k}] x [${n},${k}]ᵀ, ${RUNS} products, ${
    (RUNS * 2 * m * n * k / 1e9).toFixed(3)
  } GFLOP`;
  const [x, w] = [matrix(m, k), matrix(n, k)];
  const [a, b] = [tensor(x, [m, k]), tensor(w, [n, k])];
  if (m < 1000) {
    Deno.bench({ name: "plain loop", group, baseline: true, n: 3 }, () => {
      for (let run = 0; run < RUNS; run++) plain(x, w, m, n, k);
    });
  }
  const product = () => matmul(a, transpose(b));
  await several(product); // compiles
  Deno.bench({ name: "matmul()", group, n: 10 }, () => several(product));
}

function plain(x: Float32Array, w: Float32Array, m: number, n: number, k: number): Float32Array {
  const y = new Float32Array(m * n);
  for (let row = 0; row < m; row++) {
    for (let col = 0; col < n; col++) {
      let total = 0;
      for (let i = 0; i < k; i++) total += x[row * k + i] * w[col * k + i];
      y[row * n + col] = total;
    }
  }
  return y;
}
