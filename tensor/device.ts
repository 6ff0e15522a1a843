/**
 * How an engine begins: on a GPU that is found, or on none.
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
 * Limits that kernels and buffers run into: a device that is not asked for more has WebGPU's
 * defaults.
 */
const LIMITS = [
  "maxStorageBuffersPerShaderStage",
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupStorageSize",
] as const;

/** Features that are asked for where they are. */
const OPTIONAL_FEATURES = ["timestamp-query", "shader-f16"] as const;

/**
 * The largest buffer of a dry engine, unless it is told another one: what GPUs of the day allow.
 */
const DRY_BYTES = 2 ** 32 - 4;

/**
 * Storage buffers of a kernel on a dry engine, unless it is told otherwise: more than any binds.
 */
const DRY_BUFFERS = 32;

/** Storage buffers of a kernel that every GPU can bind: WebGPU's default limit. */
export const MAX_BINDINGS = 8;

/** The start of the real engine that is current, or will be. */
let starting: Promise<void> | null = null;

/**
 * Finds the GPU and makes it ready. Call it once, before anything else; later calls wait for the
 * first. After a loss of the device another call finds another one, for which all figures and
 * settings begin anew; tensors of the lost one stay unusable, and may still be released.
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
 * What a dry engine takes its GPU to be; by default one without tight limits that is no software.
 */
export interface DryGpu {
  /** The largest buffer, in bytes. */
  readonly maxBufferSize?: number;
  /** How much of a buffer a kernel can bind, in bytes. */
  readonly maxStorageBufferBindingSize?: number;
  /** Whether it computes on the CPU, so that the kernels for such GPUs run. */
  readonly software?: boolean;
  /** Storage buffers that a kernel can bind. */
  readonly maxStorageBuffersPerShaderStage?: number;
  /** Bytes that a workgroup can share. */
  readonly maxComputeWorkgroupStorageSize?: number;
  /** Invocations of a subgroup, or 0 where kernels cannot rely on their number. */
  readonly lanes?: number;
}

/**
 * Makes an engine current that allocates nothing and computes nothing, and needs no GPU: the same
 * code runs on it, and `memory()`, `counters` and `measure()` tell exactly what it would have cost.
 * All data read back is 0. The engine before it is given up; `init()` brings a real one again.
 */
export function initDry(gpu: DryGpu = {}): void {
  install(dryEngine(gpu));
  starting = null;
}

/**
 * Runs `body` on a new dry engine, made as by {@linkcode initDry}. The engine that was
 * current before is so again afterwards, and neither knows of the other.
 *
 * @throws {TypeError} If `body` returns a promise.
 */
export function onDryEngine<T>(gpu: DryGpu, body: () => T): T {
  return withEngine(dryEngine(gpu), body);
}

/**
 * What a dry engine must be told to stand for the GPU in use; with `anySize` no tensor is too large
 * for it.
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
 * Gives the GPU back, at the end of a process: a device that is left to the end of the process is
 * torn down beside the driver's threads, where Mesa's software driver now and then frees something
 * twice.
 */
export function shutDown(): void {
  if (hasEngine()) currentEngine().device.destroy();
  starting = null;
}

/**
 * The device, for those who record work on it.
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

/** Whether the GPU is software, which runs on the CPU: its kernels then want other shapes. */
export function isSoftware(): boolean {
  return usable().isSoftware;
}

/**
 * Invocations of a subgroup where kernels may rely on it: on a software GPU whose subgroups are all
 * of one size.
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
  // What is left on the one before cannot be used any more: its memory goes back now, not when it
  // is collected.
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
    // Deno grants the feature without listing it. Where it is refused a device is asked of another
    // adapter: some adapters serve only once.
    made = await request(adapter, "subgroups").catch(() => null);
  }
  const directive = made && await subgroupDirective(made);
  made ??= await request(await findAdapter());
  const engine = engineOn(new Device(made, adapter.info, directive));
  await engine.queue.readbacks.tryOut();
  made.lost.then(() => {
    if (currentEngine() === engine) starting = null;
  });
  install(engine);
}

/** WGSL that lets a shader use subgroups, which not every compiler knows; null if nothing does. */
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
