import {
  assert,
  assertEquals,
  assertGreater,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { linear } from "../autograd/ops/linear.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import { mean, sum } from "../autograd/ops/reduce.ts";
import { square, sub } from "../autograd/ops/pointwise.ts";
import { AdamW } from "../autograd/optim/adam.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import { compileAhead } from "../kernels/warm_up.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { tensor } from "../tensor/create.ts";
import { gpu } from "../tensor/device.ts";
import { profile, profileTable } from "../tensor/profile.ts";
import { counters, flush } from "../tensor/queue.ts";
import { Random } from "../tensor/random.ts";
import { scope } from "../tensor/scope.ts";
import { gpuTest } from "./gpu.ts";

function normals(...shape: number[]): ReturnType<typeof tensor> {
  const random = new Random(1, "profile");
  const count = shape.reduce((a, b) => a * b, 1);
  return tensor(Float32Array.from({ length: count }, () => random.normal()), shape);
}

gpuTest(
  "profile() gives calls, work and time of each kernel, and changes no result",
  async () => {
    const [x, w] = [normals(64, 96), normals(96, 32)];
    const before = matmul(x, w); // recorded earlier, and not counted
    const found = await profile(() => scope(() => sum(matmul(matmul(x, w), normals(32, 8)))));
    const { value, rows, gpuMs, wallMs, submits } = found;
    const products = rows.filter(({ kernel }) => kernel.startsWith("matmul"));
    assertEquals(products.reduce((calls, row) => calls + row.calls, 0), 2);
    assertEquals(
      products.reduce((flops, row) => flops + row.flops, 0),
      2 * 64 * 96 * 32 + 2 * 64 * 32 * 8,
    );
    assertGreater(submits, 0);
    if (gpu().features.has("timestamp-query")) {
      assert(rows.every(({ ms }) => ms !== null && ms >= 0));
      assert(gpuMs !== null && gpuMs <= wallMs * 1.5, `${gpuMs} ms of ${wallMs}`);
    }
    const plain = scope(() => sum(matmul(matmul(x, w), normals(32, 8))));
    assertEquals(await value.item(), await plain.item());

    const table = profileTable(found);
    for (const { kernel } of rows) assertStringIncludes(table, kernel.slice(0, 60));
    assertStringIncludes(table, "GFLOP/s");
    assertStringIncludes(profileTable(found, 1), `and ${rows.length - 1} more`);
    for (const each of [x, w, before, value, plain]) each.release();
  },
);

gpuTest("profile() of more dispatches than a query set holds submits between them", async () => {
  const x = tensor([1, 2, 3]);
  const { value, rows, submits } = await profile(() => {
    for (let i = 0; i < 2100; i++) pointwise("x + 1.0", { x }, [3]).release();
    return 7;
  });
  assertEquals(value, 7);
  assertEquals(rows.map(({ calls }) => calls), [2100]);
  assertGreater(submits, 1); // one for 2048 dispatches, unless a device takes work sooner
  await assertRejects(() => profile(() => Promise.reject(new Error("no"))), Error, "no");
  // After that, nothing is timed.
  const { dispatches } = counters;
  pointwise("x + 1.0", { x }, [3]).release();
  assertEquals(counters.dispatches, dispatches + 1);
  x.release();
});

gpuTest("compileAhead() compiles what a step needs, and does nothing else", async () => {
  const [x, y, w, b] = [normals(20, 12), normals(20, 4), normals(4, 12), normals(4)];
  const optimizer = new AdamW([w, b], { learningRate: 0.1 });
  const step = () =>
    scope(() => {
      const loss = () => mean(square(sub(linear(x, w, b), y)));
      const { value, grads } = valueAndGrad(loss, [w, b]);
      optimizer.step(grads);
      return value;
    });
  const before = await w.data();
  const progress: number[] = [];
  await compileAhead(() => step().release(), (ready, total) => progress.push(ready / total));
  assertEquals(await w.data(), before);
  assertEquals(optimizer.steps, 0);
  assertEquals(progress.at(-1), 1);

  const device = gpu();
  const made: string[] = [];
  const original = device.createComputePipeline.bind(device);
  Object.defineProperty(device, "createComputePipeline", {
    configurable: true,
    value: (
      descriptor: GPUComputePipelineDescriptor,
    ) => (made.push(descriptor.label!), original(descriptor)),
  });
  const value = step();
  flush();
  Reflect.deleteProperty(device, "createComputePipeline");
  assertEquals(made, []);
  assertGreater(await value.item(), 0);
  assertEquals(optimizer.steps, 1);
  // Everything is compiled: there is nothing more to do.
  await compileAhead(() => step().release(), () => progress.push(2));
  assertEquals(progress.at(-1), 1);
  await assertRejects(() => compileAhead(() => Promise.resolve()), TypeError, "await outside it");
  optimizer.release();
  for (const each of [x, y, w, b, value]) each.release();
});
