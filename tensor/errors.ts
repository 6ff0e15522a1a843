/**
 * Errors that callers may want to catch.
 *
 * @module
 */

/** No WebGPU adapter was found. */
export class NoAdapterError extends Error {
  /** `"NoAdapterError"`. */
  override name = "NoAdapterError";
}

/** The GPU refused a kernel, or a run of it. */
export class KernelError extends Error {
  /** `"KernelError"`. */
  override name = "KernelError";
  /** The kernel's name. */
  readonly kernel: string;
  /** Line of its WGSL, from 1, where one is known. */
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
