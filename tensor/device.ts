/**
 * The one GPU device: how it is found, how it fails.
 *
 * @module
 */

import { nullDevice } from "./null_device.ts";

/** No WebGPU adapter was found. */
export class NoAdapterError extends Error {
  /** `"NoAdapterError"`. */
  override name = "NoAdapterError";
}

/** The GPU refused a kernel, or a run of it; `kernel` names it, `line` is the line of its WGSL where one is known. */
export class KernelError extends Error {
  /** `"KernelError"`. */
  override name = "KernelError";
  /** The kernel's name. */
  readonly kernel: string;
  /** Line of the WGSL, from 1. */
  readonly line?: number;

  /** Makes the error of one kernel. */
  constructor(message: string, kernel: string, line?: number) {
    super(message);
    this.kernel = kernel;
    this.line = line;
  }
}

/** The GPU device is gone: its driver was reset, or it was destroyed. */
export class DeviceLostError extends Error {
  /** `"DeviceLostError"`. */
  override name = "DeviceLostError";
}

/** The GPU has no room for a buffer. */
export class OutOfMemoryError extends Error {
  /** `"OutOfMemoryError"`. */
  override name = "OutOfMemoryError";
}

let starting: Promise<void> | null = null;
let device: GPUDevice | null = null;
let information: GPUAdapterInfo | null = null;
let enableSubgroups: string | null = null;
let lost: DeviceLostError | null = null;
let failure: Error | null = null;
const checks: Promise<Error | null>[] = [];
const resets: (() => void)[] = [];
const trials: (() => Promise<void>)[] = [];

/** Limits that kernels and buffers run into. A device that is not asked for more offers WebGPU's defaults only. */
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

/** The largest buffer of a dry run, unless it is told another one: what GPUs of the day allow. */
const DRY_BYTES = 2 ** 32 - 4;

/** Storage buffers of a kernel in a dry run, unless it is told otherwise: more than any kernel binds. */
const DRY_BUFFERS = 32;

/** How long after a refusal the news of a lost device is waited for. */
const LOSS_MS = 200;

/** Storage buffers of a kernel that every adapter can bind: WebGPU's default limit. */
export const MAX_BINDINGS = 8;

/**
 * Finds the GPU and makes it ready. Call it once, before anything else; later calls wait for the first. After a loss of
 * the device another call finds another one; tensors of the lost one stay unusable, and may still be released.
 *
 * @throws {NoAdapterError} If there is no WebGPU, or no adapter.
 */
export function init(): Promise<void> {
  return starting ??= start().catch((error) => {
    starting = null;
    throw error;
  });
}

/** What a dry run takes an adapter to be; by default one without tight limits that is no software. */
export interface DryAdapter {
  /** The largest buffer, in bytes. */
  readonly maxBufferSize?: number;
  /** The largest part of a buffer that a kernel can bind, in bytes. */
  readonly maxStorageBufferBindingSize?: number;
  /** Whether it computes on the CPU, so that the kernels of such adapters run. */
  readonly software?: boolean;
  /** Storage buffers that a kernel can bind. */
  readonly maxStorageBuffersPerShaderStage?: number;
  /** Bytes that a workgroup can share. */
  readonly maxComputeWorkgroupStorageSize?: number;
  /** Invocations of a subgroup, or 0 where kernels cannot rely on their number. */
  readonly lanes?: number;
}

/**
 * Makes a device ready that allocates nothing and computes nothing, and needs no GPU: the same code runs on it, and
 * `memory()`, `counters` and `measure()` tell exactly what it would have cost. All data read back is 0. Tensors of
 * another device become unusable; `init()` brings a real one again.
 */
export function initDry(adapter: DryAdapter = {}): void {
  const limits = {
    maxBufferSize: DRY_BYTES,
    maxStorageBufferBindingSize: DRY_BYTES,
    maxComputeWorkgroupStorageSize: 2 ** 15,
    maxStorageBuffersPerShaderStage: DRY_BUFFERS,
    ...adapter,
  };
  const { software = false, lanes = 0 } = adapter;
  adopt(nullDevice(limits), {
    description: "dry run",
    isFallbackAdapter: software,
    subgroupMinSize: lanes,
    subgroupMaxSize: lanes,
  } as GPUAdapterInfo, lanes > 0 ? "" : null);
  starting = null;
}

/**
 * Gives what {@linkcode initDry} needs to take the real adapter's place; with `anySize` no tensor is too large for that.
 */
