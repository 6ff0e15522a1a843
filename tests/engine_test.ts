/** Each engine has separate state, and a warm-up leaves that state as it was. */

import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { matmul } from "../autograd/ops/matmul.ts";
import { square } from "../autograd/ops/pointwise.ts";
import { sum } from "../autograd/ops/reduce.ts";
import { reshape } from "../autograd/ops/view.ts";
import { AdamW } from "../autograd/optim/adam.ts";
import { Sgd } from "../autograd/optim/sgd.ts";
import { needsGradient, valueAndGrad } from "../autograd/tape.ts";
import { pinKernels, variant } from "../kernels/variant.ts";
import { compileAhead } from "../kernels/warm_up.ts";
import { tensor } from "../tensor/create.ts";
import { dryTwin, gpuName, init, initDry, onDryEngine, shutDown } from "../tensor/device.ts";
import { currentEngine } from "../tensor/engine.ts";
import { DeviceLostError } from "../tensor/errors.ts";
import { measure } from "../tensor/measure.ts";
import { inCategory, limitMemory, memory } from "../tensor/memory.ts";
import { counters, flush, trim } from "../tensor/queue.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";

/** Runs products, a tape and an optimizer's state: what they cost, and what they leave. */
function work() {
  const x = tensor([[1, 2, 3], [4, 5, 6], [7, 8, 10]]);
  const optimizer = new Sgd([x], { momentum: 0.5 });
  const { rows, savedBytes, peakByCategory } = measure(() =>
    scope(() => optimizer.step(valueAndGrad(() => sum(square(matmul(x, x))), [x]).grads))
  );
  flush();
  const { liveBytes, liveBuffers, byCategory } = memory();
  optimizer.release();
  x.release();
  return { rows, savedBytes, peakByCategory, liveBytes, liveBuffers, byCategory };
}

/** Every figure of the current engine. */
const figures = () => ({ ...memory(), ...counters });

gpuTest(
  "a dry engine beside a real one counts the same, in any order, and neither sees the other",
  () => {
    const dry = () => onDryEngine(dryTwin(), () => ({ cost: work(), figures: figures() }));
    const before = figures();
    const first = dry();
    assertEquals(figures(), before);
    const real = work();
    const after = figures();
    const second = dry();
    assertEquals(first, second);
    assertEquals(first.cost, real);
    assertEquals(figures(), after);
    assertNotEquals(after.dispatches, before.dispatches);
    assertEquals(first.figures.dispatches, after.dispatches - before.dispatches);
    assertEquals(first.figures.liveBuffers, 0);
  },
);

gpuTest("a dry engine in the middle of real work changes none of it", async () => {
  const x = tensor([[1, 2], [3, 4]]);
  const { value, grads } = scope(() =>
    valueAndGrad(() => {
      const y = inCategory("adapterWeights", () => {
        onDryEngine(dryTwin(), () => {
          assert(!needsGradient(x));
          assertEquals(work().byCategory.adapterWeights, 0);
        });
        assert(needsGradient(x));
        return matmul(x, x);
      });
      onDryEngine({}, work);
      return sum(y);
    }, [x])
  );
  // d Σ (x x) / dx_ij = Σ_k x_jk + Σ_k x_ki
  assertEquals([...await grads[0].data()], [3 + 4, 7 + 4, 3 + 6, 7 + 6]);
  assertEquals(await value.item(), 7 + 10 + 15 + 22);
  for (const each of [x, value, ...grads]) each.release();
});

gpuTest("a tensor is used only on its engine, but read and released from anywhere", async () => {
  const x = tensor([2, 3]);
  const { liveBuffers } = memory();
  let made: Tensor | undefined;
  const y = tensor([5]);
  onDryEngine({}, () => {
    assertThrows(() => square(x), Error, "it was made on another engine");
    assertEquals(memory().liveBuffers, 0);
    made = keep(tensor([7, 8]));
    y.release();
    assertEquals(memory().liveBuffers, 1);
  });
  assertEquals(memory().liveBuffers, liveBuffers);
  assertThrows(() => scope(() => square(made!)), Error, "it was made on another engine");
  assertEquals([...await made!.data()], [0, 0]);
  made!.release();
  assertEquals([...await x.data()], [2, 3]);
  assertEquals(memory().liveBuffers, liveBuffers);
  x.release();
});

gpuTest("onDryEngine() restores the previous engine, whatever happens", () => {
  const engine = currentEngine();
  assertThrows(
    () => {
      onDryEngine({}, () => {
        throw new Error("as planned");
      });
    },
    Error,
    "as planned",
  );
  assert(currentEngine() === engine);
  assertThrows(() => onDryEngine({}, () => Promise.resolve()), TypeError, "await outside it");
  assert(currentEngine() === engine);
  const names = onDryEngine({}, () => [gpuName(), onDryEngine({ lanes: 4 }, gpuName), gpuName()]);
  assertEquals(names, ["dry run", "dry run", "dry run"]);
  assertNotEquals(gpuName(), "dry run");
});

