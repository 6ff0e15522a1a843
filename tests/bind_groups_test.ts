/** A repeated step makes no bind group, and no step holds more of them than a driver can. */

import { assert, assertEquals, assertGreater } from "@std/assert";
import { ones } from "../autograd/ops/create.ts";
import { add, mulScalar } from "../autograd/ops/pointwise.ts";
import { type AdapterConfig, DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { attach } from "../blocklora/methods/lookup.ts";
import { DEFAULT_RECIPE } from "../blocklora/methods/recipe.ts";
import { Trainer } from "../blocklora/training/trainer.ts";
import type { MemoryPlan } from "../blocklora/cost/memory_plan.ts";
import { tensor } from "../tensor/create.ts";
import { currentEngine } from "../tensor/engine.ts";
import { counters, trim } from "../tensor/queue.ts";
import { keep, scope } from "../tensor/scope.ts";
import { gpuTest } from "./gpu.ts";
import { clipOf, randomInputs, TINY } from "./reference.ts";

const [IMAGES, CLASSES, STEPS] = [6, 7, 5];
/** The value of MAX_BIND_GROUPS in tensor/queue.ts. */
const MOST = 6144;

/** The number of bind groups that each of a few steps of a small model makes. */
async function madeBy(
  memoryPlan: MemoryPlan,
  config: Partial<AdapterConfig> = {},
): Promise<number[]> {
  const clip = await clipOf(TINY);
  const { pixels, ids, prompts: rows } = randomInputs(TINY, IMAGES, CLASSES);
  const prompts = clip.text.prompts(ids, rows);
  const adapters = attach(clip, { ...DEFAULT_ADAPTER, ...config }, 1);
  const trainer = new Trainer(clip, adapters, prompts, DEFAULT_RECIPE, memoryPlan);
  const labels = Int32Array.from({ length: IMAGES }, (_, i) => i % CLASSES);
  const made: number[] = [];
  for (let step = 0; step < STEPS; step++) {
    const { bindGroups } = counters;
    const stats = trainer.step({ pixels, labels });
    await stats.data();
    stats.release();
    made.push(counters.bindGroups - bindGroups);
  }
  for (const each of [trainer, adapters, prompts, clip]) each.release();
  return made;
}

const PLANS: readonly MemoryPlan[] = [false, true].flatMap((recompute) =>
  [0, 2].flatMap((textChunk) => [0, 4].map((microBatch) => ({ recompute, textChunk, microBatch })))
);

for (const memoryPlan of PLANS) {
  gpuTest(
    `from the third step on no bind group is made: ${JSON.stringify(memoryPlan)}`,
    async () => {
      trim();
      const [first, , ...later] = await madeBy(memoryPlan);
      assertGreater(first, 0);
      assertEquals(later, later.map(() => 0));
    },
  );
}

gpuTest("from the third step on no bind group is made: an image tower alone, LoRA", async () => {
  const config = { encoder: "vision", method: "lora", blocks: 1 } as const;
  const [, , ...later] = await madeBy({}, config);
  assertEquals(later, later.map(() => 0));
});

gpuTest("tensors get the same buffers, whatever order they were released in", () => {
  trim();
  const made = () => scope(() => Array.from({ length: 4 }, (_, i) => keep(mulScalar(x, i))));
  const x = ones([100]);
  for (const order of [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]]) {
    const { bindGroups } = counters;
    const some = made();
    // The four runs share a kernel, and each has its output: four groups the first time, then none.
    assertEquals(counters.bindGroups - bindGroups, order[0] === 0 ? 4 : 0);
    for (const i of order) some[i].release();
  }
  x.release();
});

gpuTest("the queue holds no more bind groups than fit, and uses none that it dropped", async () => {
  trim();
  const { bindGroups } = counters;
  const [x, y] = [tensor([1, 2, 3]), tensor([10, 20, 30])];
  // Each live sum has a separate buffer, and so a separate group.
  const sums = scope(() => Array.from({ length: MOST + 500 }, () => keep(add(x, y))));
  assert(counters.bindGroups - bindGroups >= sums.length);
  assert(
    currentEngine().queue.bindGroups.size <= MOST,
    `${currentEngine().queue.bindGroups.size} are alive`,
  );
  // The groups of the first sums were dropped, and are made again.
  const again = sums.slice(0, 20).map((sum) => add(sum, x));
  const found = await Promise.all([...again, sums.at(-1)!].map((sum) => sum.data()));
  assertEquals(found.map((values) => [...values]), [
    ...again.map(() => [12, 24, 36]),
    [11, 22, 33],
  ]);
  for (const each of [x, y, ...sums, ...again]) each.release();
  trim();
  assertEquals(currentEngine().queue.bindGroups.size, 0);
});
