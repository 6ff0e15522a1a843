/**
 * How an engine starts: on a GPU, or dry, without one.
 *
 * @module
 */

import { BufferPool } from "./buffer_pool.ts";
import { currentEngine, Engine, hasEngine, switchEngine, withEngine } from "./engine.ts";
import { NoAdapterError } from "./errors.ts";
import { Device } from "./gpu_device.ts";
import { Meters } from "./measure.ts";
import { nullDevice } from "./null_device.ts";
import { Queue } from "./queue.ts";

/**
 * The limits that `init()` requests at the GPU's own values. Without a request a device has
 * WebGPU's defaults, which are too small for some kernels and buffers.
 */
const LIMITS = [
  "maxStorageBuffersPerShaderStage",
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupStorageSize",
] as const;

/** Features that are requested if the GPU has them. */
const OPTIONAL_FEATURES = ["timestamp-query", "shader-f16"] as const;

/** The largest buffer of a dry engine by default, in bytes: as much as present GPUs allow. */
const DRY_BYTES = 2 ** 32 - 4;

/**
 * Storage buffers that a kernel can bind on a dry engine by default: more than any kernel binds.
 */
const DRY_BUFFERS = 32;

/** Storage buffers that a kernel can bind on every GPU: WebGPU's default limit. */
export const MAX_BINDINGS = 8;

/** The start of the current real engine, which may still be going on; null if there is none. */
let starting: Promise<void> | null = null;

/**
 * Finds the GPU and makes it ready. Call it once, before anything else; later calls wait for the
 * first. After a loss of the device, another call starts a new one, for which all counts and
 * settings begin anew. Tensors of the lost device stay unusable, but may still be released.
 *
 * @throws {NoAdapterError} If there is no WebGPU, or no adapter.
 */
export function init(): Promise<void> {
  return starting ??= start().catch((error) => {
    starting = null;
    throw error;
  });
}

/**
 * The GPU that a dry engine stands for; by default one with generous limits that is not software.
 */
export interface DryGpu {
  /** The largest buffer, in bytes. */
  readonly maxBufferSize?: number;
  /** How much of a buffer a kernel can bind, in bytes. */
  readonly maxStorageBufferBindingSize?: number;
  /** Whether it computes on the CPU, which decides which kernels run. */
  readonly software?: boolean;
  /** Storage buffers that a kernel can bind. */
  readonly maxStorageBuffersPerShaderStage?: number;
  /** Bytes of a workgroup's memory. */
  readonly maxComputeWorkgroupStorageSize?: number;
  /** Invocations of a subgroup, or 0 where kernels cannot rely on their number. */
  readonly lanes?: number;
}

/**
 * Makes a dry engine current, which needs no GPU: it allocates nothing and computes nothing. The
 * same code runs on it, and `memory()`, `counters` and `measure()` tell exactly what the code would
 * cost. All data read back is 0. The previous engine is destroyed; `init()` starts a real one
 * again.
 */
export function initDry(gpu: DryGpu = {}): void {
  install(dryEngine(gpu));
  starting = null;
}

/**
 * Runs `body` on a new dry engine, made as by {@linkcode initDry}, and gives its value. Afterwards
 * the previous engine is current again. The two engines share no state.
 *
 * @throws {TypeError} If `body` returns a promise.
 */
export function onDryEngine<T>(gpu: DryGpu, body: () => T): T {
  return withEngine(dryEngine(gpu), body);
}

/**
 * The options with which a dry engine stands for the GPU in use. With `anySize`, the size limits
 * are those of a dry engine by default, so that larger tensors are possible than on this GPU.
 */
export function dryTwin({ anySize = false } = {}): Required<DryGpu> {
  const { limits } = gpu();
  return {
    maxBufferSize: anySize ? DRY_BYTES : limits.maxBufferSize,
    maxStorageBufferBindingSize: anySize ? DRY_BYTES : limits.maxStorageBufferBindingSize,
    maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
    maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
    software: isSoftware(),
    lanes: lanes(),
  };
}

/**
 * Destroys the GPU device, at the end of a process. Otherwise it is torn down at exit while the
 * driver's threads still run, and Mesa's software driver then sometimes frees memory twice.
 */
