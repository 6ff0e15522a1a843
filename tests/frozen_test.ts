/**
 * Frozen layers cost nothing: no gradients of weights, no backward work below the lowest adapter.
 */

import { assert, assertEquals, assertGreater, assertLess } from "@std/assert";
import { crossEntropy } from "../autograd/ops/cross_entropy.ts";
import { mulScalar } from "../autograd/ops/pointwise.ts";
import { sum } from "../autograd/ops/reduce.ts";
import { valueAndGrad, vjp } from "../autograd/tape.ts";
import { Lora } from "../blocklora/methods/lora.ts";
import { type AdapterConfig, DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { attach } from "../blocklora/methods/lookup.ts";
import type { Clip } from "../clip/clip.ts";
import type { ClipConfig } from "../clip/config.ts";
import { Linear } from "../clip/layers.ts";
import { tensor } from "../tensor/create.ts";
import { counters } from "../tensor/queue.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";
import { clipOf, randomInputs, TINY } from "./reference.ts";

function dispatchesOf(body: () => unknown): number {
  const before = counters.dispatches;
  scope(() => {
    body();
  });
  return counters.dispatches - before;
}

/**
 * Counts the dispatches of each tower's features, of the loss, and of the loss with its gradients.
 */
async function costs(sizes: ClipConfig, changes: Partial<AdapterConfig>) {
  const clip = await clipOf(sizes);
  const adapters = attach(clip, { ...DEFAULT_ADAPTER, dropout: 0, ...changes }, 1);
  const { pixels, ids, prompts: rows } = randomInputs(sizes);
  const { imageSize } = sizes.vision;
  const images = tensor(pixels, [pixels.length / (3 * imageSize ** 2), 3, imageSize, imageSize]);
  const prompts = clip.text.prompts(ids, rows);
  const labels = tensor(new Int32Array(images.shape[0]));
  const loss = (images: () => Tensor, texts: () => Tensor) =>
    crossEntropy(clip.logits(images(), texts(), 100), labels);
  const vision = () => clip.imageFeatures(images);
  const text = () => clip.textFeatures(prompts);
  const frozen = { vision: keep(vision()), text: keep(text()) };
  const { parameters } = adapters;
  const found = {
    vision: dispatchesOf(vision),
    text: dispatchesOf(text),
    forward: dispatchesOf(() => loss(vision, text)),
    both: dispatchesOf(() => valueAndGrad(() => loss(vision, text), parameters)),
    givenVision: dispatchesOf(() =>
      valueAndGrad(() => loss(() => frozen.vision, text), parameters)
    ),
    givenText: dispatchesOf(() => valueAndGrad(() => loss(vision, () => frozen.text), parameters)),
  };
  for (const owned of [images, prompts, labels, adapters, clip, ...Object.values(frozen)]) {
    owned.release();
  }
  return { ...found, backward: found.both - found.forward };
}

gpuTest("a tower without adapters runs forward only", async () => {
  const text = await costs(TINY, { encoder: "text" });
  assertEquals(text.both - text.givenVision, text.vision);
  // The other tower does run backward, or the test would show nothing.
  assertGreater(text.both - text.givenText, text.text);

  const vision = await costs(TINY, { encoder: "vision" });
  assertEquals(vision.both - vision.givenText, vision.text);
  assertGreater(vision.both - vision.givenVision, vision.vision);
});

gpuTest("layers below the lowest adapter have no backward", async () => {
  for (const encoder of ["vision", "text"] as const) {
    const deep = (layers: number) => ({ ...TINY, [encoder]: { ...TINY[encoder], layers } });
    const shallow = await costs(deep(2), { encoder, position: "top1" });
    const deeper = await costs(deep(5), { encoder, position: "top1" });
    assertEquals(deeper.backward, shallow.backward);
    assertGreater(deeper.forward, shallow.forward);
    // Adapters one layer further down cost more.
    const lower = await costs(deep(5), { encoder, position: "top2" });
    assertGreater(lower.backward, deeper.backward);
  }
});

gpuTest("frozen weights get no gradients", async () => {
  const clip: Clip = await clipOf(TINY);
  const adapters = attach(clip, { ...DEFAULT_ADAPTER, projections: ["v"], encoder: "vision" }, 1);
  const { pixels } = randomInputs(TINY, 2);
  const images = tensor(pixels, [2, 3, 16, 16]);
  const block = clip.vision.blocks[0];
  const { q, fc2 } = block.projections;
  const cost = (parameters: readonly Tensor[]) =>
    dispatchesOf(() => valueAndGrad(() => sum(clip.imageFeatures(images)), parameters));
  const alone = cost(adapters.parameters);
  // Each of these parameters adds the product or the sum that gives its gradient.
  assertLess(alone, cost([...adapters.parameters, fc2.weight]));
  assertLess(alone, cost([...adapters.parameters, fc2.bias!]));
  assertLess(alone, cost([...adapters.parameters, q.weight]));
  images.release();
  adapters.release();
  clip.release();
});

gpuTest("Linear keeps its input for a gradient of A, not for a frozen weight", () => {
  const matrix = (...shape: number[]) => tensor(new Float32Array(12).fill(0.5), shape);
  const [weight, down, up, source] = [matrix(4, 3), matrix(4, 3), matrix(3, 4), matrix(4, 3)];
  const linear = new Linear(weight);
  const keptBy = (parameters: readonly Tensor[]) => {
    let x: Tensor | undefined;
    const { value, backward } = vjp(
      () => sum(linear.forward(x = mulScalar(source, 2))),
      parameters,
    );
    const saved = x!.live;
    const one = tensor(1);
    for (const made of [...backward(one), value, one]) made.release();
    assert(!x!.live);
    return saved;
  };
  assertEquals(keptBy([source]), false);
  assertEquals(keptBy([source, weight]), true);
  linear.adapter = new Lora(down, [tensor(new Float32Array(16), [4, 4])], { scale: 1 });
  assertEquals(keptBy([source]), false);
  assertEquals(keptBy([source, down]), true);
  (linear.adapter as Lora).ups[0].release();
  for (const owned of [weight, down, up, source]) owned.release();
});
