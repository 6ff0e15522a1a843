/**
 * Reverse-mode differentiation, the ops that it differentiates, and optimizers.
 *
 * @module
 */

export {
  type GradientRule,
  needsGradient,
  record,
  valueAndGrad,
  vjp,
  wrt,
  wrtAccumulating,
  wrtAll,
} from "./tape.ts";
export { gradientsNow, recompute } from "./recompute.ts";
export * from "./ops/attention.ts";
export * from "./ops/conv.ts";
export * from "./ops/create.ts";
export * from "./ops/cross_entropy.ts";
export * from "./ops/cumsum.ts";
export { dropout, type DropoutKey, maskedDropout } from "./ops/dropout.ts";
export * from "./ops/embedding.ts";
export * from "./ops/layer_norm.ts";
export { linear, type LinearOptions } from "./ops/linear.ts";
export * from "./ops/low_rank.ts";
export * from "./ops/matmul.ts";
export * from "./ops/normalize.ts";
export * from "./ops/pointwise.ts";
export * from "./ops/reduce.ts";
export { logSoftmax, softmax } from "./ops/softmax.ts";
export * from "./ops/top_k.ts";
export * from "./ops/view.ts";
export * from "./optim/adam.ts";
export * from "./optim/clip_norm.ts";
export type {
  Optimizer,
  OptimizerOptions,
  OptimizerState,
  ParameterGroup,
  ParameterList,
} from "./optim/optimizer.ts";
export * from "./optim/schedule.ts";
export * from "./optim/sgd.ts";
