/**
 * All that changes while tensors are computed belongs to an engine, and one engine is the current
 * one: what is called without saying where, runs there.
 *
 * @module
 */

import type { BufferPool } from "./buffer_pool.ts";
import type { Device } from "./gpu_device.ts";
import type { Meters } from "./measure.ts";
import type { Queue } from "./queue.ts";
import type { Tensor } from "./tensor.ts";

/** A device, and all state of those who work with it. It lasts as long as its device. */
export class Engine {
  /** Where kernels run. */
  readonly device: Device;
  /** Its buffers, and the count of their bytes. */
  readonly pool: BufferPool;
  /** What is recorded for the device. */
  readonly queue: Queue;
  /** What counts the work. */
  readonly meters: Meters;
  /** The open scopes, the innermost last. */
  readonly scopes: Set<Tensor>[] = [];
  readonly #states = new Map<unknown, unknown>();

  /** An engine of the given members. `init()` and `initDry()` make such. */
  constructor(device: Device, pool: BufferPool, queue: Queue, meters: Meters) {
    this.device = device;
    this.pool = pool;
    this.queue = queue;
    this.meters = meters;
  }

  /** The state that `key` stands for, made at the first call. */
  state<T>(key: unknown, make: () => T): T {
    let state = this.#states.get(key);
    if (state === undefined) this.#states.set(key, state = make());
    return state as T;
  }
}

let current: Engine | null = null;

/**
 * The current engine.
 *
 * @throws {Error} If init() was not awaited.
 */
export function currentEngine(): Engine {
  if (!current) throw new Error("Cannot use the GPU before init(): await init() once at start-up");
  return current;
}

/** Whether there is a current engine. */
export function hasEngine(): boolean {
  return current !== null;
}

/** Makes another engine the current one, and gives the one before it. */
export function switchEngine(to: Engine | null): Engine | null {
  const before = current;
  current = to;
  return before;
}

/**
 * Runs `body` with `engine` as the current one; the one before is current again afterwards.
 *
 * @throws {TypeError} If `body` returns a promise: what it does later would run on another engine.
 */
export function withEngine<T>(engine: Engine, body: () => T): T {
  const before = switchEngine(engine);
  try {
    const value = body();
    if (value instanceof Promise) {
      throw new TypeError("Cannot run a promise on another engine: await outside it");
    }
    return value;
  } finally {
    switchEngine(before);
  }
}

/** Gives what the current engine has of a state, which is made when it is first asked for. */
export function perEngine<T>(make: () => T): () => T {
  const key = {};
  return () => currentEngine().state(key, make);
}
