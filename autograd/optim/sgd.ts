/**
 * Stochastic gradient descent.
 *
 * @module
 */

import wgsl from "../../kernels/sgd.wgsl" with { type: "text" };
import {
  atLeastZero,
  Optimizer,
  optimizerKernel,
  type OptimizerOptions,
  type ParameterList,
  type Rule,
} from "./optimizer.ts";

/** How {@linkcode Sgd} steps. */
export interface SgdOptions extends OptimizerOptions {
  /** The share of the momentum that each step keeps; 0 by default, which needs no state. */
  readonly momentum?: number;
  /**
   * The share of a new gradient that is left out of the momentum; 0 by default. The first gradient
   * is added in full.
   */
  readonly dampening?: number;
  /** Nesterov's momentum, which looks a step ahead; false by default. */
  readonly nesterov?: boolean;
}

const RULE: Rule<SgdOptions> = {
  name: "Sgd",
  // 7 operations an element: decay 2, momentum 3, update 2.
  kernel: optimizerKernel(
    "sgd.wgsl",
    wgsl,
    ["rate", "weight_decay", "mu", "gain"],
    { MOMENTUM: "bool", NESTEROV: "bool" },
    7,
  ),
  defaults: { learningRate: 1e-3, weightDecay: 0, momentum: 0, dampening: 0, nesterov: false },
  ranges: ({ momentum, dampening, nesterov }) => ({
    momentum: atLeastZero(momentum),
    dampening: [dampening, Number.isFinite(dampening), "a finite number"],
    nesterov: [
      nesterov,
      !nesterov || (momentum > 0 && dampening === 0),
      "false without momentum, and with dampening",
    ],
  }),
  state: ({ momentum }) => ({ momentum: momentum !== 0 }),
  constants: ({ momentum, nesterov }) => ({ MOMENTUM: +(momentum !== 0), NESTEROV: +nesterov }),
  sizes: ({ weightDecay, momentum, dampening }, rate, step) => ({
    rate,
    weight_decay: weightDecay,
    mu: momentum,
    gain: step === 0 ? 1 : 1 - dampening,
  }),
};

/**
 * Stochastic gradient descent with momentum and weight decay, as `torch.optim.SGD`. Without weight
 * decay by default.
 */
export class Sgd extends Optimizer<SgdOptions> {
  /** Makes the optimizer of some parameters, or of groups with options for each. */
  constructor(parameters: ParameterList<SgdOptions>, options: SgdOptions = {}) {
    super(RULE, parameters, options);
  }
}
