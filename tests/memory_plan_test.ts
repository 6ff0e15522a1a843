/**
 * A `MemoryPlan` changes the memory that a step needs, and no gradient. Collapsed blocks take the
 * same steps.
 */

import { assert, assertAlmostEquals, assertEquals, assertGreater, assertLess } from "@std/assert";
import { sum } from "../autograd/ops/reduce.ts";
import { add, mul, mulScalar, square } from "../autograd/ops/pointwise.ts";
import { concat } from "../autograd/ops/view.ts";
import { gradientsNow, recompute } from "../autograd/recompute.ts";
import { valueAndGrad, vjp } from "../autograd/tape.ts";
import type { AdapterConfig, LowRankAdapters } from "../blocklora/methods/adapter_config.ts";
import { attach, METHODS, presetConfig } from "../blocklora/methods/lookup.ts";
import { DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { encodePrompts } from "../blocklora/training/classifier.ts";
import { DEFAULT_RECIPE, type Recipe } from "../blocklora/methods/recipe.ts";
import { Trainer, type TrainingBatch } from "../blocklora/training/trainer.ts";
import type { MemoryPlan } from "../blocklora/cost/memory_plan.ts";
import type { Clip } from "../clip/clip.ts";
import type { Prompts } from "../clip/text.ts";
import { tensor } from "../tensor/create.ts";
import { memory } from "../tensor/memory.ts";
import { measure, total } from "../tensor/measure.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";
import { clipOf, randomInputs, TINY } from "./reference.ts";

const IMAGES = 5;
const CLASSES = 7;
const RECIPE: Recipe = { ...DEFAULT_RECIPE, learningRate: 5e-3, logitScale: 10, iterations: 24 };

/** A small model with prompts of several lengths, and a batch. */
async function setting(): Promise<{ clip: Clip; prompts: Prompts; batch: TrainingBatch }> {
  const clip = await clipOf(TINY);
  const { pixels, ids, prompts: rows } = randomInputs(TINY, IMAGES, CLASSES);
  const labels = Int32Array.from({ length: IMAGES }, (_, i) => (3 * i + 1) % CLASSES);
  return { clip, prompts: clip.text.prompts(ids, rows), batch: { pixels, labels } };
}

async function withAdapters(
  config: Partial<AdapterConfig>,
  body: (
    made: Awaited<ReturnType<typeof setting>> & { adapters: LowRankAdapters },
  ) => Promise<void>,
): Promise<void> {
  const made = await setting();
  const adapters = attach(made.clip, { ...DEFAULT_ADAPTER, ...config }, 3);
  try {
    await body({ ...made, adapters });
  } finally {
    adapters.release();
    made.prompts.release();
    made.clip.release();
  }
}

const PLANS: MemoryPlan[] = [false, true].flatMap((recompute) =>
  [0, 1, 3, CLASSES].flatMap((textChunk) =>
    [0, 1, 2].map((microBatch) => ({ recompute, textChunk, microBatch }))
  )
);

/** Loss, accuracy and the elements of every gradient. */
async function found(trainer: Trainer, batch: TrainingBatch): Promise<Float32Array[]> {
  const { loss, accuracy, grads } = trainer.gradients(batch);
  const all = [loss, accuracy, ...grads];
  const values = await Promise.all(all.map((tensor) => tensor.data()));
  for (const tensor of all) tensor.release();
  return values as Float32Array[];
}

for (const each of METHODS) {
  const { name: method, flags } = each;
  const values = { rank: 4, dropout: 0.25, ...("blocks" in flags && { blocks: 2 }) };
  const config = presetConfig(each, values) as AdapterConfig;
  gpuTest(`every MemoryPlan has the gradients of the plain step: ${method}`, async () => {
    await withAdapters(config, async ({ clip, adapters, prompts, batch }) => {
      const plain = new Trainer(clip, adapters, prompts, RECIPE);
      // Takes two steps away from the zero B, where A has no gradient.
      for (let i = 0; i < 2; i++) plain.step(batch).release();
      plain.release();
      const before = memory().liveBuffers;
      const expected = await (async () => {
        const trainer = new Trainer(clip, adapters, prompts, RECIPE);
        return await found(trainer, batch).finally(() => trainer.release());
      })();
      assert(expected.slice(2).every((values) => values.some((value) => value !== 0)));
      for (const memoryPlan of PLANS) {
        const trainer = new Trainer(clip, adapters, prompts, RECIPE, memoryPlan);
        const values = await found(trainer, batch);
        trainer.release();
        assertEquals(memory().liveBuffers, before, JSON.stringify(memoryPlan));
        for (const [i, want] of expected.entries()) {
          const largest = Math.max(...want.map(Math.abs), 1e-30);
          const error = Math.max(...want.map((value, j) => Math.abs(value - values[i][j])));
          assertLess(error / largest, 1e-4, `${JSON.stringify(memoryPlan)}, tensor ${i}`);
        }
      }
    });
  });
}

gpuTest("a MemoryPlan without a text adapter chunks what runs once", async () => {
  await withAdapters({ encoder: "vision" }, async ({ clip, adapters, prompts, batch }) => {
    const losses = await Promise.all([{}, { textChunk: 2, microBatch: 2, recompute: true }].map(
      async (memoryPlan) => {
        const trainer = new Trainer(clip, adapters, prompts, RECIPE, memoryPlan);
        const [loss] = await found(trainer, batch);
        trainer.release();
        return loss[0];
      },
    ));
    assertAlmostEquals(losses[0], losses[1], 1e-5);
  });
});

gpuTest(
  "encodePrompts() in chunks gives the features of all prompts at once",
  async () => {
    const clip = await clipOf(TINY);
    const { ids, prompts: rows } = randomInputs(TINY, 1, 150);
    const prompts = clip.text.prompts(ids, rows);
    const before = memory().liveBuffers;
    const [full, chunked] = [clip.textFeatures(prompts), encodePrompts(clip, prompts)];
    const [expected, actual] = [await full.data(), await chunked.data()];
    for (const [i, value] of expected.entries()) assertAlmostEquals(actual[i], value, 1e-5);
    for (const made of [full, chunked]) made.release();
    assertEquals(memory().liveBuffers, before);
    prompts.release();
    clip.release();
  },
);

gpuTest("every MemoryPlan holds fewer bytes, at the cost of the passes that it says", async () => {
  await withAdapters({}, ({ clip, adapters, prompts, batch }) => {
    const cost = (memoryPlan: MemoryPlan) => {
      const trainer = new Trainer(clip, adapters, prompts, RECIPE, memoryPlan);
      const measured = measure(() => trainer.step(batch).release());
      trainer.release();
      return measured;
    };
    const plain = cost({});
    const flops = (of: ReturnType<typeof cost>, label: string) => total(of.rows, { label }).flops;
    const saved = (of: ReturnType<typeof cost>) => of.peakByCategory.savedActivations;
    for (const memoryPlan of [{ recompute: true }, { textChunk: 1 }, { microBatch: 1 }]) {
      const lean = cost(memoryPlan);
      assertLess(lean.peakBytes, plain.peakBytes, JSON.stringify(memoryPlan));
      assertLess(saved(lean), saved(plain), JSON.stringify(memoryPlan));
    }
    // Gradients of micro-batches are computed at once: nothing of a tower runs twice.
    assertEquals(flops(cost({ microBatch: 1 }), "vision"), flops(plain, "vision"));
    assertEquals(flops(cost({ microBatch: 1 }), "text"), flops(plain, "text"));
    assertGreater(flops(cost({ recompute: true }), "vision"), flops(plain, "vision"));
    assertEquals(flops(cost({ textChunk: 2 }), "vision"), flops(plain, "vision"));
    return Promise.resolve();
  });
});

/** The losses of a few steps, and the sum of each adapter's blocks after them. */
async function train(config: Partial<AdapterConfig>, recipe: Partial<Recipe>) {
  const trained: { losses: number[]; ups: Float32Array[]; downs: Float32Array[]; state: number } = {
    losses: [],
    ups: [],
    downs: [],
    state: 0,
  };
  await withAdapters(config, async ({ clip, adapters, prompts, batch }) => {
    const trainer = new Trainer(clip, adapters, prompts, { ...RECIPE, ...recipe });
    trained.state = memory().byCategory.optimizerState;
    for (let i = 0; i < RECIPE.iterations; i++) {
      const stats = trainer.step(batch);
      trained.losses.push((await stats.data())[0]);
      stats.release();
    }
    trainer.release();
    for (const { down, ups } of adapters.byModule.values()) {
      const values = await Promise.all(ups.map((up) => up.data()));
      trained.downs.push(await down.data() as Float32Array);
      trained.ups.push(
        (values[0] as Float32Array).map((_, i) => values.reduce((total, up) => total + up[i], 0)),
      );
    }
  });
  return trained;
}

/**
 * Adam divides by a gradient's size: where a gradient is near 0, its rounding moves an element by a
 * fraction of the rate. A few elements may therefore be off by a fifth of the rate, as in the tests
 * against PyTorch's trajectories.
 */
function assertClose(actual: Float32Array[], expected: Float32Array[], rate: number): void {
  let [strays, count] = [0, 0];
  for (const [i, values] of expected.entries()) {
    for (const [j, value] of values.entries()) {
      const error = Math.abs(actual[i][j] - value);
      assertLess(error, 0.2 * rate);
      count++;
      if (error > 1e-5 + 1e-3 * Math.abs(value)) strays++;
    }
  }
  assertLess(strays / count, 2e-3);
}

for (const maxNorm of [0, 0.05]) {
  for (const [rank, blocks] of [[8, 4], [2, 2]]) {
    const name = `(${rank}, ${blocks}), gradients ${maxNorm ? "clipped" : "free"}`;
    gpuTest(`collapsed Block-LoRA takes the steps of Block-LoRA ${name}`, async () => {
      const recipe = { maxNorm, weightDecay: 0.1 };
      const blockLora = await train({ method: "block-lora", rank, blocks }, recipe);
      const collapsed = await train({ method: "block-lora-collapsed", rank, blocks }, recipe);
      for (const [i, loss] of blockLora.losses.entries()) {
        assertAlmostEquals(collapsed.losses[i], loss, 1e-3);
      }
      assertLess(blockLora.losses.at(-1)!, 0.9 * blockLora.losses[0]);
      assertClose(collapsed.downs, blockLora.downs, RECIPE.learningRate);
      assertClose(collapsed.ups, blockLora.ups, blocks * RECIPE.learningRate);
      assertLess(collapsed.state, blockLora.state);
    });
  }
}

gpuTest("LoRA takes the same steps in two thin products and in a dense one", async () => {
  const thin = await train({ method: "lora", rank: 3, blocks: 1 }, {});
  const dense = await train({ method: "lora-dense", rank: 3, blocks: 1 }, {});
  for (const [i, loss] of thin.losses.entries()) assertAlmostEquals(dense.losses[i], loss, 1e-3);
  assertLess(thin.losses.at(-1)!, 0.9 * thin.losses[0]);
  assertClose(dense.ups, thin.ups, RECIPE.learningRate);
});

const vector = (...values: number[]) => tensor(values);

gpuTest("recompute() and gradientsNow() nest, alone and in each other", async () => {
  const [x, y, unused] = [vector(1, -2, 3), vector(0.5, 4, -1), vector(1, 1, 1)];
  // The function is Σ (x y)² + 2 Σ x², with the gradients 2 x y² + 4 x and 2 x² y.
  const product = () => square(mul(x, y));
  const rest = () => mulScalar(square(x), 2);
  const ways: Record<string, () => Tensor> = {
    plain: () => sum(concat([product(), rest()], 0)),
    recomputed: () => sum(concat([recompute([], product), recompute([], rest)], 0)),
    nested: () =>
      sum(recompute([], () => concat([recompute([], product), recompute([], rest)], 0))),
  };
  const before = memory().liveBuffers;
  for (const [name, way] of Object.entries(ways)) {
    const { value, grads } = valueAndGrad(way, [x, y, unused]);
    const values = await Promise.all([value, ...grads].map((tensor) => tensor.data()));
    assertEquals(values.map((value) => [...value]), [
      [0.25 + 64 + 9 + 28],
      [0.5 + 4, -64 - 8, 6 + 12],
      [1, 32, -18],
      [0, 0, 0],
    ], name);
    for (const made of [value, ...grads]) made.release();
  }
  // d(3 a + b²) with a = Σ x y, b = Σ x² = 14: the incoming gradient scales those of each function.
  const { value, grads } = valueAndGrad(() => {
    const a = gradientsNow(() => sum(mul(x, y)));
    const b = gradientsNow(() => recompute([], () => sum(square(x))));
    return add(mulScalar(a, 3), square(b));
  }, [x, y]);
  assertEquals([...await value.data()], [3 * (0.5 - 8 - 3) + 196]);
  assertEquals([...await grads[0].data()], [1.5 + 56, 12 - 112, -3 + 168]);
  assertEquals([...await grads[1].data()], [3, -6, 9]);
  for (const made of [value, ...grads]) made.release();
  assertEquals(memory().liveBuffers, before);
  for (const made of [x, y, unused]) made.release();
});

gpuTest("recompute() keeps its inputs and nothing else", () => {
  const x = vector(1, 2, 3);
  const held = (chain: (x: Tensor) => Tensor) => {
    const before = memory().liveBuffers;
    const { value, backward } = vjp(() => sum(chain(mulScalar(x, 2))), [x]);
    const buffers = memory().liveBuffers - before;
    const one = tensor(1);
    for (const made of [...backward(one), value, one]) made.release();
    assertEquals(memory().liveBuffers, before);
    return buffers;
  };
  const chain = (x: Tensor) => scope(() => square(square(square(x))));
  // Held are the value and the inputs of three squares, or the value and the input of the chain.
  assertEquals(held(chain), 4);
  assertEquals(held((x) => recompute([x], () => chain(x))), 2);
  // An untracked input is saved for the second run, though its result gives it no gradient.
  const frozen = vector(1, 2, 3);
  assertEquals(held((x) => mul(x, recompute([frozen], () => chain(frozen)))), 2);
  x.release();
  frozen.release();
});

gpuTest("gradientsNow() keeps the gradients and nothing else", () => {
  const x = vector(1, 2, 3);
  const before = memory().liveBuffers;
  const { value, backward } = vjp(() => gradientsNow(() => sum(square(square(x)))), [x]);
  assertEquals(memory().liveBuffers - before, 2);
  const one = tensor(1);
  for (const made of [...backward(one), value, one, x]) made.release();
  assertEquals(memory().liveBuffers, before - 1);
});
