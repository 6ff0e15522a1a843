/**
 * What work costs: dispatches, FLOPs and bytes, by kernel, phase and label; and the memory that it
 * takes.
 *
 * Counts come from the host, as the work is recorded: they do not depend on the GPU, and nothing
 * waits for them.
 *
 * @module
 */

import { currentEngine } from "./engine.ts";
import type { BytesByCategory } from "./memory.ts";

/** When work is done: the forward pass, the walk back over the tape, or the optimizer's update. */
export const PHASES = ["forward", "backward", "optimizer"] as const;
/** One of {@linkcode PHASES}. */
export type Phase = typeof PHASES[number];

/** An amount of work. */
export interface Work {
  /** How many kernels were dispatched. */
  readonly dispatches: number;
  /**
   * Arithmetic operations; a product of `[m, k]` and `[k, n]` counts 2mnk, other kernels say what
   * they count.
   */
  readonly flops: number;
  /** Bytes that had to be read: each operand's elements once. */
  readonly bytesRead: number;
  /** Bytes that had to be written: each result's elements once. */
  readonly bytesWritten: number;
}

/** The work of one kernel in one phase, under one label. */
export interface WorkRow extends Work {
  /** The kernel's name. */
  readonly kernel: string;
  /** When it ran. */
  readonly phase: Phase;
  /**
   * The label that {@linkcode attribute} gave to the code that ran the kernel, or to the code whose
   * gradient the kernel computes; `""` without a label.
   */
  readonly label: string;
}

/** What {@linkcode measure} found. */
export interface Measured<T> {
  /** What the body returned. */
  readonly value: T;
  /** The work, a row for each kernel, phase and label. */
  readonly rows: readonly WorkRow[];
  /** How often recorded work was submitted to the GPU. */
  readonly submits: number;
  /**
   * Bytes of the tensors that tapes saved for a backward pass, by label. Only buffers of the
   * category `workspace` count: a weight, say, is held anyway.
   */
  readonly savedBytes: Readonly<Record<string, number>>;
  /** The most bytes that were live at once, those live before included. */
  readonly peakBytes: number;
  /** The live bytes by category at the peak. */
  readonly peakByCategory: BytesByCategory;
}

/** What one measurement has counted so far. */
interface Meter {
  readonly rows: Map<string, { -readonly [K in keyof WorkRow]: WorkRow[K] }>;
  readonly savedBytes: Record<string, number>;
}

/** The measurements of an engine that are running, and the phase and label of its work. */
export class Meters {
  readonly #meters: Meter[] = [];
  /** The phase and the label of the code that runs now. */
  readonly now: { phase: Phase; label: string } = { phase: "forward", label: "" };

  /** Starts a measurement: it counts all work until `stop()` is called. */
  start(): {
    readonly rows: () => WorkRow[];
    readonly savedBytes: Readonly<Record<string, number>>;
    readonly stop: () => void;
  } {
    const meter: Meter = { rows: new Map(), savedBytes: {} };
    this.#meters.push(meter);
    return {
      rows: () => [...meter.rows.values()],
      savedBytes: meter.savedBytes,
      stop: () => this.#meters.splice(this.#meters.indexOf(meter), 1),
    };
  }

  /** Runs `body`; its work counts under the phase and label in `now`. One that is absent stays. */
  within<T>(now: Partial<{ phase: Phase; label: string }>, body: () => T): T {
    const before = { ...this.now };
    Object.assign(this.now, now);
    try {
      return body();
    } finally {
      Object.assign(this.now, before);
    }
  }

  /** Counts work, as the function {@linkcode count} says. */
  count(kernel: string, work: () => Omit<Work, "dispatches">, dispatches: 0 | 1): void {
    if (this.#meters.length === 0) return;
    const { flops, bytesRead, bytesWritten } = work();
    const { phase, label } = this.now;
    const key = [kernel, phase, label].join("\n");
    for (const { rows } of this.#meters) {
      let row = rows.get(key);
      if (!row) {
        row = { kernel, phase, label, dispatches: 0, flops: 0, bytesRead: 0, bytesWritten: 0 };
        rows.set(key, row);
      }
      row.dispatches += dispatches;
      row.flops += flops;
      row.bytesRead += bytesRead;
      row.bytesWritten += bytesWritten;
    }
  }

  /** Counts bytes of a tensor that a tape saves. */
  noteSaved(bytes: number): void {
    const { label } = this.now;
    for (const { savedBytes } of this.#meters) savedBytes[label] = (savedBytes[label] ?? 0) + bytes;
  }
}

/**
 * Runs `body`, and gives its value and what it cost. Work counts when it is recorded, not when the
 * GPU does it: a submit after `body` is not among its submits.
 *
 * @throws {TypeError} If `body` returns a promise.
 */
export function measure<T>(body: () => T): Measured<T> {
  const { meters, pool, queue: { counts } } = currentEngine();
  const { submits } = counts;
  const { rows, savedBytes, stop } = meters.start();
  try {
    const { value, ...peak } = pool.peakDuring(body);
    if (value instanceof Promise) {
      throw new TypeError("Cannot measure() a promise: await outside it");
    }
    return { value, rows: rows(), submits: counts.submits - submits, savedBytes, ...peak };
  } finally {
    stop();
  }
}

/** The sum of the rows that a filter lets through, all by default. */
export function total(
  rows: readonly WorkRow[],
  filter: Partial<Pick<WorkRow, "kernel" | "phase" | "label">> = {},
): Work {
  const sum = { dispatches: 0, flops: 0, bytesRead: 0, bytesWritten: 0 };
  for (const row of rows) {
    if (Object.entries(filter).some(([key, value]) => row[key as keyof WorkRow] !== value)) {
      continue;
    }
    for (const key of Object.keys(sum) as (keyof Work)[]) sum[key] += row[key];
  }
  return sum;
}

/** Runs `body`; its work counts under `phase`. */
export function during<T>(phase: Phase, body: () => T): T {
  return currentEngine().meters.within({ phase }, body);
}

/** Runs `body`; its work, and later the work of its gradients, counts under `label`. */
export function attribute<T>(label: string, body: () => T): T {
  return currentEngine().meters.within({ label }, body);
}

/** The label that work counts under now. */
export function currentLabel(): string {
  return currentEngine().meters.now.label;
}

/**
 * Counts one dispatch of a kernel. `work` is called only if a measurement is running. With
 * `dispatches` 0, only the work is added: it is a share of a dispatch that is counted elsewhere.
 */
export function count(
  kernel: string,
  work: () => Omit<Work, "dispatches">,
  dispatches: 0 | 1 = 1,
): void {
  currentEngine().meters.count(kernel, work, dispatches);
}
