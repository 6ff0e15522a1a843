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

/**
 * Spare bytes that may be held: the pool is overstocked once live and pooled bytes together exceed
 * 1.25 times the most bytes that were ever live, plus this.
 */
const SLACK_BYTES = 256 * 2 ** 20;

/**
 * `bytes` rounded up to one of eight sizes between two powers of two, and to 256 at least: tensors
 * of nearly the same size can then reuse one buffer.
 */
export function sizeClass(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(bytes, 1))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

/**
 * The buffers of one device. Those that tensors hold are live; all other buffers are pooled, to be
 * reused.
 */
export class BufferPool {
  /** The category of the buffers acquired from now on. */
  category: MemoryCategory = "workspace";
  /** A limit in bytes for live and pooled buffers together. Live buffers alone may exceed it. */
  limit = Infinity;
  /**
   * Called before a new buffer would exceed the limit: gives the pooled buffers back to the GPU.
   * The queue sets it, since it must first submit the work that uses them.
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
  /**
   * The pooled buffers by size. Those of one size lie in the order of their numbers, the oldest
   * last: it is taken first.
   */
  readonly #pooled = new Map<number, GPUBuffer[]>();
  readonly #categoryOf = new WeakMap<GPUBuffer, MemoryCategory>();
  readonly #numbers = new WeakMap<GPUBuffer, number>();
  /** The buffers that may be reused. Those that the GPU had no memory for are not among them. */
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

  /** Starts a new measurement of the peaks, from the bytes that are held now. */
  resetPeak(): void {
    const figures = this.#figures;
    figures.peakBytes = figures.liveBytes;
    figures.peakByCategory = { ...figures.byCategory };
    figures.peakHeldBytes = figures.liveBytes + figures.pooledBytes;
  }

  /**
   * Runs `body`, and gives its value and the peak of live bytes meanwhile, those live before
   * included. The peaks in {@linkcode figures} are the same as without this measurement.
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

  /** Runs `body`; the buffers acquired in it are of `category`. */
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
   * Moves a live buffer from category `from` to category `to`, and returns whether it did: a buffer
   * of another category stays there.
   */
  reassign(buffer: GPUBuffer, from: MemoryCategory, to: MemoryCategory): boolean {
    if (this.#categoryOf.get(buffer) !== from) return false;
    this.#categoryOf.set(buffer, to);
    this.#figures.byCategory[from] -= buffer.size;
    this.#figures.byCategory[to] += buffer.size;
    return true;
  }

  /** The number of a buffer. Buffers made later have greater numbers. */
  numberOf(buffer: GPUBuffer): number {
    let number = this.#numbers.get(buffer);
    if (number === undefined) this.#numbers.set(buffer, number = this.#nextNumber++);
    return number;
  }

  /**
   * A buffer of at least `bytes`, whose content is undefined. With `exact` it is hardly larger than
   * that, but less likely to be reused.
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
   * Takes a buffer back; it may be reused at once. Work runs in the order in which it was recorded,
   * so earlier work still reads the old content.
   *
   * The buffers of one size are sorted by number. Which one is taken next then depends only on
   * which ones are pooled, not on the order in which they came back: a step that repeats gets the
   * same buffers for the same tensors, and finds its bind groups.
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

  /** Whether the pool holds more than reuse needs. */
  get overstocked(): boolean {
    const { liveBytes, pooledBytes } = this.#figures;
    return liveBytes + pooledBytes > this.#highWater * 1.25 + SLACK_BYTES;
  }

  /** Destroys the pooled buffers. Only the queue calls it: no recorded work may still use them. */
  clear(): void {
    for (const buffers of this.#pooled.values()) for (const buffer of buffers) buffer.destroy();
    this.#pooled.clear();
    this.#figures.pooledBytes = 0;
  }
}
