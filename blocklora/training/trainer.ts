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
import { gradientsNow, recompute, valueAndGrad } from "../../autograd/tape.ts";
import type { Clip } from "../../clip/clip.ts";
import type { Pass } from "../../clip/layers.ts";
import { type PromptPart, type Prompts, releaseParts } from "../../clip/text.ts";
import { tensor } from "../../tensor/create.ts";
import { hash3 } from "../../tensor/random.ts";
import { adopt, keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Adapters } from "../methods/attach.ts";
import { encodePrompts, placesOf } from "./classifier.ts";

/** How adapters are trained. */
export interface Recipe {
  /** AdamW's learning rate at the first step. */
  readonly learningRate: number;
  /** What a half cosine takes it down to at the last. */
  readonly minimumRate: number;
  /** AdamW's decoupled weight decay. */
  readonly weightDecay: number;
  /** AdamW's decay rates of the two moments. */
  readonly betas: readonly [number, number];
  /** How many steps there are. */
  readonly iterations: number;
  /** The factor of the cosines. */
  readonly logitScale: number;
  /** Share of each label spread over all classes. */
  readonly labelSmoothing: number;
  /** Largest norm of all gradients together; 0 for none. */
  readonly maxNorm: number;
  /** Seed of the dropout masks. */
  readonly seed: number;
}

/** CLIP-LoRA's recipe, for one shot (`run_utils.py` and `lora.py` of github.com/MaxZanella/CLIP-LoRA). */
export const DEFAULT_RECIPE: Recipe = {
  learningRate: 2e-4,
  minimumRate: 1e-6,
  weightDecay: 1e-2,
  betas: [0.9, 0.999],
  iterations: 500,
  logitScale: 100,
  labelSmoothing: 0,
  maxNorm: 0,
  seed: 1,
};

/** A batch on the host. */
export interface TrainingBatch {
  /** Normalized pixels, `[B, 3, R, R]`. */
  readonly pixels: Float32Array<ArrayBuffer>;
  /** The class of each image, `[B]`. */
  readonly labels: Int32Array<ArrayBuffer>;
}

/** What a step does to need less memory; each costs time, none changes its gradients. Nothing of it by default. */
export interface MemoryPlan {
  /** Whether each block keeps only its input, and runs again in the backward pass: a forward pass more. */
  readonly recompute?: boolean;
  /**
   * Prompts that the text tower takes at once: it runs without a tape first, and again, part by part, when the gradients
   * of its features are there (Gao et al., arXiv 2101.06983). A forward pass of the text tower more, though parts of
   * short prompts are cut shorter. All at once if 0.
   */
  readonly textChunk?: number;
  /** Images that the image tower takes at once, each part's gradients being computed before the next. All if 0. */
  readonly microBatch?: number;
}

/** Keeps the dropout's random numbers apart from others of the same seed. */
const DROPOUT = 0x64726f70;

/** Trains the adapters of a model on batches of images, each class named by a prompt. */
export class Trainer {
  readonly #clip: Clip;
  readonly #adapters: Adapters;
  readonly #recipe: Recipe;
  readonly #plan: MemoryPlan;
  readonly #optimizer: AdamW;
  readonly #parameters: readonly Tensor[];
  /** How many blocks of Block-LoRA a parameter stands for. */
  readonly #copies: readonly number[];
  readonly #prompts: Prompts;
  /** The prompts in parts, if they run in parts. */
  readonly #parts: readonly PromptPart[] | null;
  /** The column of each class in the logits, which follow the parts. */
  readonly #columns: readonly number[] | null;
  /** The features of a text tower that does not change. */
  readonly #texts: Tensor | null;
  #step = 0;

  /** Makes the optimizer. A text tower without adapters runs here, once. The prompts stay the caller's. */
  constructor(
    clip: Clip,
    adapters: Adapters,
    prompts: Prompts,
    recipe: Recipe,
    plan: MemoryPlan = {},
  ) {
    this.#clip = clip;
    this.#adapters = adapters;
    this.#recipe = recipe;
    this.#plan = plan;
    const { method, blocks } = adapters.config;
    const copies = method === "block-lora-collapsed" ? blocks : 1;
    const [downs, ups] = [adapters.downs, adapters.ups];
    this.#parameters = [...downs, ...ups];
    this.#copies = [...downs.map(() => 1), ...ups.map(() => copies)];
    this.#optimizer = new AdamW([
      { parameters: downs, ...this.#rates(1) },
      { parameters: ups, ...this.#rates(copies) },
    ], { betas: recipe.betas });
    const [trains, size] = [adapters.adapts("text"), plan.textChunk ?? 0];
    this.#prompts = prompts;
    this.#parts = trains && size > 0 ? prompts.parts(size) : null;
    this.#columns = this.#parts && placesOf(this.#parts.flatMap(({ numbers }) => numbers));
    this.#texts = trains ? null : keep(encodePrompts(clip, prompts));
  }

  /**
   * The optimizer's options for matrices of which each stands for `copies` equal blocks: the sum of the blocks moves by
   * as much as if each moved by itself (`attach.ts` says why they are equal).
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
      const clip = maxNorm > 0 ? clipFactor(grads, maxNorm, this.#copies) : undefined;
      this.#optimizer.step(grads, clip?.factor);
      if (!rehearsing()) this.#step++;
      return stack([loss, accuracy], 0);
    });
  }

  /** The trainable matrices, in the order of {@linkcode gradients}: every A, then every B. */
  get parameters(): readonly Tensor[] {
    return this.#parameters;
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
        const pass = { seed, shared: this.#adapters.shared(), recompute: this.#plan.recompute };
        const texts = this.#texts ?? this.#textFeatures(pass);
        const parts = this.#imageParts(images, classes, pass)
          .map((part) => this.#partLoss(part, texts, labels.length));
        accuracy = keep(addAll(parts.map(({ accuracy }) => accuracy)));
        return addAll(parts.map(({ loss }) => loss));
      }, this.#parameters);
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
      const logits = this.#clip.logits(features, texts, logitScale);
      accuracy = keep(scope(() => mulScalar(hits(logits, classes), 1 / total)));
      const loss = crossEntropy(logits, classes, { labelSmoothing, reduction: "sum" });
      return mulScalar(loss, 1 / total);
    };
    const loss = classes.shape[0] === total ? compute() : gradientsNow(compute);
    return { loss, accuracy: adopt(accuracy!) };
  }

  /** Gives the optimizer's state back; adapters, prompts and model stay. */
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
