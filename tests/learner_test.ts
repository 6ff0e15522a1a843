/** Learners that are not adapters, each of which uses another hook of a method. */

import { assert, assertAlmostEquals, assertEquals, assertLess } from "@std/assert";
import { fileURLToPath } from "node:url";
import { zeros } from "../autograd/ops/create.ts";
import { add } from "../autograd/ops/pointwise.ts";
import { concat, slice } from "../autograd/ops/view.ts";
import { DEFAULT_RECIPE } from "../blocklora/methods/recipe.ts";
import type { Learner } from "../blocklora/methods/method.ts";
import { EMBEDDED_MODEL } from "../blocklora/models/open_model.ts";
import { openedClip } from "./reference.ts";
import { featureBatches } from "../blocklora/training/cached_features.ts";
import { Classifier, classPrompts } from "../blocklora/training/classifier.ts";
import { Trainer, type TrainingBatch } from "../blocklora/training/trainer.ts";
import type { Clip } from "../clip/clip.ts";
import { tensor } from "../tensor/create.ts";
import { memory } from "../tensor/memory.ts";
import { Random } from "../tensor/random.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";

const CLASSES = ["bag", "ankle boot", "dress"];

/** Three pictures, each of one colour. */
const BATCH = {
  pixels: Float32Array.from(
    { length: 3 * 3 * 48 * 48 },
    (_, i) => Math.floor(i / 48 ** 2) % 3 === Math.floor(i / (3 * 48 ** 2)) ? 1.5 : -1.5,
  ),
  labels: Int32Array.of(0, 1, 2),
};

/** What the learners here have in common: they have nothing to merge. */
const CONSTANT = {
  config: { method: "test" },
  pass: () => ({}),
  merge() {},
  unmerge() {},
};

/** Words of the prompts become vectors that train, as in CoOp (arXiv 2109.01134, section 3.1). */
function contextLearner(clip: Clip): Learner {
  const random = new Random(2, "context");
  const { width } = clip.config.text;
  const values = Float32Array.from({ length: 2 * width }, () => 0.02 * random.normal());
  const context = keep(tensor(values, [1, 2, width]));
  return {
    ...CONSTANT,
    groups: [{ name: "context", parameters: [context], copies: 1 }],
    changes: (tower) => tower === "text",
    hooks: () => ({
      text: {
        embedded(x) {
          const rows = Array.from({ length: x.shape[0] }, () => context);
          return concat([slice(x, 1, 0, 1), concat(rows, 0), slice(x, 1, 3, x.shape[1])], 1);
        },
      },
    }),
    release: () => context.release(),
  };
}

/**
 * A change of the text features, as in TaskRes (arXiv 2211.10277, equation 5). No tower changes.
 */
function residualLearner(clip: Clip): Learner & { epochs: number[] } {
  const residual = keep(zeros([CLASSES.length, clip.config.embedding]));
  const epochs: number[] = [];
  return {
    ...CONSTANT,
    epochs,
    groups: [{ name: "residual", parameters: [residual], copies: 1 }],
    changes: () => false,
    logits: (images, texts, rule) => scope(() => rule(images, add(texts, residual))),
    endEpoch: (epoch) => epochs.push(epoch),
    release: () => residual.release(),
  };
}

/** Trains for some steps; gives their losses. */
async function trained(trainer: Trainer, batches: readonly TrainingBatch[]): Promise<number[]> {
  const losses: number[] = [];
  for (const batch of batches) {
    const stats = trainer.step(batch);
    losses.push((await stats.data())[0]);
    stats.release();
  }
  return losses;
}

gpuTest(
  "a learner may train vectors in the prompts, for training and for inference",
  async () => {
    const before = memory().liveBuffers;
    const { clip, tokenizer } = await openedClip(fileURLToPath(EMBEDDED_MODEL));
    const prompts = classPrompts(clip, tokenizer, CLASSES, "a photo of a {}.");
    const recipe = { ...DEFAULT_RECIPE, learningRate: 3e-2, logitScale: 50, iterations: 60 };
    const saving = { textChunk: 1, recompute: true, microBatch: 1 };
    const outcomes: number[][] = [];
    // A memory plan changes no step; five of them show it.
    for (const [memoryPlan, steps] of [[saving, 5], [{}, 60]] as const) {
      const learner = contextLearner(clip);
      const trainer = new Trainer(clip, learner, prompts, recipe, memoryPlan);
      const losses = await trained(trainer, Array(steps).fill(BATCH));
      outcomes.push(losses.slice(0, 5));
      const classifier = new Classifier(clip, prompts, 50, learner);
      const plain = new Classifier(clip, prompts, 50);
      const [learned, untouched] = [
        await classifier.predict(BATCH.pixels),
        await plain.predict(BATCH.pixels),
      ];
      assert(JSON.stringify(learned) !== JSON.stringify(untouched));
      if (steps === 60) {
        assertLess(losses[59], losses[0] / 2);
        assertEquals(learned.map(({ classes }) => classes[0]), [0, 1, 2]);
      }
      for (const each of [classifier, plain, trainer, learner]) each.release();
    }
    for (const [i, loss] of outcomes[0].entries()) assertAlmostEquals(loss, outcomes[1][i], 1e-4);
    for (const each of [prompts, clip]) each.release();
    assertEquals(memory().liveBuffers, before);
  },
);

gpuTest(
  "a learner that changes no tower trains on features that are computed once",
  async () => {
    const { clip, tokenizer } = await openedClip(fileURLToPath(EMBEDDED_MODEL));
    const prompts = classPrompts(clip, tokenizer, CLASSES, "a photo of a {}.");
    const features: Tensor = scope(() =>
      clip.imageFeatures(tensor(BATCH.pixels, [CLASSES.length, 3, 48, 48]))
    );
    const values = await features.data() as Float32Array<ArrayBuffer>;
    features.release();
    const learner = residualLearner(clip);
    const recipe = { ...DEFAULT_RECIPE, learningRate: 0.3, logitScale: 50, iterations: 120 };
    const trainer = new Trainer(clip, learner, prompts, recipe);
    // Pixels and features give the same loss.
    const losses = [BATCH, { features: values, labels: BATCH.labels }].map((batch) => {
      const { loss, accuracy, grads } = trainer.gradients(batch);
      for (const each of [accuracy, ...grads]) each.release();
      return loss;
    });
    const [ofPixels, ofFeatures] = await Promise.all(losses.map((loss) => loss.item()));
    assertEquals(ofFeatures, ofPixels);
    const batches = await Array.fromAsync(featureBatches(
      { values, labels: [0, 1, 2], width: clip.config.embedding },
      { batchSize: 2, iterations: 40, seed: 1 },
    ));
    // An epoch has two batches, of two images and of one; each image comes once.
    const seen = batches.slice(0, 2).flatMap(({ labels }) => [...labels]);
    assertEquals([batches[0].labels.length, seen.sort()], [2, [0, 1, 2]]);
    assertEquals(batches.slice(0, 4).map(({ endsEpoch }) => endsEpoch), [false, true, false, true]);
    const taken = await trained(trainer, batches);
    assertLess(taken.at(-1)!, taken[0] / 2);
    trainer.endEpoch(1);
    assertEquals(learner.epochs, [1]);
    const classifier = new Classifier(clip, prompts, 50, learner);
    const learned = await classifier.predict(BATCH.pixels);
    assertEquals(learned.map(({ classes }) => classes[0]), [0, 1, 2]);
    for (const each of [...losses, classifier, trainer, learner, prompts, clip]) each.release();
  },
);
