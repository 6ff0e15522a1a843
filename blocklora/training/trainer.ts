/**
 * The few-shot recipe: one training step after another.
 *
 * @module
 */

import { crossEntropy } from "../../autograd/ops/cross_entropy.ts";
import { rehearsing } from "../../kernels/kernel.ts";
import { pointwise } from "../../kernels/pointwise.ts";
import { addAll, mulScalar } from "../../autograd/ops/pointwise.ts";
import { sum } from "../../autograd/ops/reduce.ts";
import { argmax } from "../../autograd/ops/top_k.ts";
import { concat, slice, stack } from "../../autograd/ops/view.ts";
import { type AdamOptions, AdamW } from "../../autograd/optim/adam.ts";
import { clipFactor } from "../../autograd/optim/clip_norm.ts";
import { cosineAnnealing } from "../../autograd/optim/schedule.ts";
import { gradientsNow, recompute } from "../../autograd/recompute.ts";
import { valueAndGrad } from "../../autograd/tape.ts";
import type { Clip } from "../../clip/clip.ts";
import type { Pass } from "../../clip/layers.ts";
import { type PromptPart, type Prompts, releaseParts } from "../../clip/text.ts";
import { tensor } from "../../tensor/create.ts";
import { hash3 } from "../../tensor/random.ts";
import { adopt, keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { MemoryPlan } from "../cost/memory_plan.ts";
import type { Learner, TrainableGroup } from "../methods/method.ts";
import type { Recipe } from "../methods/recipe.ts";
import { encodePrompts, placesOf } from "./classifier.ts";

/** A batch on the host. */
export interface TrainingBatch {
  /** Normalized pixels, `[B, 3, R, R]`. */
  readonly pixels: Float32Array<ArrayBuffer>;
  /** The class of each image, `[B]`. */
  readonly labels: Int32Array<ArrayBuffer>;
}

/** Keeps the dropout's random numbers apart from others of the same seed. */
const DROPOUT = 0x64726f70;

/** Trains what learns on batches of images, each class named by a prompt. */
export class Trainer {
  readonly #clip: Clip;
  readonly #learner: Learner;
  readonly #recipe: Recipe;
  readonly #plan: MemoryPlan;
  readonly #optimizer: AdamW;
  readonly #groups: readonly TrainableGroup[];
  readonly #prompts: Prompts;
  /** The prompts in parts, if they run in parts. */
  readonly #parts: readonly PromptPart[] | null;
  /** The column of each class in the logits, which follow the parts. */
  readonly #columns: readonly number[] | null;
  /** The features of a text tower that does not change. */
  readonly #texts: Tensor | null;
  #step = 0;

  /**
   * Makes the optimizer. A text tower that does not change runs here, once. The prompts stay the
   * caller's.
   */
  constructor(
    clip: Clip,
    learner: Learner,
    prompts: Prompts,
    recipe: Recipe,
    plan: MemoryPlan = {},
  ) {
    this.#clip = clip;
    this.#learner = learner;
    this.#recipe = recipe;
    this.#plan = plan;
    this.#groups = learner.groups;
    this.#optimizer = new AdamW(
      this.#groups.map(({ parameters, copies }) => ({ parameters, ...this.#rates(copies) })),
      { betas: recipe.betas },
    );
    const [changes, size] = [learner.changes("text"), plan.textChunk ?? 0];
    this.#prompts = prompts;
    this.#parts = changes && size > 0 ? prompts.parts(size) : null;
    this.#columns = this.#parts && placesOf(this.#parts.flatMap(({ numbers }) => numbers));
    this.#texts = changes ? null : keep(encodePrompts(clip, prompts));
  }

  /**
   * The optimizer's options for tensors of which each stands for `copies` equal ones: their sum
   * moves by as much as if each moved by itself.
   */
  #rates(copies: number): Pick<AdamOptions, "learningRate" | "weightDecay"> {
    const { learningRate, minimumRate, iterations, weightDecay } = this.#recipe;
    return {
      learningRate: cosineAnnealing(copies * learningRate, copies * minimumRate, iterations),
      weightDecay: weightDecay / copies,
    };
  }

  /** Steps taken so far. */
  get steps(): number {
    return this.#step;
  }

  /** The learning rate of the next step. */
  get learningRate(): number {
    return this.#optimizer.rates()[0];
  }

  /**
   * Takes one step and gives, as a tensor `[2]`, the batch's loss (nats) and accuracy (0 to 1) before it. Nothing is
   * waited for: what is recorded is submitted when the caller reads or the next batch is uploaded, on a GPU in parts before.
   */
  step(batch: TrainingBatch): Tensor {
    const { maxNorm } = this.#recipe;
    return scope(() => {
      const { loss, accuracy, grads } = this.gradients(batch);
      const copies = this.#groups.flatMap(({ parameters, copies }) => parameters.map(() => copies));
      const clip = maxNorm > 0 ? clipFactor(grads, maxNorm, copies) : undefined;
      this.#optimizer.step(grads, clip?.factor);
      if (!rehearsing()) this.#step++;
      return stack([loss, accuracy], 0);
    });
  }

  /** Says that every training image has been seen so many times. */
  endEpoch(epoch: number): void {
    this.#learner.endEpoch?.(epoch);
  }

  /** What trains, in the order of {@linkcode gradients}: group by group. */
  get parameters(): readonly Tensor[] {
    return this.#groups.flatMap(({ parameters }) => parameters);
  }

  /**
   * What the next step would begin with: a batch's loss and accuracy, both scalars, and every parameter's gradient.
   *
   * @throws {RangeError} If a label is no class's number.
   */
  gradients(
    { pixels, labels }: TrainingBatch,
  ): { loss: Tensor; accuracy: Tensor; grads: Tensor[] } {
    const seed = hash3(this.#recipe.seed, this.#step, DROPOUT)[0];
    const size = this.#clip.config.vision.imageSize;
    const stray = labels.find((label) => !(label >= 0 && label < this.#prompts.count));
    if (stray !== undefined) {
      throw new RangeError(
        `Cannot train on label ${stray}: there are ${this.#prompts.count} classes, numbered from 0`,
      );
    }
    const columns = this.#columns ? labels.map((label) => this.#columns![label]) : labels;
    return scope(() => {
      const images = tensor(pixels, [labels.length, 3, size, size]);
      const classes = tensor(columns);
      let accuracy: Tensor | undefined;
      const { value: loss, grads } = valueAndGrad(() => {
        const pass = { seed, ...this.#learner.pass(), recompute: this.#plan.recompute };
        const texts = this.#texts ?? this.#textFeatures(pass);
        const parts = this.#imageParts(images, classes, pass)
          .map((part) => this.#partLoss(part, texts, labels.length));
        accuracy = keep(addAll(parts.map(({ accuracy }) => accuracy)));
        return addAll(parts.map(({ loss }) => loss));
      }, this.parameters);
      return { loss, accuracy: adopt(accuracy!), grads };
    });
  }

  /** Text features `[K, E]`, in the order of the columns. */
  #textFeatures(pass: Pass): Tensor {
    if (!this.#parts) return this.#clip.textFeatures(this.#prompts, pass);
    const run = ({ prompts, items }: PromptPart) =>
      recompute([], () => this.#clip.textFeatures(prompts, { ...pass, items }));
    return concat(this.#parts.map(run), 0);
  }

  #imageParts(images: Tensor, classes: Tensor, pass: Pass): ImagePart[] {
    const [count] = images.shape;
    const size = this.#plan.microBatch || count;
    if (size >= count) return [{ images, classes, pass }];
    const { tokens } = this.#clip.vision;
    return Array.from({ length: Math.ceil(count / size) }, (_, part) => {
      const [from, to] = [part * size, Math.min(count, (part + 1) * size)];
      const numbers = pointwise("first + i", { first: BigInt(from) }, [to - from], "u32");
      return {
        images: slice(images, 0, from, to),
        classes: slice(classes, 0, from, to),
        pass: { ...pass, items: { numbers, tokens } },
      };
    });
  }

  /** What a part of the batch adds to the loss and the accuracy of the whole; `total` images are the whole. */
  #partLoss({ images, classes, pass }: ImagePart, texts: Tensor, total: number) {
    const { logitScale, labelSmoothing } = this.#recipe;
    let accuracy: Tensor | undefined;
    const compute = () => {
      const features = this.#clip.imageFeatures(images, pass);
      const rule = (images: Tensor, texts: Tensor) => this.#clip.logits(images, texts, logitScale);
      const logits = this.#learner.logits?.(features, texts, rule) ?? rule(features, texts);
      accuracy = keep(scope(() => mulScalar(hits(logits, classes), 1 / total)));
      const loss = this.#learner.loss?.({ images: features, texts, logits, labels: classes }) ??
        crossEntropy(logits, classes, { labelSmoothing, reduction: "sum" });
      return mulScalar(loss, 1 / total);
    };
    const loss = classes.shape[0] === total ? compute() : gradientsNow(compute);
    return { loss, accuracy: adopt(accuracy!) };
  }

  /** Gives the optimizer's state back; learner, prompts and model stay. */
  release(): void {
    this.#optimizer.release();
    this.#texts?.release();
    if (this.#parts) releaseParts(this.#parts);
  }
}

/** Images that run together, with their classes' columns. */
interface ImagePart {
  readonly images: Tensor;
  readonly classes: Tensor;
  readonly pass: Pass;
}

/** How many rows have their largest logit at the label. */
function hits(logits: Tensor, labels: Tensor): Tensor {
  return scope(() => {
    const guess = argmax(logits);
    return sum(
      pointwise("select(0.0, 1.0, guess == label)", { guess, label: labels }, labels.shape),
    );
  });
}
