/**
 * Engines: each owns a device and all state that changes while tensors are computed. One engine is
 * current; code that names no engine uses that one.
 *
 * @module
 */

import type { BufferPool } from "./buffer_pool.ts";
import type { Device } from "./gpu_device.ts";
import type { Meters } from "./measure.ts";
import type { Queue } from "./queue.ts";
import type { Tensor } from "./tensor.ts";

/** A device, and all state of the modules that work with it. It lasts as long as its device. */
export class Engine {
  /** Where kernels run. */
  readonly device: Device;
  /** Its buffers, and the count of their bytes. */
  readonly pool: BufferPool;
  /** The work that is recorded for the device. */
  readonly queue: Queue;
  /** The meters that count the work. */
  readonly meters: Meters;
  /** The open scopes, the innermost last. */
  readonly scopes: Set<Tensor>[] = [];
  readonly #states = new Map<unknown, unknown>();

  /** Makes an engine of its parts; `init()` and `initDry()` do so. */
  constructor(device: Device, pool: BufferPool, queue: Queue, meters: Meters) {
    this.device = device;
    this.pool = pool;
    this.queue = queue;
    this.meters = meters;
  }

  /** The state under `key`, made at the first call. */
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

/** Makes `to` the current engine, and gives the previous one. */
export function switchEngine(to: Engine | null): Engine | null {
  const before = current;
  current = to;
  return before;
}

/**
 * Runs `body` with `engine` as the current one; afterwards the previous one is current again.
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

/**
 * A function that gives the current engine's state of one kind. On each engine, `make` makes that
 * state when it is first asked for.
 */
export function perEngine<T>(make: () => T): () => T {
  const key = {};
  return () => currentEngine().state(key, make);
}
