/**
 * What the current engine holds on the GPU, and what for.
 *
 * @module
 */

import { currentEngine } from "./engine.ts";

/**
 * What buffers are for: a model's frozen weights, its adapters' weights, the gradients of
 * parameters, the optimizer's state, the tensors that tapes save for a backward pass, and all the
 * rest.
 */
export const MEMORY_CATEGORIES = [
  "frozenWeights",
  "adapterWeights",
  "gradients",
  "optimizerState",
  "savedActivations",
  "workspace",
] as const;
/** One of {@linkcode MEMORY_CATEGORIES}. */
export type MemoryCategory = typeof MEMORY_CATEGORIES[number];
/** Bytes of each category. */
export type BytesByCategory = Readonly<Record<MemoryCategory, number>>;

/** What the engine holds on the GPU, in bytes and buffers. */
export interface Memory {
  /** Bytes of the buffers that tensors hold now. */
  readonly liveBytes: number;
  /** How many buffers tensors hold now. */
  readonly liveBuffers: number;
  /** The largest `liveBytes` since the start, or since {@linkcode resetPeak}. */
  readonly peakBytes: number;
  /** `liveBytes` by category. */
  readonly byCategory: BytesByCategory;
  /** The live bytes by category when the peak was reached. */
  readonly peakByCategory: BytesByCategory;
  /** Bytes of the buffers that wait in the pool to be used again. */
  readonly pooledBytes: number;
  /**
   * The largest sum of live and pooled bytes since the start, or since {@linkcode resetPeak}: what
   * the GPU had to provide.
   */
  readonly peakHeldBytes: number;
}

/** Live, peak and pooled bytes. */
export function memory(): Memory {
  return currentEngine().pool.figures;
}

/** Starts a new measurement of the peaks, from the bytes that are held now. */
export function resetPeak(): void {
  currentEngine().pool.resetPeak();
}

/** Runs `body`; the buffers acquired in it are of `category`. */
export function inCategory<T>(category: MemoryCategory, body: () => T): T {
  return currentEngine().pool.inCategory(category, body);
}

/**
 * Limits live and pooled buffers together to `bytes`. Before a new buffer would exceed the limit,
 * the pooled ones are given back to the GPU, which costs a submit. Live buffers alone may exceed
 * it.
 *
 * @throws {RangeError} If `bytes` is no number from 0 on.
 */
export function limitMemory(bytes: number): void {
  if (!(bytes >= 0)) {
    throw new RangeError(`Cannot limit memory to ${bytes} bytes: give a number from 0 on`);
  }
  currentEngine().pool.limit = bytes;
}