export function dryTwin({ anySize = false } = {}): Required<DryAdapter> {
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

function adopt(made: GPUDevice, info: GPUAdapterInfo, subgroups: string | null): void {
  // What is left on the one before cannot be used any more: its memory goes back now, not when it is collected.
  device?.destroy();
  device = made;
  information = info;
  enableSubgroups = subgroups;
  lost = failure = null;
  checks.length = 0;
  for (const reset of resets) reset();
}

async function findAdapter(): Promise<GPUAdapter> {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter({
    powerPreference: "high-performance",
  });
  if (adapter) return adapter;
  throw new NoAdapterError(
    "Cannot find a WebGPU adapter: install a Vulkan driver (on Debian and Ubuntu the software driver is " +
      "`apt-get install mesa-vulkan-drivers libvulkan1`), or use a browser with WebGPU",
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
    // Deno grants the feature without listing it; who does not is asked again, and another adapter, for some serve once.
    made = await request(adapter, "subgroups").catch(() => null);
  }
  const directive = made && await subgroupDirective(made);
  made ??= await request(await findAdapter());
  watch(made);
  adopt(made, adapter.info, directive);
  await Promise.all(trials.map((trial) => trial()));
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

/** Listens to what a device says by itself. */
function watch(made: GPUDevice): void {
  made.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    const { error } = event as GPUUncapturedErrorEvent;
    // The first one counts: the others follow from it.
    if (device === made) {
      failure ??= new Error(`Cannot go on, the GPU reported: ${error.message}`);
    }
  });
  made.lost.then(({ reason, message }) => {
    if (device !== made) return;
    lost = new DeviceLostError(
      `Cannot go on, the GPU device is lost (${reason}): ${message || "no reason was given"}, ` +
        "init() starts another one",
    );
    starting = null;
  });
}

/** Runs `reset` whenever a device is made, to forget what belonged to the one before. */
export function onStart(reset: () => void): void {
  resets.push(reset);
}

/** Runs `trial` before a real device is ready, to find out what can be done with it. */
export function onTrial(trial: () => Promise<void>): void {
  trials.push(trial);
}

/**
 * Gives the GPU back, at the end of a process: a device that is left to the process's own end is torn down beside the
 * driver's threads, where Mesa's software driver now and then frees something twice.
 */
export function shutDown(): void {
  device?.destroy();
}

/**
 * The device, for those who record work on it.
 *
 * @throws {Error} If init() was not awaited.
 * @throws {DeviceLostError} If the device is lost.
 */
export function gpu(): GPUDevice {
  if (!device) throw new Error("Cannot use the GPU before init(): await init() once at start-up");
  if (lost) throw lost;
  return device;
}

/** What the adapter says of itself, in words: `"llvmpipe (LLVM 15.0.6, 256 bits)"`. */
export function adapterName(): string {
  gpu();
  const { description, vendor, architecture } = information!;
  return description || `${vendor} ${architecture}`.trim() || "unnamed adapter";
}

/** Whether the adapter computes on the CPU: its kernels then want other shapes. */
export function isSoftware(): boolean {
  gpu();
  return information!.isFallbackAdapter;
}

/** Invocations of a subgroup where kernels may rely on it: on a software adapter whose subgroups are all of one size. */
export function lanes(): number {
  gpu();
  return enableSubgroups === null ? 0 : information!.subgroupMinSize;
}

/** What a shader that uses subgroups begins with. */
export function subgroupPrelude(): string {
  return enableSubgroups ?? "";
}

/**
 * Runs `body` inside an error scope. What the GPU reports of it becomes, through `explain`, an error that the next
 * readback throws.
 */
export function guarded<T>(
  filter: GPUErrorFilter,
  body: () => T,
  explain: (message: string) => Error | Promise<Error>,
): T {
  gpu().pushErrorScope(filter);
  try {
    return body();
  } finally {
    // Popped even when `body` throws: a scope left open would swallow every later error.
    const popped = gpu().popErrorScope();
    checks.push(
      popped.then((error) => error ? explain(error.message) : null)
        // A device that is lost reports nothing more; the readback finds out why.
        .catch(() => null),
    );
  }
}

/** Waits for the checks under way and throws what was found first, once. */
export async function settle(): Promise<void> {
  const found = await Promise.all(checks.splice(0));
  const error = found.find((error) => error !== null) ?? failure;
  failure = null;
  if (error) throw error;
}

/** Why the GPU refused to answer: the loss of the device where that is why, else `error` itself. */
export async function refusal(error: unknown): Promise<unknown> {
  let timer: ReturnType<typeof setTimeout>;
  // The news of a loss may come after what it made fail.
  await Promise.race([
    device!.lost,
    new Promise((resolve) => timer = setTimeout(resolve, LOSS_MS)),
  ]).finally(() => clearTimeout(timer));
  return lost ?? error;
}
