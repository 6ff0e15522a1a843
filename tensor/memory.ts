/**
 * GPU buffers: made once, kept on shelves by size, counted.
 *
 * @module
 */

import { gpu, guarded, onStart, OutOfMemoryError } from "./device.ts";

/**
 * What a buffer is for: frozen weights of a model, matrices of its adapters, gradients of what trains, the optimizer's
 * moments, what the tape keeps for the backward pass, and all the rest.
 */
export const OWNERS = [
  "frozenWeights",
  "adapterWeights",
  "gradients",
  "optimizerState",
  "savedActivations",
  "workspace",
] as const;
/** One of {@linkcode OWNERS}. */
export type Owner = typeof OWNERS[number];
/** Bytes of each owner. */
export type BytesByOwner = Readonly<Record<Owner, number>>;

/** What the engine holds on the GPU, in bytes and buffers. */
export interface Memory {
  /** Bytes of the buffers that tensors own now. */
  readonly liveBytes: number;
  /** How many buffers tensors own now. */
  readonly liveBuffers: number;
  /** The largest `liveBytes` since the start, or since {@linkcode resetPeak}. */
  readonly peakBytes: number;
  /** `liveBytes` by what they are for. */
  readonly byOwner: BytesByOwner;
  /** What the peak was made of, when it was reached. */
  readonly peakByOwner: BytesByOwner;
  /** Bytes of the buffers that wait on shelves to be used again. */
  readonly shelvedBytes: number;
  /** The largest sum of live and shelved bytes, what the GPU had to have, since the start or {@linkcode resetPeak}. */
  readonly peakHeldBytes: number;
}

const none = () => Object.fromEntries(OWNERS.map((owner) => [owner, 0])) as Record<Owner, number>;

const counters = {
  liveBytes: 0,
  liveBuffers: 0,
  peakBytes: 0,
  byOwner: none(),
  peakByOwner: none(),
  shelvedBytes: 0,
  peakHeldBytes: 0,
};
const ownerOf = new WeakMap<GPUBuffer, Owner>();
let owner: Owner = "workspace";
let limit = Infinity;
let relieve = () => {};
/** By size; of each size the buffer that was made first is the last, and taken first. */
let shelves = new Map<number, GPUBuffer[]>();
let highWater = 0;

let nextNumber = 0;
const numbers = new WeakMap<GPUBuffer, number>();

/** The number of a buffer: those made later have greater ones. */
export function numberOf(buffer: GPUBuffer): number {
  let number = numbers.get(buffer);
  if (number === undefined) numbers.set(buffer, number = nextNumber++);
  return number;
}

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
  return {
    ...counters,
    byOwner: { ...counters.byOwner },
    peakByOwner: { ...counters.peakByOwner },
  };
}

/** Starts a new measurement of the peaks, from what is there now. */
export function resetPeak(): void {
  counters.peakBytes = counters.liveBytes;
  counters.peakByOwner = { ...counters.byOwner };
  counters.peakHeldBytes = counters.liveBytes + counters.shelvedBytes;
}

/** Runs `body` and tells the peak that it reached, from what was live before; other peaks go on as if nobody had asked. */
export function peakDuring<T>(
  body: () => T,
): { value: T; peakBytes: number; peakByOwner: BytesByOwner } {
  const { peakBytes: before, peakByOwner: ownersBefore } = counters;
  counters.peakBytes = counters.liveBytes;
  counters.peakByOwner = { ...counters.byOwner };
  try {
    const value = body();
    return { value, peakBytes: counters.peakBytes, peakByOwner: counters.peakByOwner };
  } finally {
    if (counters.peakBytes < before) {
      counters.peakBytes = before;
      counters.peakByOwner = ownersBefore;
    }
  }
}

/** Runs `body`, whose new buffers are `whose`. */
export function owned<T>(whose: Owner, body: () => T): T {
  const before = owner;
  owner = whose;
  try {
    return body();
  } finally {
    owner = before;
  }
}

/** Moves a live buffer from one owner to another, and tells whether it was `from`'s: else it stays where it is. */
export function reassign(buffer: GPUBuffer, from: Owner, to: Owner): boolean {
  if (ownerOf.get(buffer) !== from) return false;
  ownerOf.set(buffer, to);
  counters.byOwner[from] -= buffer.size;
  counters.byOwner[to] += buffer.size;
  return true;
}

/**
 * Live and shelved bytes stay below `bytes` together, if the live ones alone do: before more would be held the shelves
 * are given back, which costs a submit.
 *
 * @throws {RangeError} If it is no number from 0 on.
 */
export function limitMemory(bytes: number): void {
  if (!(bytes >= 0)) {
    throw new RangeError(`Cannot limit memory to ${bytes} bytes: give a number from 0 on`);
  }
  limit = bytes;
}

/** How queue.ts gives the shelves back. */
export function onLimit(relief: () => void): void {
  relieve = relief;
}

/** Rounds up to one of eight sizes between two powers of two, so that tensors of nearly one size share a shelf. */
export function sizeClass(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(Math.max(bytes, 1))) - 3));
  return Math.max(256, Math.ceil(bytes / step) * step);
}

/**
 * A buffer of at least `bytes`, its content undefined; `exact` for one that is not soon used for something else.
 *
 * @throws {RangeError} If the adapter allows no buffer of that size.
 */
export function acquire(bytes: number, exact = false): GPUBuffer {
  const device = gpu();
  const { maxBufferSize } = device.limits;
  if (bytes > maxBufferSize) {
    throw new RangeError(
      `Cannot make a tensor of ${bytes} bytes: the adapter's largest buffer is ${maxBufferSize} bytes`,
    );
  }
  const wanted = exact ? Math.max(256, Math.ceil(bytes / 16) * 16) : sizeClass(bytes);
  const size = Math.min(wanted, Math.floor(maxBufferSize / 4) * 4);
  let buffer = shelves.get(size)?.pop();
  if (buffer) counters.shelvedBytes -= size;
  else {
    const held = counters.liveBytes + counters.shelvedBytes;
    if (held + size > limit && counters.shelvedBytes > 0) relieve();
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
    numberOf(buffer);
  }
  ownerOf.set(buffer, owner);
  counters.byOwner[owner] += size;
  counters.liveBytes += size;
  counters.liveBuffers++;
  if (counters.liveBytes > counters.peakBytes) {
    counters.peakBytes = counters.liveBytes;
    counters.peakByOwner = { ...counters.byOwner };
  }
  const held = counters.liveBytes + counters.shelvedBytes;
  counters.peakHeldBytes = Math.max(counters.peakHeldBytes, held);
  highWater = Math.max(highWater, counters.liveBytes);
  return buffer;
}

/**
 * Puts a buffer back on its shelf. Work recorded earlier still reads it first: work runs in the order of recording.
 *
 * Which buffer is taken next depends on which are there, not on the order in which they came back: so that a step that
 * repeats gets the same buffers for the same tensors, and finds its bind groups.
 */
export function recycle(buffer: GPUBuffer): void {
  counters.byOwner[ownerOf.get(buffer)!] -= buffer.size;
  counters.liveBytes -= buffer.size;
  counters.liveBuffers--;
  if (!sound.has(buffer)) return;
  counters.shelvedBytes += buffer.size;
  const shelf = shelves.get(buffer.size);
  if (!shelf) return void shelves.set(buffer.size, [buffer]);
  const number = numberOf(buffer);
  let [from, to] = [0, shelf.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (numberOf(shelf[middle]) > number) from = middle + 1;
    else to = middle;
  }
  shelf.splice(from, 0, buffer);
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
