/**
 * The one GPU device: how it is found, how it fails.
 *
 * @module
 */

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
let failure: Error | null = null;
const checks: Promise<unknown>[] = [];

/** Limits that kernels and buffers run into. A device that is not asked for more offers WebGPU's defaults only. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupStorageSize",
] as const;

/** No kernel binds more storage buffers than this, WebGPU's default limit: more would not run everywhere. */
export const MAX_BINDINGS = 8;

/**
 * Finds the GPU and makes it ready. Call it once, before anything else; later calls wait for the first.
 *
 * @throws {NoAdapterError} If there is no WebGPU, or no adapter.
 */
export function init(): Promise<void> {
  return starting ??= start().catch((error) => {
    starting = null;
    throw error;
  });
}

async function start(): Promise<void> {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter({
    powerPreference: "high-performance",
  });
  if (!adapter) {
    throw new NoAdapterError(
      "Cannot find a WebGPU adapter: install a Vulkan driver (on Debian and Ubuntu the software driver is " +
        "`apt-get install mesa-vulkan-drivers libvulkan1`), or use a browser with WebGPU",
    );
  }
  const requiredLimits: Record<string, number> = {};
  for (const limit of LIMITS) requiredLimits[limit] = adapter.limits[limit];
  const requiredFeatures = (["timestamp-query", "shader-f16"] as const)
    .filter((feature) => adapter.features.has(feature));
  const made = await adapter.requestDevice({ requiredLimits, requiredFeatures });
  made.addEventListener("uncapturederror", (event) => {
    event.preventDefault();
    const { error } = event as GPUUncapturedErrorEvent;
    report(new Error(`Cannot go on, the GPU reported: ${error.message}`));
  });
  made.lost.then(({ reason, message }) => {
    if (device === made) {
      report(new DeviceLostError(`Cannot go on, the GPU device is lost (${reason}): ${message}`));
    }
  });
  device = made;
  information = adapter.info;
  failure = null;
}

/**
 * The device, for those who record work on it.
 *
 * @throws {Error} If init() was not awaited.
 * @throws {DeviceLostError} If the device is lost.
 */
export function gpu(): GPUDevice {
  if (!device) throw new Error("Cannot use the GPU before init(): await init() once at start-up");
  if (failure instanceof DeviceLostError) throw failure;
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

/** Remembers an error that the GPU reported late. The first one counts: the others follow from it. */
export function report(error: Error): void {
  failure ??= error;
}

/** Notes a check that is under way, so that the next readback waits for what it finds. */
export function watch(check: Promise<unknown>): void {
  checks.push(check.catch((error) => report(error)));
}

/** Runs `body` inside an error scope; what the GPU reports of it becomes, through `explain`, the pending failure. */
export function guarded<T>(
  filter: GPUErrorFilter,
  body: () => T,
  explain: (message: string) => Error,
): T {
  gpu().pushErrorScope(filter);
  try {
    return body();
  } finally {
    // Popped even when `body` throws: a scope left open would swallow every later error.
    watch(
      gpu().popErrorScope().then((error) => {
        if (error) report(explain(error.message));
      }),
    );
  }
}

/** Waits for the checks under way and throws what they found. */
export async function settle(): Promise<void> {
  await Promise.all(checks.splice(0));
  if (!failure) return;
  const error = failure;
  // A lost device stays lost; any other failure is told once.
  if (!(error instanceof DeviceLostError)) failure = null;
  throw error;
}
