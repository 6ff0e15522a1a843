/**
 * Classifies images by the features of a model.
 *
 * @module
 */

import { indexSelect } from "../../autograd/ops/embedding.ts";
import { softmax } from "../../autograd/ops/softmax.ts";
import { topK } from "../../autograd/ops/top_k.ts";
import { concat } from "../../autograd/ops/view.ts";
import type { Model } from "../../clip/model.ts";
import type { Pass } from "../../clip/layers.ts";
import { type Prompts, releaseChunks } from "../../clip/text.ts";
import type { Learner } from "../methods/method.ts";
import type { Tokenizer } from "../../clip/tokenizer.ts";
import { tensor } from "../../tensor/create.ts";
import { firstNonFinite } from "../../tensor/finite.ts";
import { keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/**
 * The template with each `{}` replaced by the class name. Underscores in the name become spaces, as
 * in CLIP-LoRA.
 */
export function promptOf(name: string, template: string): string {
  // The replacement is a function because a class name may contain patterns such as `$&`.
  return template.replaceAll("{}", () => name.replaceAll("_", " "));
}

/**
 * Two classes whose prompts are the same and which therefore cannot be told apart, or null if there
 * are none. Case and spacing are ignored.
 */
export function sameClasses(
  classes: readonly string[],
  template: string,
): readonly [string, string] | null {
  const seen = new Map<string, string>();
  for (const name of classes) {
    const words = promptOf(name, template).toLowerCase().normalize("NFC").trim().split(/\s+/);
    const prompt = words.join(" ");
    const other = seen.get(prompt);
    if (other !== undefined) return [other, name];
    seen.set(prompt, name);
  }
  return null;
}

/**
 * One prompt for each class, made by {@linkcode promptOf}.
 *
 * @throws {RangeError} If the template has no `{}`, or a prompt does not fit the model's context.
 * @throws {TypeError} If the model has no text tower.
 */
export function classPrompts(
  model: Model,
  tokenizer: Tokenizer,
  classes: readonly string[],
  template: string,
): Prompts {
  if (!template.includes("{}")) {
    throw new RangeError(
      `Cannot use template "${template}": it must have {} where the class name goes`,
    );
  }
  if (!model.text) throw new TypeError("Cannot encode prompts: the model has no text tower");
  const { context, vocabulary } = model.text;
  if (tokenizer.size > vocabulary) {
    throw new RangeError(
      `Cannot use a tokenizer of ${tokenizer.size} tokens: ` +
        `the model's vocabulary has ${vocabulary}`,
    );
  }
  const texts = classes.map((name) => promptOf(name, template));
  const { ids, rows } = tokenizer.tokenize(texts, context, { pad: tokenizer.end });
  return model.text.prompts(ids, rows);
}

/**
 * How many prompts are encoded at once when nothing trains. More would use more memory, and would
 * not be faster.
 */
const PROMPTS_AT_ONCE = 128;

/** Text features of prompts, not normalized: `[K, E]`, encoded in chunks if there are many. */
export function encodePrompts(model: Model, prompts: Prompts, pass?: Pass): Tensor {
  if (prompts.count <= PROMPTS_AT_ONCE) return model.textFeatures(prompts, pass);
  const chunks = prompts.chunks(PROMPTS_AT_ONCE);
  const positions = positionsOf(chunks.flatMap(({ numbers }) => numbers));
  try {
    return scope(() => {
      const features = concat(chunks.map(({ prompts }) => model.textFeatures(prompts, pass)), 0);
      return indexSelect(features, 0, tensor(Int32Array.from(positions)));
    });
  } finally {
    releaseChunks(chunks);
  }
}

/**
 * The inverse of a permutation: the index of each number in `numbers`, which holds every integer
 * from 0 up once.
 */
export function positionsOf(numbers: readonly number[]): number[] {
  const positions: number[] = [];
  numbers.forEach((number, i) => positions[number] = i);
  return positions;
}

/** The most likely classes of an image. */
export interface Prediction {
  /** Class indices, the most likely first. */
  readonly classes: readonly number[];
  /** The probability of each of them. The probabilities of all classes sum to 1. */
  readonly probabilities: readonly number[];
}

/** Classifies images by the cosine similarity of their features to those of the class prompts. */
export class Classifier {
  readonly #model: Model;
  readonly #texts: Tensor;
  readonly #scale: number | undefined;
  readonly #learner: Learner | undefined;
  readonly #pass: Pass | undefined;

  /**
   * Runs the text tower once, with whatever `learner` adds to it. `scale` is the logit scale; the
   * default is the model's.
   */
  constructor(model: Model, prompts: Prompts, scale?: number, learner?: Learner) {
    this.#model = model;
    this.#pass = learner?.hooks && { hooks: learner.hooks() };
    this.#texts = keep(encodePrompts(model, prompts, this.#pass));
    this.#scale = scale;
    this.#learner = learner;
  }

  /**
   * The `count` most likely classes of each image. `pixels` are normalized, `[B, 3, R, R]`, on the
   * host.
   *
   * @throws {RangeError} If the logits of an image are NaN or infinite, because the weights of the
   * model or of its adapters have diverged.
   */
  async predict(pixels: Float32Array<ArrayBuffer>, count = 1): Promise<Prediction[]> {
    const size = this.#model.vision.imageSize;
    const batch = pixels.length / (3 * size * size);
    const k = Math.min(count, this.#texts.shape[0]);
    const likeliest = scope(() => {
      const images = this.#model.imageFeatures(
        tensor(pixels, [batch, 3, size, size]),
        this.#pass,
      );
      return topK(softmax(this.#logits(images)), k);
    });
    try {
      const [values, indices] = await Promise.all([
        likeliest.values.data(),
        likeliest.indices.data(),
      ]);
      if (firstNonFinite(values) >= 0) {
        throw new RangeError(
          "Cannot classify: the model's logits are NaN or infinite, " +
            "its weights or its adapter's are broken",
        );
      }
      return Array.from({ length: batch }, (_, i) => ({
        classes: Array.from(indices.subarray(i * k, (i + 1) * k)),
        probabilities: Array.from(values.subarray(i * k, (i + 1) * k)),
      }));
    } finally {
      likeliest.values.release();
      likeliest.indices.release();
    }
  }

  #logits(images: Tensor): Tensor {
    const rule = (images: Tensor, texts: Tensor) => this.#model.logits(images, texts, this.#scale);
    return this.#learner?.logits?.(images, this.#texts, rule) ?? rule(images, this.#texts);
  }

  /** Releases the text features. */
  release(): void {
    this.#texts.release();
  }
}
