/**
 * The engine counts for adapters exactly what the formulas say.
 */

import { assertAlmostEquals, assertEquals } from "@std/assert";
import { boundRatio, type MethodCost, qkvSites } from "../blocklora/cost/formulas.ts";
import { configured, type Shape } from "../bench/layers.ts";
import { RANKS, savings, SHAPES } from "../bench/savings.ts";
import { DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { blockLora } from "../blocklora/methods/block_lora.ts";
import { lora } from "../blocklora/methods/lora.ts";
import { METHODS } from "../blocklora/methods/lookup.ts";
import { imagenetTokens } from "../blocklora/cost/imagenet.ts";
import { emptyModel } from "../blocklora/cost/models.ts";
import { stepCost } from "../blocklora/training/step.ts";
import { clipDefinition } from "../clip/clip.ts";
import { ARCHITECTURES } from "../clip/config.ts";
import { initDry } from "../tensor/device.ts";

const [CLASSES, BATCH] = [20, 3];

/** Methods whose operations are counted exactly: the rest sum over many rows in stages. */
const EXACT = ["block-lora", "block-lora-collapsed", "lora", "lora-dense"];

/** Asserts equality; operations of methods not {@linkcode EXACT} may be off by 1 %. */
function assertCost(counted: MethodCost, formula: MethodCost, shape: Shape): void {
  const message = JSON.stringify(shape);
  if (EXACT.includes(shape.method)) return assertEquals(counted, formula, message);
  const { forward, backward } = counted;
  assertEquals({ ...counted, forward: 0, backward: 0 }, { ...formula, forward: 0, backward: 0 });
  assertAlmostEquals(forward / formula.forward, 1, 0.01, message);
  assertAlmostEquals(backward / formula.backward, 1, 0.01, message);
}

for (const name of ["vit-b-16", "vit-l-14"]) {
  Deno.test(`adapters of ${name} cost what their formulas say`, () => {
    initDry();
    const config = ARCHITECTURES[name];
    const promptTokens = imagenetTokens(CLASSES);
    const clip = emptyModel(clipDefinition(config));
    const sites = qkvSites([
      { ...config.vision, rows: BATCH * clip.vision.tokens },
      { ...config.text, rows: CLASSES * Math.max(...promptTokens) },
    ]);
    for (const chosen of SHAPES) {
      const { method, config } = configured(chosen);
      const counted = stepCost(clip, { method: config, promptTokens, batch: BATCH });
      assertCost(
        {
          parameters: counted.trainableParameters,
          optimizerBytes: counted.peakBytesByOwner.optimizerState,
          forward: counted.adapterFlops.forward,
          backward: counted.adapterFlops.backward,
          savedBytes: counted.adapterSavedBytes,
        },
        method.cost(config, sites),
        chosen,
      );
    }
    clip.release();
  });
}

Deno.test("Block-LoRA has the parameters that its paper counts, and the bound's ratio", () => {
  const site = { inputs: 5, outputs: 7, rows: 1, tracked: true, adds: false };
  const block = blockLora.cost({ ...DEFAULT_ADAPTER, rank: 8, blocks: 4 }, [site]).parameters;
  const ofLora = lora.cost({ ...DEFAULT_ADAPTER, rank: 8, blocks: 1 }, [site]).parameters;
  assertEquals([block, ofLora], [8 * 7 + 2 * 5, 8 * (7 + 5)]);
  assertAlmostEquals(boundRatio(block, ofLora), Math.sqrt(66 / 96), 1e-12);
});

Deno.test("savings has a row for each adapter, and its counts are the formulas'", () => {
  const rows = savings({ model: "vit-b-32", classes: 30, batch: 8 });
  const splitting = METHODS.filter(({ flags }) => "blocks" in flags).length;
  assertEquals(rows.length, 4 * (METHODS.length - splitting) + 7 * splitting);
  for (const { counted, formula, ...shape } of rows) assertCost(counted, formula, shape);
  const pairs = new Set(
    rows.filter(({ method }) => method === "block-lora")
      .map(({ rank, blocks }) => `${rank},${blocks}`),
  );
  assertEquals([...pairs], RANKS.map(([rank, blocks]) => `${rank},${blocks}`));
});
