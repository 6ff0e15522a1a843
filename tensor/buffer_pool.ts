/**
 * GPU buffers: made once, pooled by size, counted.
 *
 * @module
 */

import { OutOfMemoryError } from "./errors.ts";
import type { Device } from "./gpu_device.ts";
import {
  type BytesByCategory,
  type Memory,
  MEMORY_CATEGORIES,
  type MemoryCategory,
} from "./memory.ts";

const none = () =>
  Object.fromEntries(MEMORY_CATEGORIES.map((category) => [category, 0])) as Record<
    MemoryCategory,
    number
  >;

/** Held beyond a quarter more than what was ever needed at once, buffers are given back. */
const SLACK_BYTES = 256 * 2 ** 20;

/**
 * Rounds up to one of eight sizes between two powers of two, so that tensors of nearly one size
 * take turns with one buffer.
 */
export function sizeClass(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(bytes, 1))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

/** The buffers of one device: those of tensors are live, the rest wait to be used again. */
export class BufferPool {
  /** What the buffers made from now on are for. */
  category: MemoryCategory = "workspace";
  /** What live and pooled bytes together stay below, if the live ones alone do. */
  limit = Infinity;
  /**
   * Gives the pooled buffers back when the limit is near. The queue knows when nothing uses them.
   */
  relieve: () => void = () => {};
  readonly #device: Device;
  readonly #figures = {
    liveBytes: 0,
    liveBuffers: 0,
    peakBytes: 0,
    byCategory: none(),
    peakByCategory: none(),
    pooledBytes: 0,
    peakHeldBytes: 0,
  };
  /** By size; of each size the buffer that was made first is the last, and taken first. */
  readonly #pooled = new Map<number, GPUBuffer[]>();
  readonly #categoryOf = new WeakMap<GPUBuffer, MemoryCategory>();
  readonly #numbers = new WeakMap<GPUBuffer, number>();
  /** The buffers that may be used again: not those that the GPU had no room for. */
  readonly #sound = new WeakSet<GPUBuffer>();
  #nextNumber = 0;
  #highWater = 0;

  /** An empty pool. */
  constructor(device: Device) {
    this.#device = device;
  }

  /** Live, peak and pooled bytes. */
  get figures(): Memory {
    const { byCategory, peakByCategory } = this.#figures;
    return {
      ...this.#figures,
      byCategory: { ...byCategory },
      peakByCategory: { ...peakByCategory },
    };
  }

  /** Starts a new measurement of the peaks, from what is there now. */
  resetPeak(): void {
    const figures = this.#figures;
    figures.peakBytes = figures.liveBytes;
    figures.peakByCategory = { ...figures.byCategory };
    figures.peakHeldBytes = figures.liveBytes + figures.pooledBytes;
  }

  /**
   * Runs `body` and tells the peak that it reached, from what was live before; other peaks go on as
   * if nobody had asked.
   */
  peakDuring<T>(body: () => T): { value: T; peakBytes: number; peakByCategory: BytesByCategory } {
    const figures = this.#figures;
    const { peakBytes: before, peakByCategory: categoriesBefore } = figures;
    figures.peakBytes = figures.liveBytes;
    figures.peakByCategory = { ...figures.byCategory };
    try {
      const value = body();
      return { value, peakBytes: figures.peakBytes, peakByCategory: figures.peakByCategory };
    } finally {
      if (figures.peakBytes < before) {
        figures.peakBytes = before;
        figures.peakByCategory = categoriesBefore;
      }
    }
  }

  /** Runs `body`, whose new buffers are of `category`. */
  inCategory<T>(category: MemoryCategory, body: () => T): T {
    const before = this.category;
    this.category = category;
    try {
      return body();
    } finally {
      this.category = before;
    }
  }

  /**
   * Moves a live buffer from one category to another, and tells whether it was in `from`: else it
   * stays where it is.
   */
  reassign(buffer: GPUBuffer, from: MemoryCategory, to: MemoryCategory): boolean {
    if (this.#categoryOf.get(buffer) !== from) return false;
    this.#categoryOf.set(buffer, to);
    this.#figures.byCategory[from] -= buffer.size;
    this.#figures.byCategory[to] += buffer.size;
    return true;
  }

  /** The number of a buffer: those made later have greater ones. */
  numberOf(buffer: GPUBuffer): number {
    let number = this.#numbers.get(buffer);
    if (number === undefined) this.#numbers.set(buffer, number = this.#nextNumber++);
    return number;
  }

  /**
   * A buffer of at least `bytes`, its content undefined; `exact` for one that is not soon used for
   * something else.
   *
   * @throws {RangeError} If the GPU allows no buffer of that size.
   */
  acquire(bytes: number, exact = false): GPUBuffer {
    const { maxBufferSize } = this.#device.gpu.limits;
    if (bytes > maxBufferSize) {
      throw new RangeError(
        `Cannot make a tensor of ${bytes} bytes: ` +
          `the GPU's largest buffer is ${maxBufferSize} bytes`,
      );
    }
    const wanted = exact ? Math.max(256, Math.ceil(bytes / 16) * 16) : sizeClass(bytes);
    const size = Math.min(wanted, Math.floor(maxBufferSize / 4) * 4);
    const figures = this.#figures;
    let buffer = this.#pooled.get(size)?.pop();
    if (buffer) figures.pooledBytes -= size;
    else {
      const held = figures.liveBytes + figures.pooledBytes;
      if (held + size > this.limit && figures.pooledBytes > 0) this.relieve();
      buffer = this.#make(size);
    }
    this.#categoryOf.set(buffer, this.category);
    figures.byCategory[this.category] += size;
    figures.liveBytes += size;
    figures.liveBuffers++;
    if (figures.liveBytes > figures.peakBytes) {
      figures.peakBytes = figures.liveBytes;
      figures.peakByCategory = { ...figures.byCategory };
    }
    const held = figures.liveBytes + figures.pooledBytes;
    figures.peakHeldBytes = Math.max(figures.peakHeldBytes, held);
    this.#highWater = Math.max(this.#highWater, figures.liveBytes);
    return buffer;
  }

  #make(size: number): GPUBuffer {
    const { gpu } = this.#device;
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const { liveBytes, pooledBytes } = this.#figures;
    const made = this.#device.guarded(
      "out-of-memory",
      () => gpu.createBuffer({ size, usage }),
      (message) => {
        this.#sound.delete(made);
        return new OutOfMemoryError(
          `Cannot make a buffer of ${size} bytes with ${liveBytes} live and ${pooledBytes} ` +
            "pooled: the GPU is out of memory, use a smaller batch or a smaller model " +
            `(${message})`,
        );
      },
    );
    this.#sound.add(made);
    this.numberOf(made);
    return made;
  }

  /**
   * Takes a buffer back. Work recorded earlier still reads it first: work runs in the order of
   * recording.
   *
   * Which buffer is taken next depends on which are there, not on the order in which they came
   * back: so that a step that repeats gets the same buffers for the same tensors, and finds its
   * bind groups.
   */
  recycle(buffer: GPUBuffer): void {
    const figures = this.#figures;
    figures.byCategory[this.#categoryOf.get(buffer)!] -= buffer.size;
    figures.liveBytes -= buffer.size;
    figures.liveBuffers--;
    if (!this.#sound.has(buffer)) return;
    figures.pooledBytes += buffer.size;
    const equals = this.#pooled.get(buffer.size);
    if (!equals) return void this.#pooled.set(buffer.size, [buffer]);
    const number = this.numberOf(buffer);
    let [from, to] = [0, equals.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (this.numberOf(equals[middle]) > number) from = middle + 1;
      else to = middle;
    }
    equals.splice(from, 0, buffer);
  }

  /** Whether the pool holds more than reuse explains. */
  get overstocked(): boolean {
    const { liveBytes, pooledBytes } = this.#figures;
    return liveBytes + pooledBytes > this.#highWater * 1.25 + SLACK_BYTES;
  }

  /** Destroys the buffers that wait. Only for the queue: nothing recorded may still use them. */
  clear(): void {
    for (const buffers of this.#pooled.values()) for (const buffer of buffers) buffer.destroy();
    this.#pooled.clear();
    this.#figures.pooledBytes = 0;
  }
}
