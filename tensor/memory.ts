/**
 * What the current engine holds on the GPU, and what for.
 *
 * @module
 */

import { currentEngine } from "./engine.ts";

/**
 * What a buffer is for: frozen weights of a model, matrices of its adapters, gradients of what
 * trains, the optimizer's moments, what the tape keeps for the backward pass, and all the rest.
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
  /** `liveBytes` by what they are for. */
  readonly byCategory: BytesByCategory;
  /** What the peak was made of, when it was reached. */
  readonly peakByCategory: BytesByCategory;
  /** Bytes of the buffers that wait in the pool to be used again. */
  readonly pooledBytes: number;
  /**
   * The largest sum of live and pooled bytes, what the GPU had to have, since the start or
   * {@linkcode resetPeak}.
   */
  readonly peakHeldBytes: number;
}

/** Live, peak and pooled bytes. */
export function memory(): Memory {
  return currentEngine().pool.figures;
}

/** Starts a new measurement of the peaks, from what is there now. */
export function resetPeak(): void {
  currentEngine().pool.resetPeak();
}

/** Runs `body`, whose new buffers are of `category`. */
export function inCategory<T>(category: MemoryCategory, body: () => T): T {
  return currentEngine().pool.inCategory(category, body);
}

/**
 * Live and pooled bytes stay below `bytes` together, if the live ones alone do: before more would
 * be held the pooled ones are given back, which costs a submit.
 *
 * @throws {RangeError} If it is no number from 0 on.
 */
export function limitMemory(bytes: number): void {
  if (!(bytes >= 0)) {
    throw new RangeError(`Cannot limit memory to ${bytes} bytes: give a number from 0 on`);
  }
  currentEngine().pool.limit = bytes;
}
