/**
 * A GPU device, and how it reports errors.
 *
 * @module
 */

import { DeviceLostError } from "./errors.ts";

/** Milliseconds to wait, after the GPU refused something, for the news that the device is lost. */
const LOSS_MS = 200;

/** A GPU device, what is known of it, and the errors that it reports. */
export class Device {
  /** What it says of itself, in words: `"llvmpipe (LLVM 15.0.6, 256 bits)"`. */
  readonly name: string;
  /** Whether it computes on the CPU, for which kernels are tiled differently. */
  readonly isSoftware: boolean;
  /** Invocations of a subgroup, or 0 where kernels cannot rely on their number. */
  readonly lanes: number;
  /** The WGSL directive that a shader with subgroups begins with; empty if it needs none. */
  readonly subgroupPrelude: string;
  readonly #gpu: GPUDevice;
  readonly #checks: Promise<Error | null>[] = [];
  #failure: Error | null = null;
  #lost: DeviceLostError | null = null;

  /**
   * Listens for errors that no error scope catches, and for the loss of `gpu`. A `prelude` of null
   * means that shaders use no subgroups.
   */
  constructor(gpu: GPUDevice, info: Partial<GPUAdapterInfo>, prelude: string | null) {
    const { description, vendor = "", architecture = "" } = info;
    this.name = description || `${vendor} ${architecture}`.trim() || "unnamed GPU";
    this.isSoftware = info.isFallbackAdapter ?? false;
    this.lanes = prelude === null ? 0 : info.subgroupMinSize ?? 0;
    this.subgroupPrelude = prelude ?? "";
    this.#gpu = gpu;
    gpu.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      const { error } = event as GPUUncapturedErrorEvent;
      // The first one counts: the rest follow from it.
      this.#failure ??= new Error(`Cannot go on, the GPU reported: ${error.message}`);
    });
    gpu.lost.then(({ reason, message }) => {
      this.#lost = new DeviceLostError(
        `Cannot go on, the GPU device is lost (${reason}): ${message || "no reason was given"}, ` +
          "init() starts another one",
      );
    });
  }

  /**
   * The device itself.
   *
   * @throws {DeviceLostError} If it is lost.
   */
  get gpu(): GPUDevice {
    if (this.#lost) throw this.#lost;
    return this.#gpu;
  }

  /** Destroys the device, and all that is on it. */
  destroy(): void {
    this.#gpu.destroy();
  }

  /**
   * Runs `body` inside an error scope. If the GPU reports an error there, `explain` turns the
   * message into the error that the next readback throws.
   */
  guarded<T>(
    filter: GPUErrorFilter,
    body: () => T,
    explain: (message: string) => Error | Promise<Error>,
  ): T {
    this.gpu.pushErrorScope(filter);
    try {
      return body();
    } finally {
      // Popped even when `body` throws: a scope left open would swallow every later error.
      const popped = this.gpu.popErrorScope();
      this.#checks.push(
        popped.then((error) => error ? explain(error.message) : null)
          // A device that is lost reports nothing more; the readback finds out why.
          .catch(() => null),
      );
    }
  }

  /** Waits for the pending error scopes, and throws the first error that they found, once. */
  async settle(): Promise<void> {
    const found = await Promise.all(this.#checks.splice(0));
    const error = found.find((error) => error !== null) ?? this.#failure;
    this.#failure = null;
    if (error) throw error;
  }

  /**
   * The error to throw when the GPU refused to answer: the loss of the device if that is the cause,
   * else `error` itself.
   */
  async refusal(error: unknown): Promise<unknown> {
    let timer: ReturnType<typeof setTimeout>;
    // The news of a loss may come after the failures that the loss causes.
    await Promise.race([
      this.#gpu.lost,
      new Promise((resolve) => timer = setTimeout(resolve, LOSS_MS)),
    ]).finally(() => clearTimeout(timer));
    return this.#lost ?? error;
  }
}
