/**
 * The few-shot recipe: one training step after another.
 *
 * @module
 */

import { crossEntropy } from "../autograd/ops/cross_entropy.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { mean } from "../autograd/ops/reduce.ts";
import { argmax } from "../autograd/ops/top_k.ts";
import { concat, reshape } from "../autograd/ops/view.ts";
import { AdamW } from "../autograd/optim/adam.ts";
import { clipByNorm } from "../autograd/optim/clip_norm.ts";
import { cosineAnnealing } from "../autograd/optim/schedule.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import type { Clip } from "../clip/clip.ts";
import type { Prompts } from "../clip/text.ts";
import { tensor } from "../tensor/create.ts";
import { hash3 } from "../tensor/random.ts";
import { adopt, keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Adapters } from "./attach.ts";

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

/** Keeps the dropout's random numbers apart from others of the same seed. */
const DROPOUT = 0x64726f70;

/** Trains the adapters of a model on batches of images, each class named by a prompt. */
export class Trainer {
  readonly #clip: Clip;
  readonly #adapters: Adapters;
  readonly #prompts: Prompts;
  readonly #recipe: Recipe;
  readonly #optimizer: AdamW;
  readonly #texts: Tensor | null;
  #step = 0;

  /** Makes the optimizer. A text tower without adapters runs here, once. */
  constructor(clip: Clip, adapters: Adapters, prompts: Prompts, recipe: Recipe) {
    const { learningRate, minimumRate, iterations, weightDecay, betas } = recipe;
    this.#clip = clip;
    this.#adapters = adapters;
    this.#prompts = prompts;
    this.#recipe = recipe;
    this.#optimizer = new AdamW(adapters.parameters, {
      learningRate: cosineAnnealing(learningRate, minimumRate, iterations),
      weightDecay,
      betas,
    });
    this.#texts = adapters.adapts("text") ? null : keep(clip.textFeatures(prompts));
  }

  /** Steps taken so far. */
  get steps(): number {
    return this.#step;
  }

  /** The learning rate of the next step. */
  get learningRate(): number {
    const { learningRate, minimumRate, iterations } = this.#recipe;
    return cosineAnnealing(learningRate, minimumRate, iterations)(this.#step);
  }

  /**
   * Takes one step and gives, as a tensor `[2]`, the batch's loss (nats) and accuracy (0 to 1) before it. Nothing is
   * waited for: the step is one submit, which happens when the caller reads or the next batch is uploaded.
   */
  step({ pixels, labels }: TrainingBatch): Tensor {
    const { logitScale, labelSmoothing, maxNorm } = this.#recipe;
    const seed = hash3(this.#recipe.seed, this.#step++, DROPOUT)[0];
    const size = this.#clip.config.vision.imageSize;
    return scope(() => {
      const images = tensor(pixels, [labels.length, 3, size, size]);
      const classes = tensor(labels);
      let accuracy: Tensor | undefined;
      const { value: loss, grads } = valueAndGrad(() => {
        const features = this.#clip.imageFeatures(images, seed);
        const texts = this.#texts ?? this.#clip.textFeatures(this.#prompts, seed);
        const logits = this.#clip.logits(features, texts, logitScale);
        accuracy = keep(share(logits, classes));
        return crossEntropy(logits, classes, { labelSmoothing });
      }, this.#adapters.parameters);
      adopt(accuracy!);
      this.#optimizer.step(maxNorm > 0 ? clipByNorm(grads, maxNorm).grads : grads);
      return concat([reshape(loss, [1]), reshape(accuracy!, [1])], 0);
    });
  }

  /** Gives the optimizer's state back; adapters, prompts and model stay. */
  release(): void {
    this.#optimizer.release();
    this.#texts?.release();
  }
}

/** Share of the rows whose largest logit is the label's. */
function share(logits: Tensor, labels: Tensor): Tensor {
  return scope(() => {
    const guess = argmax(logits);
    return mean(
      pointwise("select(0.0, 1.0, guess == label)", { guess, label: labels }, labels.shape),
    );
  });
}
