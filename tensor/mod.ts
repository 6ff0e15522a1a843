/**
 * Tensors on the GPU, the engine that computes them, and files that hold them.
 *
 * @module
 */

export type { Binding } from "./bind_groups.ts";
export { type Nested, type NumberArray, tensor } from "./create.ts";
export { type DryGpu, dryTwin, gpuName, init, initDry, onDryEngine } from "./device.ts";
export { encodeSafetensors, type TensorToSave } from "./encode_safetensors.ts";
export { DeviceLostError, KernelError, NoAdapterError, OutOfMemoryError } from "./errors.ts";
export {
  attribute,
  measure,
  type Measured,
  type Phase,
  PHASES,
  total,
  type Work,
  type WorkRow,
} from "./measure.ts";
export {
  type BytesByCategory,
  limitMemory,
  type Memory,
  memory,
  MEMORY_CATEGORIES,
  type MemoryCategory,
  resetPeak,
} from "./memory.ts";
export { type Profile, profile, type ProfileRow, profileTable } from "./profile.ts";
export { type Counters, counters, flush, trim } from "./queue.ts";
export { hash3, Random } from "./random.ts";
export { SafetensorsFile, type TensorInfo } from "./safetensors.ts";
export { keep, scope } from "./scope.ts";
export type { Shape } from "./shape.ts";
export { type Data, type Dtype, Tensor } from "./tensor.ts";
export {
  type ByteSource,
  bytesSource,
  type SafetensorsDtype,
  type TensorDescription,
  type TensorFile,
} from "./tensor_file.ts";
export { TorchFile } from "./torch_file.ts";
