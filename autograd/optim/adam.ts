/**
 * Adam and AdamW: weight decay is added to the gradient, or taken off the parameter directly.
 *
 * @module
 */

import wgsl from "../../kernels/adam.wgsl" with { type: "text" };
import {
  atLeastZero,
  Optimizer,
  optimizerKernel,
  type OptimizerOptions,
  type ParameterList,
  type Rule,
} from "./optimizer.ts";

/** How {@linkcode Adam} and {@linkcode AdamW} step. */
export interface AdamOptions extends OptimizerOptions {
  /**
   * β₁ and β₂: the share that each step keeps of the running mean of gradients, and of the running
   * mean of their squares; [0.9, 0.999] by default.
   */
  readonly betas?: readonly [number, number];
  /** Added to the root of the mean square; 1e-8 by default. */
  readonly epsilon?: number;
  /**
   * Whether to divide by the root of the largest mean square so far, as AMSGrad does (Reddi et al.,
   * arXiv 1904.09237); false by default.
   */
  readonly amsgrad?: boolean;
}

const NUMBERS = [
  // The host computes these in 64 bits: in 32 bits, 1 - β₂ and 1 - β₂ᵗ would keep few digits.
  ...["rate", "correction", "decay", "l2", "beta1", "beta2"],
  ...["one_minus_beta1", "one_minus_beta2", "epsilon"],
];
// 18 operations an element, counted in adam.wgsl; a square root is one.
const kernel = optimizerKernel("adam.wgsl", wgsl, NUMBERS, { AMSGRAD: "bool" }, 18);

/**
 * The rule of Adam and AdamW. If `decoupled`, weight decay is taken off the parameter directly;
 * else it is added to the gradient.
 */
function rule(name: string, decoupled: boolean, weightDecay: number): Rule<AdamOptions> {
  return {
    name,
    kernel,
    defaults: {
      learningRate: 1e-3,
      weightDecay,
      betas: [0.9, 0.999],
      epsilon: 1e-8,
      amsgrad: false,
    },
    ranges: ({ betas, epsilon }) => ({
      betas: [betas, betas.every((beta) => beta >= 0 && beta < 1), "two numbers from 0 to below 1"],
      epsilon: atLeastZero(epsilon),
    }),
    state: ({ amsgrad }) => ({ mean: true, square: true, largest: amsgrad }),
    constants: ({ amsgrad }) => ({ AMSGRAD: +amsgrad }),
    sizes: ({ weightDecay, betas: [beta1, beta2], epsilon }, rate, step) => ({
      rate: rate / (1 - beta1 ** (step + 1)),
      correction: 1 / Math.sqrt(1 - beta2 ** (step + 1)),
      decay: decoupled ? rate * weightDecay : 0,
      l2: decoupled ? 0 : weightDecay,
      beta1,
      beta2,
      one_minus_beta1: 1 - beta1,
      one_minus_beta2: 1 - beta2,
      epsilon,
    }),
  };
}

const ADAM = rule("Adam", false, 0);
const ADAM_W = rule("AdamW", true, 1e-2);

/** Adam, as `torch.optim.Adam`: weight decay, 0 by default, is added to the gradient. */
export class Adam extends Optimizer<AdamOptions> {
  /** Makes the optimizer of some parameters, or of groups with options for each. */
  constructor(parameters: ParameterList<AdamOptions>, options: AdamOptions = {}) {
    super(ADAM, parameters, options);
  }
}

/**
 * Adam, as `torch.optim.AdamW`: weight decay, 1e-2 by default, is taken off the parameter directly.
 *
 * @example
 * ```ts
 * import { AdamW, cosineAnnealing, init, scope } from "../../mod.ts";
 * import { square, sum, tensor, valueAndGrad } from "../../mod.ts";
 * await init();
 * const x = tensor([3, -2]);
 * const optimizer = new AdamW([x], { learningRate: cosineAnnealing(0.5, 0, 30) });
 * for (let step = 0; step < 30; step++) {
 *   scope(() => optimizer.step(valueAndGrad(() => sum(square(x)), [x]).grads));
 * }
 * console.log((await x.data()).every((value) => Math.abs(value) < 0.5)); // true
 * optimizer.release();
 * x.release();
 * ```
 */
export class AdamW extends Optimizer<AdamOptions> {
  /** Makes the optimizer of some parameters, or of groups with options for each. */
  constructor(parameters: ParameterList<AdamOptions>, options: AdamOptions = {}) {
    super(ADAM_W, parameters, options);
  }
}
