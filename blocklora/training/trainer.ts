/**
 * Takes the training steps of the few-shot recipe.
 *
 * @module
 */

import { crossEntropy } from "../../autograd/ops/cross_entropy.ts";
import { pointwise, pointwiseInto } from "../../kernels/pointwise.ts";
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
import { sameShape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { MemoryPlan } from "../cost/memory_plan.ts";
import type { Learner, TrainableGroup } from "../methods/method.ts";
import type { Recipe } from "../methods/recipe.ts";
import { encodePrompts, positionsOf } from "./classifier.ts";

/** A batch on the host. */
export interface TrainingBatch {
  /** Normalized pixels, `[B, 3, R, R]`. */
  readonly pixels?: Float32Array<ArrayBuffer>;
  /**
   * Instead of pixels, the image features `[B, E]`, for learners that leave the image tower
   * unchanged.
   */
  readonly features?: Float32Array<ArrayBuffer>;
  /** The class of each image, `[B]`. */
  readonly labels: Int32Array<ArrayBuffer>;
}

/** Separates the random numbers of the dropout from all other random numbers of the same seed. */
const DROPOUT = 0x64726f70;

/** Trains a learner on batches of images. Each class has a prompt. */
export class Trainer {
  readonly #model: Model;
  readonly #learner: Learner;
  readonly #recipe: Recipe;
  readonly #memory: MemoryPlan;
  readonly #optimizer: AdamW;
  readonly #groups: readonly TrainableGroup[];
  readonly #prompts: Prompts;
  /** The prompts in chunks, if the text tower runs chunk by chunk. */
  readonly #chunks: readonly PromptChunk[] | null;
  /** The column of each class in the logits, whose columns are in the order of the chunks. */
  readonly #columns: readonly number[] | null;
  /** The text features, if the text tower does not change. */
  readonly #texts: Tensor | null;

  /**
   * Creates the optimizer. If the text tower does not change, it runs here, once. The caller must
   * release the prompts.
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
   * The optimizer's options for tensors that each stand for the sum of `copies` equal ones. The sum
   * moves by as much as if each copy were trained separately.
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
    return this.rateOf(this.steps);
  }

  /** The learning rate of a step, counted from 0. */
  rateOf(step: number): number {
    return this.#optimizer.rates(step)[0];
  }

  /** Whether the output of any tower changes as the learner learns. */
  get changesTowers(): boolean {
    return this.#learner.changes("vision") || this.#learner.changes("text");
  }

  /**
   * Takes one step. Gives a tensor `[2]`: the loss (nats) and the accuracy (0 to 1) of the batch
   * before the step. The step waits for nothing. The recorded work is submitted when the caller
   * reads a tensor or uploads the next batch; a hardware GPU gets some of it earlier.
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

  /**
   * Tells the learner that epoch number `epoch` has ended: every training image has been used that
   * many times.
   */
  endEpoch(epoch: number): void {
    this.#learner.endEpoch?.(epoch);
  }

  /**
   * The trainable parameters, group by group, in the order in which {@linkcode gradients} gives
   * their gradients.
   */
  get parameters(): readonly Tensor[] {
    return this.#groups.flatMap(({ parameters }) => parameters);
  }

  /**
   * The loss and accuracy of a batch, both scalars, and the gradient of every parameter. Nothing is
   * updated.
   *
   * @throws {RangeError} If a label is not the index of a class.
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

  /** Text features `[K, E]`, in the order of the columns of the logits. */
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

  /**
   * What a chunk of a batch of `total` images contributes to the loss and the accuracy of the
   * batch.
   */
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

  /**
   * All that the steps have changed: the trainable parameters, and the optimizer's state. The
   * tensors stay the trainer's, and its steps change them.
   */
  state(): Readonly<Record<string, Tensor>> {
    const { tensors } = this.#optimizer.state();
    return Object.fromEntries([
      ...this.parameters.map((parameter, i) => [`parameters.${i}`, parameter]),
      ...Object.entries(tensors).map(([name, tensor]) => [`optimizer.${name}`, tensor]),
    ]);
  }

  /**
   * Goes on from a {@linkcode state} after `steps` steps. The tensors are copied.
   *
   * @throws {RangeError} If it is the state of other parameters.
   */
  restore(steps: number, tensors: Readonly<Record<string, Tensor>>): void {
    const current = Object.entries(this.state());
    for (const [name, { shape }] of current) {
      const given = tensors[name];
      if (given && sameShape(given.shape, shape)) continue;
      throw new RangeError(
        `Cannot go on from a checkpoint: its "${name}" is ${
          given ? `[${given.shape}]` : "missing"
        }, ` + `[${shape}] is needed`,
      );
    }
    for (const [i, parameter] of this.parameters.entries()) {
      pointwiseInto(parameter, "x", { x: tensors[`parameters.${i}`] });
    }
    const prefix = "optimizer.";
    const state = current.filter(([name]) => name.startsWith(prefix))
      .map(([name]) => [name.slice(prefix.length), tensors[name]]);
    this.#optimizer.restore({ steps, tensors: Object.fromEntries(state) });
  }

  /**
   * Releases the optimizer state, the text features and the prompt chunks. The learner, the prompts
   * and the model stay.
   */
  release(): void {
    this.#optimizer.release();
    this.#texts?.release();
    if (this.#chunks) releaseChunks(this.#chunks);
  }
}

/** Images that run through the tower together, and the columns of their classes in the logits. */
interface ImageChunk {
  readonly images: Tensor;
  readonly classes: Tensor;
  readonly pass: Pass;
}

/** The number of rows whose largest logit is at the label, as a scalar. */
function hits(logits: Tensor, labels: Tensor): Tensor {
  return scope(() => {
    const guess = argmax(logits);
    return sum(
      pointwise("select(0.0, 1.0, guess == label)", { guess, label: labels }, labels.shape),
    );
  });
}
