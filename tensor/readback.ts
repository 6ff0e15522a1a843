/**
 * How data comes back from the GPU.
 *
 * @module
 */

import { sizeClass } from "./buffer_pool.ts";
import type { Device } from "./gpu_device.ts";
import type { Queue } from "./queue.ts";

/**
 * Whether a readback can block the thread until the GPU is done, as it can in Deno. There the
 * promise of `mapAsync()` settles late, since Deno polls it every 10 ms. But
 * `onSubmittedWorkDone()`, once called, blocks the thread until the GPU is done. The buffer is
 * mapped then, although its promise has not settled yet.
 */
const CAN_HOLD = globalThis.navigator?.userAgent?.startsWith("Deno/") ?? false;

/**
 * A readback blocks the thread only if the wait of the one before took fewer milliseconds than
 * this. A blocked thread does not react to Ctrl-C, and in a long wait 10 ms of polling count for
 * little.
 */
const HOLD_MS = 100;

/**
 * The most readbacks whose mapping promise has not settled. Once there are so many, the next one
 * awaits its promise instead of blocking, so that other events get their turn.
 */
const MAX_HELD = 16;

/**
 * Bytes from which on a readback is large. Before another large staging buffer is made, events get
 * a turn, so that those in use come back.
 */
const LARGE_BYTES = 2 ** 20;

/** The most bytes of pooled staging buffers. */
const MAX_POOLED_BYTES = 2 ** 26;

/**
 * Readbacks, through staging buffers that are pooled by size: making one costs more than filling
 * it.
 */
export class Readbacks {
  readonly #device: Device;
  readonly #queue: Queue;
  readonly #pooled = new Map<number, GPUBuffer[]>();
  #pooledBytes = 0;
  /**
   * How often `clear()` was called. A staging buffer that was in use at that time is not pooled
   * when it comes back.
   */
  #generation = 0;
  #lastWait = 0;
  #held = 0;
  /**
   * Whether a mapped range is a copy, as in Deno since 2.9.5; it then need not be copied again.
   * Elsewhere it is a view that ends when the buffer is unmapped.
   */
  #copies = false;

  /** Reads back what `queue` computes. */
  constructor(device: Device, queue: Queue) {
    this.#device = device;
    this.#queue = queue;
  }

  /** Finds out, on a real device, whether a mapped range is a copy. */
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
   * A copy of `bytes` bytes of `buffer`, from byte `offset` on. Submits the recorded work, and
   * waits for it.
   *
   * @throws {KernelError} If the GPU refused a kernel since the last readback.
   * @throws {OutOfMemoryError} If the GPU had no memory for a buffer since then.
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
      // After an error the buffer may be in any state.
      if (!range) target?.destroy();
      mapped?.then(() => {
        this.#held--;
        if (!target || !range) return;
        target.unmap();
        if (born === this.#generation) this.#putBack(target);
        else target.destroy();
      }).catch(() => {}); // The device was lost meanwhile, and the buffer with it.
    }
  }

  /** Destroys the pooled staging buffers. */
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
    // Making a large buffer takes milliseconds. The recorded work is submitted first, so that the
    // GPU works meanwhile.
    if (bytes >= LARGE_BYTES) this.#queue.flush();
    const made = this.#device.gpu.createBuffer({
      label: "readback",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      // Deno crashes if a buffer that was never mapped is asked for its range before mapAsync() has
      // settled.
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
 * Waits until the events that are due had their turn. It takes a timer: a shorter wait would run
 * only events of this thread.
 */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}