gpuTest("limits and pinned kernels belong to one engine", () => {
  const ours = variant();
  onDryEngine({ software: true }, () => {
    limitMemory(1000);
    pinKernels({ variant: "workgroup" });
    assertEquals(variant(), "workgroup");
    onDryEngine({ software: true }, () => assertEquals(variant(), "perLane"));
    assertEquals(currentEngine().pool.limit, 1000);
  });
  assertEquals(currentEngine().pool.limit, Infinity);
  assertEquals(variant(), ours);
});

gpuTest("a warm-up leaves counts of steps, state and parameters as they were", async () => {
  const values = [3, -2, 0.5];
  const x = tensor(values);
  const rate = (step: number) => 0.1 / (1 + step);
  const optimizer = new AdamW([x], { learningRate: rate });
  const step = (of: AdamW) => scope(() => of.step(valueAndGrad(() => sum(square(x)), [x]).grads));
  const snapshot = async () => ({
    steps: optimizer.steps,
    rates: optimizer.rates(),
    x: [...await x.data()],
    state: await Promise.all(
      Object.values(optimizer.state().tensors).map(async (each) => [...await each.data()]),
    ),
  });
  const untouched = await snapshot();
  assertEquals([untouched.steps, untouched.x], [0, values]);
  let within: number[] = [];
  let fresh: AdamW | undefined;
  await compileAhead(() => {
    step(optimizer);
    step(optimizer);
    fresh = new AdamW([x]);
    step(fresh);
    within = [optimizer.steps, fresh.steps];
  });
  // The body sees the steps that it takes, as any body would; afterwards they are undone.
  assertEquals(within, [2, 1]);
  assertEquals(fresh!.steps, 0);
  assertEquals(await snapshot(), untouched);
  step(optimizer);
  const stepped = await snapshot();
  assertEquals(stepped.steps, 1);
  await compileAhead(() => step(optimizer));
  assertEquals(await snapshot(), stepped);
  await assertRejects(
    () =>
      compileAhead(() => {
        step(optimizer);
        throw new Error("as planned");
      }),
    Error,
    "as planned",
  );
  assertEquals(await snapshot(), stepped);
  for (const each of [optimizer, fresh!]) each.release();
  x.release();
});

gpuTest("a warm-up survives a memory limit that makes it give buffers back", async () => {
  const x = tensor(Array.from({ length: 64 }, () => Array<number>(64).fill(1)));
  trim();
  const { liveBytes } = memory();
  // There is room for one more matrix: each new one evicts the one before it.
  limitMemory(liveBytes + 64 * 64 * 4 + 8192);
  try {
    await compileAhead(() =>
      scope(() => {
        scope(() => void matmul(x, x));
        scope(() => void square(reshape(x, [32, 128])));
        tensor(new Float32Array(5000));
      })
    );
  } finally {
    limitMemory(Infinity);
  }
  assertEquals(memory().liveBytes, liveBytes);
  const y = matmul(x, x);
  assertEquals((await y.data())[0], 64);
  for (const each of [x, y]) each.release();
});

gpuTest("a warm-up on one engine goes on when a dry engine is used meanwhile", async () => {
  const x = tensor([[1, 2], [3, 4]]);
  const ready: number[] = [];
  const warming = compileAhead(
    () => scope(() => void matmul(x, x)),
    (done) => ready.push(done),
  );
  const { dispatches } = onDryEngine({}, () => (work(), figures()));
  await warming;
  assert(dispatches > 0);
  const y = matmul(x, x);
  assertEquals([...await y.data()], [7, 10, 15, 22]);
  for (const each of [x, y]) each.release();
});

Deno.test("init() and initDry() may follow in any order, and end the previous engine", async () => {
  initDry();
  const dry = currentEngine();
  assertEquals(gpuName(), "dry run");
  await init();
  const real = currentEngine();
  assert(dry !== real);
  await init();
  assert(currentEngine() === real);
  const x = tensor([1, 2]);
  initDry();
  assertEquals(memory().liveBuffers, 0);
  const { pool } = real;
  assertEquals(pool.figures.liveBuffers, 1);
  await assertRejects(() => x.data(), DeviceLostError);
  x.release();
  assertEquals(pool.figures.liveBuffers, 0);
  await init();
  const y = tensor([3]);
  assertEquals(await y.item(), 3);
  y.release();
  // A device that was shut down is not handed out again.
  shutDown();
  await init();
  const z = tensor([4]);
  assertEquals(await z.item(), 4);
  z.release();
  shutDown();
});
