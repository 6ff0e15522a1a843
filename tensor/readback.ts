/**
 * How data comes back from the GPU.
 *
 * @module
 */

import { sizeClass } from "./buffer_pool.ts";
import type { Device } from "./gpu_device.ts";
import type { Queue } from "./queue.ts";

/**
 * Deno looks every 10 ms whether a buffer is mapped. Its `onSubmittedWorkDone()` however, once
 * called, holds the thread until the GPU is done. The buffer is mapped then, although its promise
 * does not know it yet.
 */
const CAN_HOLD = globalThis.navigator?.userAgent?.startsWith("Deno/") ?? false;

/**
 * Waits up to this are held: a thread that is held hears no Ctrl-C, and 10 ms are little of a long
 * wait.
 */
const HOLD_MS = 100;

/**
 * Readbacks whose promise is still to settle: one in so many is waited for, so that events get
 * their turn.
 */
const MAX_HELD = 16;

/**
 * From so many bytes on, events get a turn before another buffer would have to be made, so that
 * those in use come back.
 */
const LARGE_BYTES = 2 ** 20;

/** Bytes of buffers that wait for the next readback. */
const MAX_POOLED_BYTES = 2 ** 26;

/**
 * The buffers that readbacks go through, pooled by size: to make one costs more than to fill it.
 */
export class Readbacks {
  readonly #device: Device;
  readonly #queue: Queue;
  readonly #pooled = new Map<number, GPUBuffer[]>();
  #pooledBytes = 0;
  /**
   * How often the buffers were given back: one that was in use then is not pooled when it comes
   * back.
   */
  #generation = 0;
  #lastWait = 0;
  #held = 0;
  /**
   * Whether what is mapped is a copy, as in Deno since 2.9.5, which need not be copied again.
   * Elsewhere it is a view that ends when the buffer is unmapped.
   */
  #copies = false;

  /** Brings back what `queue` computes. */
  constructor(device: Device, queue: Queue) {
    this.#device = device;
    this.#queue = queue;
  }

  /** Finds out, on a device that is real, whether what is mapped is a copy. */
  async tryOut(): Promise<void> {
    if (!CAN_HOLD) return;
    const buffer = this.#take(4);
    await buffer.mapAsync(GPUMapMode.READ);
    const range = buffer.getMappedRange();
    buffer.unmap();
    this.#copies = !range.detached;
    this.#putBack(buffer);
  }

  /**
   * Submits what is recorded, waits for it, and copies `bytes` bytes of `buffer` from `offset` on.
   *
   * @throws {KernelError} What the GPU refused since the last readback.
   * @throws {DeviceLostError} If the device is lost.
   */
  async read(buffer: GPUBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
    const { gpu } = this.#device;
    const hold = CAN_HOLD && this.#lastWait < HOLD_MS && this.#held < MAX_HELD;
    const born = this.#generation;
    let target: GPUBuffer | undefined;
    let range: ArrayBuffer | undefined;
    let mapped: Promise<unknown> | undefined;
    try {
      target = this.#take(bytes);
      this.#queue.copy(buffer, offset, target, bytes);
      this.#queue.flush();
      this.#queue.counts.readbacks++;
      const start = performance.now();
      let refused: unknown;
      this.#held++;
      mapped = target.mapAsync(GPUMapMode.READ, 0, bytes).catch((error) => refused = error);
      if (hold) gpu.queue.onSubmittedWorkDone();
      else await mapped;
      this.#lastWait = performance.now() - start;
      await this.#device.settle();
      if (hold && bytes >= LARGE_BYTES && !this.#pooled.get(target.size)?.length) await turn();
      if (refused) throw refused;
      range = target.getMappedRange(0, bytes);
      return this.#copies ? range : range.slice(0);
    } catch (error) {
      throw error instanceof DOMException ? await this.#device.refusal(error) : error;
    } finally {
      // What went wrong may have left it in any state.
      if (!range) target?.destroy();
      mapped?.then(() => {
        this.#held--;
        if (!target || !range) return;
        target.unmap();
        if (born === this.#generation) this.#putBack(target);
      }).catch(() => {}); // The device was lost meanwhile, and the buffer with it.
    }
  }

  /** Gives back the buffers that wait. */
  clear(): void {
    for (const buffers of this.#pooled.values()) for (const buffer of buffers) buffer.destroy();
    this.#generation++;
    this.#pooled.clear();
    this.#pooledBytes = 0;
  }

  #take(bytes: number): GPUBuffer {
    const size = sizeClass(bytes);
    const found = this.#pooled.get(size)?.pop();
    if (found) {
      this.#pooledBytes -= size;
      return found;
    }
    // To make a large one takes milliseconds, in which the GPU may be at work.
    if (bytes >= LARGE_BYTES) this.#queue.flush();
    const made = this.#device.gpu.createBuffer({
      label: "readback",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      // Deno crashes where a buffer that never was mapped is asked for its range before mapAsync()
      // has settled.
      mappedAtCreation: CAN_HOLD,
    });
    if (CAN_HOLD) made.unmap();
    return made;
  }

  #putBack(buffer: GPUBuffer): void {
    const { size } = buffer;
    if (this.#pooledBytes + size > MAX_POOLED_BYTES) return buffer.destroy();
    this.#pooledBytes += size;
    const pooled = this.#pooled.get(size);
    if (pooled) pooled.push(buffer);
    else this.#pooled.set(size, [buffer]);
  }
}

/**
 * Waits until the events that are due had their turn. Less than a timer's wait brings only those of
 * this thread.
 */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
