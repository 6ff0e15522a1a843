/** Buffers are counted, reused, and given back. */

import { assert, assertEquals, assertLess } from "@std/assert";
import { ones } from "../autograd/ops/create.ts";
import { linear } from "../autograd/ops/linear.ts";
import { add, quickGelu, square, sub } from "../autograd/ops/pointwise.ts";
import { mean } from "../autograd/ops/reduce.ts";
import { Sgd } from "../autograd/optim/sgd.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import { tensor } from "../tensor/create.ts";
import { currentEngine } from "../tensor/engine.ts";
import { memory, resetPeak } from "../tensor/memory.ts";
import { counters, flush, trim } from "../tensor/queue.ts";
import { Random } from "../tensor/random.ts";
import { scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";

gpuTest("memory() counts live, peak and pooled bytes", () => {
  trim();
  const { liveBytes, liveBuffers } = memory();
  resetPeak();
  const x = Tensor.empty([1024]);
  assertEquals(memory().liveBytes, liveBytes + 4096);
  assertEquals(memory().liveBuffers, liveBuffers + 1);
  scope(() => {
    add(x, x);
  });
  const { peakBytes, pooledBytes, peakHeldBytes, byCategory, peakByCategory, ...live } = memory();
  assertEquals(live, { liveBytes: liveBytes + 4096, liveBuffers: liveBuffers + 1 });
  assertEquals([peakBytes, pooledBytes, peakHeldBytes], [liveBytes + 8192, 4096, peakBytes]);
  const sum = (bytes: Record<string, number>) => Object.values(bytes).reduce((a, b) => a + b);
  assertEquals([sum(byCategory), sum(peakByCategory)], [live.liveBytes, peakBytes]);
  resetPeak();
  assertEquals(memory().peakBytes, liveBytes + 4096);
  x.release();
  assertEquals(memory().pooledBytes, 8192);
  trim();
  assertEquals(memory().pooledBytes, 0);
});

gpuTest("a released buffer is reused at once, after the work that reads it", async () => {
  trim();
  const values = Array.from({ length: 50 }, (_, i) => {
    const x = tensor([i, i]);
    const y = add(x, x);
    x.release();
    return y;
  });
  // There are 50 results, and one buffer that all operands took in turn.
  assertEquals(memory().pooledBytes, 256);
  const found = await Promise.all(values.map((y) => y.data()));
  assertEquals(found.map(([first]) => first), values.map((_, i) => 2 * i));
  for (const y of values) y.release();
});

gpuTest(
  "200 training steps leave live and pooled bytes unchanged, each with one submit",
  async () => {
    const random = new Random(1, "memory");
    const normal = (...shape: number[]) =>
      tensor(
        Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => random.normal()),
        shape,
      );
    const [x, target] = [normal(33, 7), normal(33, 1)];
    const parameters = [normal(65, 7), normal(65), normal(1, 65)];
    const optimizer = new Sgd(parameters, { learningRate: 0.01, momentum: 0.5 });
    const step = async () => {
      const loss = scope(() => {
        const { value, grads } = valueAndGrad(() => {
          const hidden = quickGelu(linear(x, parameters[0], parameters[1]));
          return mean(square(sub(linear(hidden, parameters[2]), target)));
        }, parameters);
        optimizer.step(grads);
        return value;
      });
      const value = await loss.item();
      loss.release();
      return value;
    };
    const first = await step();
    const [before, { submits, readbacks }] = [memory(), { ...counters }];
    let last = first;
    for (let i = 0; i < 200; i++) last = await step();
    assertEquals(memory(), before);
    assertEquals([counters.submits - submits, counters.readbacks - readbacks], [200, 200]);
    assertLess(last, first / 2);
    for (const each of [x, target, optimizer, ...parameters]) each.release();
  },
);

gpuTest("work that does not fit one submit is handed over in several", async () => {
  const x = ones([3]);
  const { submits } = counters;
  const total = scope(() => {
    let y = x;
    for (let i = 0; i < 5000; i++) y = scope(() => add(y, x));
    return y;
  });
  assertEquals([...await total.data()], [5001, 5001, 5001]);
  assertEquals(counters.submits - submits, Math.ceil(5000 / currentEngine().queue.recordedAtMost));
  for (const each of [x, total]) each.release();
});

gpuTest("a pool that grew beyond the peak of live bytes is cleared", () => {
  trim();
  // Every size is different, so that no buffer is reused: 1.6 GB in all, never more than 8 MB live.
  for (let i = 0; i < 200; i++) Tensor.empty([2 ** 21 + i * 2 ** 17]).release();
  flush();
  assert(memory().pooledBytes < 2 ** 29);
  trim();
});
