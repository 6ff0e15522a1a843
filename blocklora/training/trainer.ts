/**
 * The few-shot recipe: one training step after another.
 *
 * @module
 */

import { crossEntropy } from "../../autograd/ops/cross_entropy.ts";
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
import type { Model } from "../../clip/model.ts";
import type { Pass } from "../../clip/layers.ts";
import { type PromptChunk, type Prompts, releaseChunks } from "../../clip/text.ts";
import { tensor } from "../../tensor/create.ts";
import { hash3 } from "../../tensor/random.ts";
import { adopt, keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { MemoryPlan } from "../cost/memory_plan.ts";
import type { Learner, TrainableGroup } from "../methods/method.ts";
import type { Recipe } from "../methods/recipe.ts";
import { encodePrompts, positionsOf } from "./classifier.ts";

/** A batch on the host. */
export interface TrainingBatch {
  /** Normalized pixels, `[B, 3, R, R]`. */
  readonly pixels?: Float32Array<ArrayBuffer>;
  /** In their stead what an image tower that does not change made of them, `[B, E]`. */
  readonly features?: Float32Array<ArrayBuffer>;
  /** The class of each image, `[B]`. */
  readonly labels: Int32Array<ArrayBuffer>;
}

/** Keeps the dropout's random numbers apart from all other ones of the same seed. */
const DROPOUT = 0x64726f70;

/** Trains what learns on batches of images, each class named by a prompt. */
export class Trainer {
  readonly #model: Model;
  readonly #learner: Learner;
  readonly #recipe: Recipe;
  readonly #memory: MemoryPlan;
  readonly #optimizer: AdamW;
  readonly #groups: readonly TrainableGroup[];
  readonly #prompts: Prompts;
  /** The prompts in chunks, if they run so. */
  readonly #chunks: readonly PromptChunk[] | null;
  /** The column of each class in the logits, which follow the chunks. */
  readonly #columns: readonly number[] | null;
  /** The features of a text tower that does not change. */
  readonly #texts: Tensor | null;

  /**
   * Makes the optimizer. A text tower that does not change runs here, once. The prompts stay the
   * caller's.
   */
  constructor(
    model: Model,
    learner: Learner,
    prompts: Prompts,
    recipe: Recipe,
    memory: MemoryPlan = {},
  ) {
    this.#model = model;
    this.#learner = learner;
    this.#recipe = recipe;
    this.#memory = memory;
    this.#groups = learner.groups;
    this.#optimizer = new AdamW(
      this.#groups.map(({ parameters, copies }) => ({ parameters, ...this.#rates(copies) })),
      { betas: recipe.betas },
    );
    const [changes, size] = [learner.changes("text"), memory.textChunk ?? 0];
    this.#prompts = prompts;
    this.#chunks = changes && size > 0 ? prompts.chunks(size) : null;
    this.#columns = this.#chunks && positionsOf(this.#chunks.flatMap(({ numbers }) => numbers));
    this.#texts = changes ? null : keep(encodePrompts(model, prompts));
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
    return this.#optimizer.steps;
  }

  /** The learning rate of the next step. */
  get learningRate(): number {
    return this.#optimizer.rates()[0];
  }

  /**
   * Takes one step and gives, as a tensor `[2]`, the batch's loss (nats) and accuracy (0 to 1)
   * before it. Nothing is waited for: what is recorded is submitted when the caller reads or the
   * next batch is uploaded, on a GPU in parts before.
   */
  step(batch: TrainingBatch): Tensor {
    const { maxNorm } = this.#recipe;
    return scope(() => {
      const { loss, accuracy, grads } = this.gradients(batch);
      const copies = this.#groups.flatMap(({ parameters, copies }) => parameters.map(() => copies));
      const clip = maxNorm > 0 ? clipFactor(grads, maxNorm, copies) : undefined;
      this.#optimizer.step(grads, clip?.factor);
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
   * What the next step would begin with: a batch's loss and accuracy, both scalars, and every
   * parameter's gradient.
   *
   * @throws {RangeError} If a label is no class's number.
   */
  gradients(
    { pixels, features, labels }: TrainingBatch,
  ): { loss: Tensor; accuracy: Tensor; grads: Tensor[] } {
    const seed = hash3(this.#recipe.seed, this.steps, DROPOUT)[0];
    const size = this.#model.vision.imageSize;
    const stray = labels.find((label) => !(label >= 0 && label < this.#prompts.count));
    if (stray !== undefined) {
      throw new RangeError(
        `Cannot train on label ${stray}: there are ${this.#prompts.count} classes, numbered from 0`,
      );
    }
    const columns = this.#columns ? labels.map((label) => this.#columns![label]) : labels;
    return scope(() => {
      const images = features
        ? tensor(features, [labels.length, this.#model.embedding])
        : tensor(pixels!, [labels.length, 3, size, size]);
      const classes = tensor(columns);
      let accuracy: Tensor | undefined;
      const { value: loss, grads } = valueAndGrad(() => {
        const pass = {
          seed,
          ...this.#learner.pass(),
          hooks: this.#learner.hooks?.(),
          recompute: this.#memory.recompute,
        };
        const texts = this.#texts ?? this.#textFeatures(pass);
        const chunks = this.#imageChunks(images, classes, pass)
          .map((chunk) => this.#chunkLoss(chunk, texts, labels.length, features !== undefined));
        accuracy = keep(addAll(chunks.map(({ accuracy }) => accuracy)));
        return addAll(chunks.map(({ loss }) => loss));
      }, this.parameters);
      return { loss, accuracy: adopt(accuracy!), grads };
    });
  }

  /** Text features `[K, E]`, in the order of the columns. */
  #textFeatures(pass: Pass): Tensor {
    if (!this.#chunks) return this.#model.textFeatures(this.#prompts, pass);
    const run = ({ prompts, items }: PromptChunk) =>
      recompute([], () => this.#model.textFeatures(prompts, { ...pass, items }));
    return concat(this.#chunks.map(run), 0);
  }

  #imageChunks(images: Tensor, classes: Tensor, pass: Pass): ImageChunk[] {
    const [count] = images.shape;
    const size = this.#memory.microBatch || count;
    if (size >= count) return [{ images, classes, pass }];
    const { tokens } = this.#model.vision;
    return Array.from({ length: Math.ceil(count / size) }, (_, chunk) => {
      const [from, to] = [chunk * size, Math.min(count, (chunk + 1) * size)];
      const numbers = pointwise("first + i", { first: BigInt(from) }, [to - from], "u32");
      return {
        images: slice(images, 0, from, to),
        classes: slice(classes, 0, from, to),
        pass: { ...pass, items: { numbers, tokens } },
      };
    });
  }

  /** What some of a batch of `total` images add to its loss and its accuracy. */
  #chunkLoss(
    { images, classes, pass }: ImageChunk,
    texts: Tensor,
    total: number,
    areFeatures: boolean,
  ) {
    const { logitScale, labelSmoothing } = this.#recipe;
    let accuracy: Tensor | undefined;
    const compute = () => {
      const features = areFeatures ? images : this.#model.imageFeatures(images, pass);
      const rule = (images: Tensor, texts: Tensor) => this.#model.logits(images, texts, logitScale);
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
    if (this.#chunks) releaseChunks(this.#chunks);
  }
}

/** Images that run together, with their classes' columns. */
interface ImageChunk {
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