export function shutDown(): void {
  if (hasEngine()) currentEngine().device.destroy();
  starting = null;
}

/**
 * The device of the current engine, for code that records work on it.
 *
 * @throws {Error} If init() was not awaited.
 * @throws {DeviceLostError} If the device is lost.
 */
export function gpu(): GPUDevice {
  return currentEngine().device.gpu;
}

/** What the GPU says of itself, in words: `"llvmpipe (LLVM 15.0.6, 256 bits)"`. */
export function gpuName(): string {
  return usable().name;
}

/** Whether the GPU is software that runs on the CPU, for which kernels are tiled differently. */
export function isSoftware(): boolean {
  return usable().isSoftware;
}

/**
 * Invocations of a subgroup, or 0 where kernels cannot rely on their number. They can on a software
 * GPU whose subgroups are all of one size.
 */
export function lanes(): number {
  return usable().lanes;
}

/** The current device; throws if it is lost. */
function usable(): Device {
  gpu();
  return currentEngine().device;
}

function dryEngine({ software = false, lanes = 0, ...limits }: DryGpu): Engine {
  const device = nullDevice({
    maxBufferSize: DRY_BYTES,
    maxStorageBufferBindingSize: DRY_BYTES,
    maxComputeWorkgroupStorageSize: 2 ** 15,
    maxStorageBuffersPerShaderStage: DRY_BUFFERS,
    ...limits,
  });
  const info = { description: "dry run", isFallbackAdapter: software, subgroupMinSize: lanes };
  return engineOn(new Device(device, info, lanes > 0 ? "" : null));
}

function engineOn(device: Device): Engine {
  const pool = new BufferPool(device);
  return new Engine(device, pool, new Queue(device, pool), new Meters());
}

function install(engine: Engine): void {
  // Nothing on the previous engine can be used any more. Its memory is freed now, not when it is
  // garbage-collected.
  switchEngine(engine)?.device.destroy();
}

async function findAdapter(): Promise<GPUAdapter> {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter({
    powerPreference: "high-performance",
  });
  if (adapter) return adapter;
  throw new NoAdapterError(
    "Cannot find a WebGPU adapter: install a Vulkan driver (on Debian and Ubuntu the software " +
      "driver is `apt-get install mesa-vulkan-drivers libvulkan1`), or use a browser with WebGPU",
  );
}

async function start(): Promise<void> {
  const adapter = await findAdapter();
  const requiredLimits: Record<string, number> = {};
  for (const limit of LIMITS) requiredLimits[limit] = adapter.limits[limit];
  const requiredFeatures: GPUFeatureName[] = OPTIONAL_FEATURES
    .filter((feature) => adapter.features.has(feature));
  const request = (adapter: GPUAdapter, ...more: GPUFeatureName[]) =>
    adapter.requestDevice({
      requiredLimits,
      requiredFeatures: [...requiredFeatures, ...more],
    });
  const { isFallbackAdapter, subgroupMinSize, subgroupMaxSize } = adapter.info;
  let made: GPUDevice | null = null;
  if (isFallbackAdapter && subgroupMinSize > 0 && subgroupMinSize === subgroupMaxSize) {
    // Deno grants the feature without listing it. If the request is refused, another adapter is
    // asked for a device: some adapters give only one.
    made = await request(adapter, "subgroups").catch(() => null);
  }
  const directive = made && await subgroupDirective(made);
  made ??= await request(await findAdapter());
  const engine = engineOn(new Device(made, adapter.info, directive));
  await engine.queue.readbacks.tryOut();
  made.lost.then(() => {
    if (hasEngine() && currentEngine() === engine) starting = null;
  });
  install(engine);
}

/**
 * The WGSL directive that lets a shader use subgroups: some compilers need it, some do not know
 * it. Null if subgroups do not compile either way.
 */
async function subgroupDirective(made: GPUDevice): Promise<string | null> {
  for (const directive of ["enable subgroups;\n", ""]) {
    made.pushErrorScope("validation");
    made.createShaderModule({
      code: directive + "@compute @workgroup_size(1) fn main() { _ = subgroupBroadcast(1.0, 0u); }",
    });
    if (await made.popErrorScope() === null) return directive;
  }
  return null;
}
