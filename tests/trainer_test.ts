import { assert, assertAlmostEquals, assertEquals, assertLess, assertNotEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type AdapterConfig, DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import type { Adapters } from "../blocklora/methods/adapters.ts";
import { attach } from "../blocklora/methods/lookup.ts";
import { classPrompts } from "../blocklora/training/classifier.ts";
import { EMBEDDED_MODEL } from "../blocklora/models/open_model.ts";
import { openedClip } from "./reference.ts";
import { DEFAULT_RECIPE, type Recipe } from "../blocklora/methods/recipe.ts";
import { Trainer, type TrainingBatch } from "../blocklora/training/trainer.ts";
import type { Clip } from "../clip/clip.ts";
import type { Prompts } from "../clip/text.ts";
import { tensor } from "../tensor/create.ts";
import { currentEngine } from "../tensor/engine.ts";
import { isSoftware } from "../tensor/device.ts";
import { memory } from "../tensor/memory.ts";
import { counters } from "../tensor/queue.ts";
import { Random } from "../tensor/random.ts";
import { scope } from "../tensor/scope.ts";
import { gpuTest } from "./gpu.ts";

const SIZE = 48;
const LABELS = [0, 1, 2, 0];

/** Four pictures: each class has a separate pattern, with noise that depends on `seed`. */
function batchOf(seed: number): TrainingBatch {
  const pixels = LABELS.flatMap((label, i) => {
    const pattern = new Random(label, "pattern");
    const noise = new Random(seed, "noise").fork(i);
    return Array.from({ length: 3 * SIZE * SIZE }, () => pattern.normal() + 0.3 * noise.normal());
  });
  return { pixels: Float32Array.from(pixels), labels: Int32Array.from(LABELS) };
}

const BATCHES = Array.from({ length: 4 }, (_, i) => batchOf(i));

interface Trained {
  readonly clip: Clip;
  readonly prompts: Prompts;
  readonly adapters: Adapters;
  readonly trainer: Trainer;
}

/** Runs `body` with a trainer of the embedded model, and then releases everything. */
async function withTrainer(
  adapter: Partial<AdapterConfig>,
  recipe: Partial<Recipe>,
  body: (trained: Trained) => Promise<void>,
): Promise<void> {
  const { clip, tokenizer } = await openedClip(fileURLToPath(EMBEDDED_MODEL));
  const prompts = classPrompts(clip, tokenizer, ["bag", "ankle boot", "dress"], "a photo of a {}.");
  const full = { ...DEFAULT_RECIPE, learningRate: 5e-3, logitScale: 20, ...recipe };
  const adapters = attach(clip, { ...DEFAULT_ADAPTER, ...adapter }, full.seed);
  const trainer = new Trainer(clip, adapters, prompts, full);
  try {
    await body({ clip, prompts, adapters, trainer });
  } finally {
    trainer.release();
    adapters.release();
    prompts.release();
    clip.release();
  }
}

/** Takes a step and gives its loss and accuracy. */
async function step(trainer: Trainer, batch = BATCHES[trainer.steps % 4]): Promise<number[]> {
  const stats = trainer.step(batch);
  try {
    return Array.from(await stats.data());
  } finally {
    stats.release();
  }
}

/** Every trainable number. */
async function valuesOf({ parameters }: Adapters): Promise<number[]> {
  const values = await Promise.all(parameters.map((parameter) => parameter.data()));
  return values.flatMap((value) => Array.from(value));
}

gpuTest("Trainer takes a step in one submit, and one readback if it is looked at", async () => {
  await withTrainer({}, {}, async ({ trainer }) => {
    await step(trainer);
    const { dispatches } = counters;
    await step(trainer);
    // A GPU gets a step in several submits.
    const expected = Math.ceil(
      (counters.dispatches - dispatches) / currentEngine().queue.recordedAtMost,
    );
    if (isSoftware()) assertEquals(expected, 1);
    for (let i = 0; i < 3; i++) {
      const { submits, readbacks } = counters;
      await step(trainer);
      assertEquals([counters.submits - submits, counters.readbacks - readbacks], [expected, 1]);
    }
    const { submits, readbacks } = counters;
    for (let i = 0; i < 3; i++) trainer.step(BATCHES[i]).release();
    await step(trainer);
    assertEquals([counters.submits - submits, counters.readbacks - readbacks], [4 * expected, 1]);
  });
});

/** Bytes in use of the JavaScript heap after a collection, and of the process outside that heap. */
function processMemory(): { heap: number; native: number } {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
  // Not all of the process: V8 takes new pages as it likes, tens of megabytes for the same content.
  const { rss, heapTotal, heapUsed } = Deno.memoryUsage();
  return { heap: heapUsed, native: rss - heapTotal };
}

gpuTest("Trainer takes 200 steps in the memory of 50, and the loss falls", async () => {
  await withTrainer({ position: "top1" }, { iterations: 200 }, async ({ trainer }) => {
    const losses: number[] = [];
    const stations: ReturnType<typeof processMemory>[] = [];
    const live = new Set<string>();
    while (trainer.steps < 200) {
      losses.push((await step(trainer))[0]);
      const { liveBytes, pooledBytes, peakBytes } = memory();
      if (trainer.steps > 1) {
        live.add(`${liveBytes} live, ${pooledBytes} pooled, ${peakBytes} peak`);
      }
      if (trainer.steps % 50 === 0) stations.push(processMemory());
    }
    assertEquals(live.size, 1, [...live].join("; "));
    // The lowest of the earlier ones counts: memory that compiled this test is released late.
    const earlier = (of: "heap" | "native") =>
      Math.min(...stations.slice(0, 3).map((at) => at[of]));
    assertLess(stations[3].heap - earlier("heap"), 3e6);
    assertLess(stations[3].native - earlier("native"), 20e6);
    const average = (values: number[]) => values.reduce((a, b) => a + b) / values.length;
    assertLess(average(losses.slice(-20)), average(losses.slice(0, 4)) / 10);
  });
});

gpuTest("Trainer runs a text tower without adapters once, before the first step", async () => {
  for (const encoder of ["both", "vision"] as const) {
    await withTrainer({ encoder }, {}, async ({ trainer, clip }) => {
      const run = clip.textFeatures.bind(clip);
      let runs = 0;
      clip.textFeatures = (...args) => (runs++, run(...args));
      for (let i = 0; i < 2; i++) await step(trainer);
      assertEquals(runs, encoder === "both" ? 2 : 0);
    });
  }
});

gpuTest("Trainer gives the same bits for one seed, and different ones for another", async () => {
  const trained: number[][] = [];
  for (const seed of [7, 7, 8]) {
    await withTrainer({}, { seed }, async ({ trainer, adapters }) => {
      for (let i = 0; i < 3; i++) await step(trainer);
      trained.push(await valuesOf(adapters));
    });
  }
  assertEquals(trained[0], trained[1]);
  assertNotEquals(trained[0], trained[2]);
});

gpuTest(
  "Trainer reports the loss, with smoothed labels, and the accuracy before the step",
  async () => {
    for (const labelSmoothing of [0, 0.2]) {
      await withTrainer(
        {},
        { labelSmoothing, learningRate: 1e-2, iterations: 4 },
        async ({ clip, prompts, trainer }) => {
          // B is zero, so the model is unchanged.
          const logits = scope(() => {
            const images = clip.imageFeatures(tensor(BATCHES[0].pixels!, [4, 3, SIZE, SIZE]));
            return clip.logits(images, clip.textFeatures(prompts), 20);
          });
          const values = Array.from(await logits.data());
          logits.release();
          const rows = LABELS.map((label, i) => {
            const row = values.slice(3 * i, 3 * i + 3);
            const log = Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0));
            const even = row.reduce((sum, value) => sum + log - value, 0) / 3;
            const loss = (1 - labelSmoothing) * (log - row[label]) + labelSmoothing * even;
            return { loss, hit: Number(row[label] === Math.max(...row)) };
          });
          const [loss, accuracy] = await step(trainer, BATCHES[0]);
          assertAlmostEquals(loss, rows.reduce((sum, { loss }) => sum + loss, 0) / 4, 1e-4);
          assertAlmostEquals(accuracy, rows.reduce((sum, { hit }) => sum + hit, 0) / 4, 1e-6);
          assertEquals(trainer.steps, 1);
          assertAlmostEquals(
            trainer.learningRate,
            1e-6 + (1e-2 - 1e-6) * (1 + Math.cos(Math.PI / 4)) / 2,
            1e-9,
          );
        },
      );
    }
  },
);

gpuTest("Trainer clips gradients by their norm", async () => {
  const changes: number[] = [];
  // AdamW divides by a gradient's size plus 1e-8: gradients far below that move nothing.
  for (const maxNorm of [0, 1e3, 1e-12]) {
    await withTrainer({}, { maxNorm, weightDecay: 0 }, async ({ trainer, adapters }) => {
      const before = await valuesOf(adapters);
      await step(trainer);
      const after = await valuesOf(adapters);
      changes.push(Math.max(...after.map((value, i) => Math.abs(value - before[i]))));
    });
  }
  const [free, loose, tight] = changes;
  assertAlmostEquals(free, 5e-3, 1e-4);
  assertAlmostEquals(loose, free, 1e-4);
  assert(tight < 1e-5 && tight > 0, `${tight}`);
});
