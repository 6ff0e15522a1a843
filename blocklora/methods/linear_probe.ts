/**
 * The linear probe: a linear classifier on frozen image features, the baseline that trains nothing
 * of the model.
 *
 * @module
 */

import { zeros } from "../../autograd/ops/create.ts";
import { crossEntropy } from "../../autograd/ops/cross_entropy.ts";
import { linear } from "../../autograd/ops/linear.ts";
import { add, mulScalar, square } from "../../autograd/ops/pointwise.ts";
import { sum } from "../../autograd/ops/reduce.ts";
import { argmax } from "../../autograd/ops/top_k.ts";
import { Adam } from "../../autograd/optim/adam.ts";
import { cosineAnnealing } from "../../autograd/optim/schedule.ts";
import { valueAndGrad } from "../../autograd/tape.ts";
import { tensor } from "../../tensor/create.ts";
import { keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Baseline, Features } from "./baseline.ts";

/** How a classifier is fitted. */
export interface ProbeOptions {
  /** Steps of Adam over all features at once. */
  readonly steps: number;
  /** Adam's learning rate at the first step; half a cosine takes it to 0. */
  readonly learningRate: number;
  /** The factor of the penalty, which is half the sum of the squared weights. */
  readonly penalty: number;
}

/**
 * Enough steps for the loss to settle on features of unit length. The penalty is 1 / (C n) of
 * scikit-learn's logistic regression at C = 3.16 and 100 images, in the middle of the range that
 * CLIP's authors searched (Radford et al., arXiv 2103.00020, appendix A.3).
 */
export const DEFAULT_PROBE: ProbeOptions = { steps: 400, learningRate: 0.3, penalty: 3e-3 };

/** The linear probe as a baseline. */
export const linearProbe: Baseline = {
  name: "linear-probe",
  label: "linear probe",
  learns: true,
  settings: () => ({ ...DEFAULT_PROBE }),
  async predict({ classes, trainFeatures, testFeatures }) {
    const [train, test] = [await trainFeatures(), await testFeatures()];
    const classifier = await fitProbe(train, classes);
    const predictions = await probePredictions(classifier, test);
    const parameters = classifier.weight.size + classifier.bias.size;
    for (const matrix of [classifier.weight, classifier.bias]) matrix.release();
    const { labels, paths } = test;
    const hits = predictions.filter((guess, i) => guess === labels[i]).length;
    return {
      score: { accuracy: hits / predictions.length, labels, predictions, paths },
      losses: classifier.losses,
      parameters,
    };
  },
};

/** A fitted classifier. */
export interface Probe {
  /** `[classes, width]`. */
  readonly weight: Tensor;
  /** `[classes]`. */
  readonly bias: Tensor;
  /** The objective at each step, in nats. */
  readonly losses: readonly number[];
}

/**
 * Fits a multinomial logistic regression, beginning at zero. The loss is the mean cross-entropy of
 * `x Wᵀ + b`, with the rows of `x` scaled to length 1, plus `penalty / 2 · Σ W²`. The caller
 * releases weight and bias.
 */
export async function fitProbe(
  train: Features,
  classes: number,
  { steps, learningRate, penalty }: ProbeOptions = DEFAULT_PROBE,
): Promise<Probe> {
  const x = tensor(normalized(train), [train.labels.length, train.width]);
  const labels = tensor(Int32Array.from(train.labels));
  const [weight, bias] = [keep(zeros([classes, train.width])), keep(zeros([classes]))];
  const optimizer = new Adam([weight, bias], {
    learningRate: cosineAnnealing(learningRate, 0, steps),
  });
  const seen: Tensor[] = [];
  for (let step = 0; step < steps; step++) {
    seen.push(scope(() => {
      const { value, grads } = valueAndGrad(() => {
        const loss = crossEntropy(linear(x, weight, bias), labels);
        return add(loss, mulScalar(sum(square(weight)), penalty / 2));
      }, [weight, bias]);
      optimizer.step(grads);
      return value;
    }));
  }
  const losses = await Promise.all(seen.map((loss) => loss.item()));
  for (const made of [x, labels, ...seen]) made.release();
  optimizer.release();
  return { weight, bias, losses };
}

/** The most likely class of each row. */
export async function probePredictions(
  { weight, bias }: Pick<Probe, "weight" | "bias">,
  features: Features,
): Promise<number[]> {
  const guesses = scope(() => {
    const x = tensor(normalized(features), [features.labels.length, features.width]);
    return argmax(linear(x, weight, bias));
  });
  const values = await guesses.data();
  guesses.release();
  return Array.from(values);
}

/** Every row scaled to length 1; a row of zeros stays. */
function normalized({ values, width }: Features): Float32Array<ArrayBuffer> {
  const scaled = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += width) {
    const row = values.subarray(start, start + width);
    const length = Math.hypot(...row);
    row.forEach((value, i) => scaled[start + i] = value / (length || 1));
  }
  return scaled;
}
