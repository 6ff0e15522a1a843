/**
 * GPU buffers: made once, kept on shelves by size, counted.
 *
 * @module
 */

import { gpu, guarded, onStart, OutOfMemoryError } from "./device.ts";

/** What the engine holds on the GPU, in bytes and buffers. */
export interface Memory {
  /** Bytes of the buffers that tensors own now. */
  readonly liveBytes: number;
  /** How many buffers tensors own now. */
  readonly liveBuffers: number;
  /** The largest `liveBytes` since the start, or since {@linkcode resetPeak}. */
  readonly peakBytes: number;
  /** Bytes of the buffers that wait on shelves to be used again. */
  readonly shelvedBytes: number;
}

const counters = { liveBytes: 0, liveBuffers: 0, peakBytes: 0, shelvedBytes: 0 };
let shelves = new Map<number, GPUBuffer[]>();
let highWater = 0;

/** The buffers that may be used again: not those that the GPU had no room for, nor those of a device that is lost. */
let sound = new WeakSet<GPUBuffer>();
onStart(() => {
  sound = new WeakSet();
  shelves = new Map();
  counters.shelvedBytes = 0;
});

/** Held beyond a quarter more than what was ever needed at once, buffers are given back. */
const SLACK_BYTES = 256 * 2 ** 20;

/** Live, peak and shelved bytes. */
export function memory(): Memory {
  return { ...counters };
}

/** Starts a new measurement of the peak, from what is live now. */
export function resetPeak(): void {
  counters.peakBytes = counters.liveBytes;
}

/** Rounds up to one of eight sizes between two powers of two, so that tensors of nearly one size share a shelf. */
function sizeClass(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(bytes, 1))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

/**
 * A buffer of at least `bytes`, its content undefined.
 *
 * @throws {RangeError} If the adapter allows no buffer of that size.
 */
export function acquire(bytes: number): GPUBuffer {
  const device = gpu();
  const { maxBufferSize } = device.limits;
  if (bytes > maxBufferSize) {
    throw new RangeError(
      `Cannot make a tensor of ${bytes} bytes: the adapter's largest buffer is ${maxBufferSize} bytes`,
    );
  }
  const size = Math.min(sizeClass(bytes), Math.floor(maxBufferSize / 4) * 4);
  let buffer = shelves.get(size)?.pop();
  if (buffer) counters.shelvedBytes -= size;
  else {
    const made = buffer = guarded("out-of-memory", () =>
      device.createBuffer({
        size,
        usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      }), (message) => {
      sound.delete(made);
      return new OutOfMemoryError(
        `Cannot make a buffer of ${size} bytes with ${counters.liveBytes} live and ${counters.shelvedBytes} shelved: ` +
          `the GPU is out of memory, use a smaller batch or a smaller model (${message})`,
      );
    });
    sound.add(buffer);
  }
  counters.liveBytes += size;
  counters.liveBuffers++;
  counters.peakBytes = Math.max(counters.peakBytes, counters.liveBytes);
  highWater = Math.max(highWater, counters.liveBytes);
  return buffer;
}

/** Puts a buffer back on its shelf. Work recorded earlier still reads it first: work runs in the order of recording. */
export function recycle(buffer: GPUBuffer): void {
  counters.liveBytes -= buffer.size;
  counters.liveBuffers--;
  if (!sound.has(buffer)) return;
  counters.shelvedBytes += buffer.size;
  const shelf = shelves.get(buffer.size);
  if (shelf) shelf.push(buffer);
  else shelves.set(buffer.size, [buffer]);
}

/** Whether the shelves hold more than reuse explains. */
export function overstocked(): boolean {
  return counters.liveBytes + counters.shelvedBytes > highWater * 1.25 + SLACK_BYTES;
}

/** Destroys the shelved buffers. Only for queue.ts: nothing recorded may still use them. */
export function clearShelves(): void {
  for (const shelf of shelves.values()) for (const buffer of shelf) buffer.destroy();
  shelves = new Map();
  counters.shelvedBytes = 0;
}
