/**
 * **octograd**: tensors and reverse-mode autograd on WebGPU, the CLIP encoders, and Block-LoRA (arXiv 2501.16720), which
 * adapts CLIP to a new task from a few labelled images a class.
 *
 * Nothing here touches files or the network: bytes are passed in, so that the same sources run in Deno and in browsers.
 *
 * @example Gradients
 * ```ts
 * import { init, matmul, mean, square, sub, tensor, valueAndGrad } from "./mod.ts";
 *
 * await init();
 * const x = tensor([[1, 2], [3, 4], [5, 6]]);
 * const y = tensor([[1], [2], [3]]);
 * const w = tensor([[0.5], [0.5]]);
 * const { value, grads } = valueAndGrad(() => mean(square(sub(matmul(x, w), y))), [w]);
 * console.log(await value.item()); // 2.9166667461395264
 * console.log(await grads[0].data()); // Float32Array(2) [ 11.666666984558105, 14.666666030883789 ]
 * for (const t of [x, y, w, value, ...grads]) t.release();
 * ```
 *
 * @module
 */

export { type DryGpu, dryTwin, gpuName, init, initDry, onDryEngine } from "./tensor/device.ts";
export { DeviceLostError, KernelError, NoAdapterError, OutOfMemoryError } from "./tensor/errors.ts";
export {
  attribute,
  measure,
  type Measured,
  type Phase,
  PHASES,
  total,
  type Work,
  type WorkRow,
} from "./tensor/measure.ts";
export {
  type BytesByOwner,
  limitMemory,
  type Memory,
  memory,
  type Owner,
  OWNERS,
  resetPeak,
} from "./tensor/memory.ts";
export { type Profile, profile, type ProfileRow, profileTable } from "./tensor/profile.ts";
export { type Counters, counters, flush, trim } from "./tensor/queue.ts";
export type { Binding } from "./tensor/bind_groups.ts";
export { keep, scope } from "./tensor/scope.ts";
export type { Shape } from "./tensor/shape.ts";
export { type Data, type Dtype, Tensor } from "./tensor/tensor.ts";
export { type Nested, type NumberArray, tensor } from "./tensor/create.ts";
export { hash3, Random } from "./tensor/random.ts";
export {
  encodeSafetensors,
  SafetensorsFile,
  type TensorInfo,
  type TensorToSave,
} from "./tensor/safetensors.ts";
export {
  type ByteSource,
  bytesSource,
  type SafetensorsDtype,
  type TensorDescription,
  type TensorFile,
} from "./tensor/tensor_file.ts";
export { TorchFile } from "./tensor/torch_file.ts";

export { compileAhead } from "./kernels/warm_up.ts";
export {
  type KernelChoice,
  pinKernels,
  type Style,
  STYLES,
  TILE_SIZES,
  type TileSize,
} from "./kernels/style.ts";

export {
  type GradientRule,
  needsGradient,
  record,
  valueAndGrad,
  vjp,
  wrt,
  wrtAccumulating,
  wrtAll,
} from "./autograd/tape.ts";
export { gradientsNow, recompute } from "./autograd/recompute.ts";
export * from "./autograd/ops/attention.ts";
export * from "./autograd/ops/conv.ts";
export * from "./autograd/ops/create.ts";
export * from "./autograd/ops/cross_entropy.ts";
export * from "./autograd/ops/cumsum.ts";
export { dropout, type DropoutKey, maskedDropout } from "./autograd/ops/dropout.ts";
export * from "./autograd/ops/embedding.ts";
export * from "./autograd/ops/layer_norm.ts";
export { linear, type LinearOptions } from "./autograd/ops/linear.ts";
export * from "./autograd/ops/low_rank.ts";
export * from "./autograd/ops/matmul.ts";
export * from "./autograd/ops/normalize.ts";
export * from "./autograd/ops/pointwise.ts";
export * from "./autograd/ops/reduce.ts";
export { logSoftmax, softmax } from "./autograd/ops/softmax.ts";
export * from "./autograd/ops/top_k.ts";
export * from "./autograd/ops/view.ts";
export * from "./autograd/optim/adam.ts";
export * from "./autograd/optim/clip_norm.ts";
export type {
  Optimizer,
  OptimizerOptions,
  OptimizerState,
  ParameterGroup,
  ParameterList,
} from "./autograd/optim/optimizer.ts";
export * from "./autograd/optim/schedule.ts";
export * from "./autograd/optim/sgd.ts";

export * from "./clip/mod.ts";
export * from "./blocklora/mod.ts";
