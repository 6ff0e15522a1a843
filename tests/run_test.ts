/** The training loop as the commands run it. */

import { assert, assertEquals, assertLess, assertRejects } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { add } from "../autograd/ops/pointwise.ts";
import { DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { attach } from "../blocklora/methods/lookup.ts";
import { openChosen } from "../blocklora/models/chosen_model.ts";
import { classPrompts } from "../blocklora/training/classifier.ts";
import { Console } from "../blocklora/system/console.ts";
import { openDataset } from "../blocklora/data/dataset.ts";
import { ImageError } from "../blocklora/data/decode.ts";
import { ImageLoader } from "../blocklora/data/loader.ts";
import { trainLearner } from "../blocklora/training/run.ts";
import { claimRun } from "../blocklora/training/run_directory.ts";
import { readCheckpoint } from "../blocklora/training/training_checkpoint.ts";
import { DEFAULT_RECIPE } from "../blocklora/methods/recipe.ts";
import { EMBEDDED_DATA } from "../blocklora/data/open_data.ts";
import { tensor } from "../tensor/create.ts";
import { init, shutDown } from "../tensor/device.ts";
import { currentEngine } from "../tensor/engine.ts";
import { memory } from "../tensor/memory.ts";
import { counters } from "../tensor/queue.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { copyData, withDirectory } from "./cli.ts";

/** Notes the bind groups and the memory whenever the loop reports its progress. */
class Watch extends Console {
  readonly seen: { bindGroups: number; liveBytes: number; pooledBytes: number }[] = [];

  override progress(line: string): void {
    const { liveBytes, pooledBytes } = memory();
    if (/^step \d+0\//.test(line)) {
      this.seen.push({ bindGroups: counters.bindGroups, liveBytes, pooledBytes });
    }
  }
}

const NOTE = {
  ...{ key: { settings: {}, identity: { model: "", train: null, test: "" } }, device: "" },
  ...{ args: null, zeroShot: { accuracy: 0, correct: 0, images: 1 } },
};

Deno.test({
  name: "bind groups that are dropped give their memory back, with the next work",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await init();
    // Mesa 25 maps memory for each bind group; other drivers show nothing here.
    const mappings = async () => (await Deno.readTextFile("/proc/self/maps")).split("\n").length;
    const x = tensor([1]);
    const found: number[] = [];
    for (let round = 0; round < 6; round++) {
      const sums: Tensor[] = [];
      for (let submission = 0; submission < 5; submission++) {
        sums.push(...Array.from({ length: 300 }, () => add(x, x)));
        await sums.at(-1)!.data();
      }
      currentEngine().queue.bindGroups.clear();
      const sum = add(x, x);
      await sum.data();
      found.push(await mappings());
      for (const each of [sum, ...sums]) each.release();
    }
    x.release();
    shutDown();
    assertLess(found.at(-1)! - found[0], 1500);
  },
});

Deno.test("the training loop makes no bind group and holds no more memory as it goes on", () =>
  withDirectory(async (directory) => {
    await init();
    const console = new Watch(true);
    const embedded = { model: undefined, revision: undefined, offline: true, tokenizer: undefined };
    const opened = await openChosen(embedded, console);
    const dataset = await openDataset(fileURLToPath(EMBEDDED_DATA));
    const template = "a photo of a {}.";
    const prompts = classPrompts(opened.model, opened.tokenizer, dataset.classes, template);
    const loader = new ImageLoader(opened.preprocess);
    const context = {
      ...{ opened, dataset, template, prompts, loader, console },
      batchSize: 4,
    };
    const adapters = attach(opened.model, DEFAULT_ADAPTER, 1);
    const config = {
      ...{ method: DEFAULT_ADAPTER, recipe: { ...DEFAULT_RECIPE, iterations: 40 }, memory: {} },
      ...{ shots: 2, seed: 1, cropScale: [0.8, 1] as const, flip: true },
    };
    await using claim = await claimRun(`${directory}/run`, 1000);
    const run = { claim: claim!, from: null, note: NOTE, every: { steps: 12 } };
    const { outcome: { losses } } = await trainLearner(context, config, adapters, run);
    assertEquals(losses.length, 40);
    assert(losses.every(Number.isFinite));
    const [, second, ...later] = console.seen;
    assertEquals(later, later.map(() => second));
    for (const each of [adapters, prompts, opened.model]) each.release();
    await loader.close();
    shutDown();
  }));

Deno.test("an image that cannot be read any more ends a run, which goes on with it", () =>
  withDirectory(async (directory) => {
    await init();
    const data = await copyData(join(directory, "data"));
    const [bags, away] = [join(data, "train", "bag"), join(directory, "away")];
    /** Takes images away in the middle of a run. */
    class Thief extends Console {
      override progress(line: string): void {
        if (line.startsWith("step 5/")) Deno.renameSync(bags, away);
      }
    }
    const embedded = { model: undefined, revision: undefined, offline: true, tokenizer: undefined };
    const opened = await openChosen(embedded, new Watch(true));
    const dataset = await openDataset(data);
    const template = "a photo of a {}.";
    const prompts = classPrompts(opened.model, opened.tokenizer, dataset.classes, template);
    const config = {
      ...{ method: DEFAULT_ADAPTER, recipe: { ...DEFAULT_RECIPE, iterations: 12 }, memory: {} },
      ...{ shots: 4, seed: 1, cropScale: [0.8, 1] as const, flip: true },
    };
    const before = memory().liveBuffers;
    const train = async (name: string, console: Console) => {
      // Images are read anew for each batch.
      await using loader = new ImageLoader(opened.preprocess, { cacheBytes: 0 });
      await using claim = await claimRun(join(directory, name), 1000);
      const from = await readCheckpoint(claim!.path);
      const adapters = attach(opened.model, DEFAULT_ADAPTER, 1);
      const context = { opened, dataset, template, prompts, loader, console, batchSize: 4 };
      try {
        const run = { claim: claim!, from, note: NOTE, every: { steps: 5 } };
        const { metrics } = await trainLearner(context, config, adapters, run);
        const steps = metrics.text.replaceAll(/"imagesPerSecond":[^,]*/g, "");
        const bytes = await Deno.readFile(join(claim!.path, "adapter_model.safetensors"));
        return { from: from?.progress.steps, steps, bytes };
      } finally {
        adapters.release();
        assertEquals(memory().liveBuffers, before);
      }
    };
    const undisturbed = await train("a", new Watch(true));
    await assertRejects(() => train("b", new Thief(true)), ImageError, "no such file or directory");
    await Deno.rename(away, bags);
    const { from, ...resumed } = await train("b", new Watch(true));
    assert(from! >= 5);
    assertEquals({ from: undefined, ...resumed }, undisturbed);
    for (const each of [prompts, opened.model]) each.release();
    shutDown();
  }));
