/** The training loop as the commands run it. */

import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";
import { DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { attach } from "../blocklora/methods/lookup.ts";
import { openChosen } from "../blocklora/models/chosen_model.ts";
import { classPrompts } from "../blocklora/training/classifier.ts";
import { Console } from "../blocklora/system/console.ts";
import { openDataset } from "../blocklora/data/dataset.ts";
import { ImageLoader } from "../blocklora/data/loader.ts";
import { trainLearner } from "../blocklora/training/run.ts";
import { claimRun } from "../blocklora/training/run_directory.ts";
import { DEFAULT_RECIPE } from "../blocklora/methods/recipe.ts";
import { EMBEDDED_DATA } from "../blocklora/data/open_data.ts";
import { init, shutDown } from "../tensor/device.ts";
import { memory } from "../tensor/memory.ts";
import { counters } from "../tensor/queue.ts";
import { withDirectory } from "./cli.ts";

/** Notes what is there whenever the loop says how far it is. */
class Watch extends Console {
  readonly seen: { bindGroups: number; liveBytes: number; pooledBytes: number }[] = [];

  override progress(line: string): void {
    const { liveBytes, pooledBytes } = memory();
    if (/^step \d+0\//.test(line)) {
      this.seen.push({ bindGroups: counters.bindGroups, liveBytes, pooledBytes });
    }
  }
}

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
    const note = {
      ...{ key: { settings: {}, identity: { model: "", train: null, test: "" } }, device: "" },
      ...{ args: null, zeroShot: { accuracy: 0, correct: 0, images: 1 } },
    };
    const run = { claim: claim!, from: null, note, every: { steps: 12 } };
    const { outcome: { losses } } = await trainLearner(context, config, adapters, run);
    assertEquals(losses.length, 40);
    assert(losses.every(Number.isFinite));
    const [, second, ...others] = console.seen;
    assertEquals(others, others.map(() => second));
    for (const each of [adapters, prompts, opened.model]) each.release();
    await loader.close();
    shutDown();
  }));
