/**
 * What work costs: dispatches, FLOPs and bytes, by kernel, phase and part; and the memory that it takes.
 *
 * Counts come from the host, as the work is recorded: they do not depend on the GPU, and nothing waits for them.
 *
 * @module
 */

import { type BytesByOwner, peakDuring } from "./memory.ts";
import { counters } from "./queue.ts";

/** When work is done: the forward pass, the walk back over the tape, or the optimizer's update. */
export const PHASES = ["forward", "backward", "optimizer"] as const;
/** One of {@linkcode PHASES}. */
export type Phase = typeof PHASES[number];

/** An amount of work. */
export interface Work {
  /** How many kernels were started. */
  readonly dispatches: number;
  /** Arithmetic operations; a product of `[m, k]` and `[k, n]` counts 2mnk, other kernels say what they count. */
  readonly flops: number;
  /** Bytes that had to be read: each operand's elements once. */
  readonly bytesRead: number;
  /** Bytes that had to be written: each result's elements once. */
  readonly bytesWritten: number;
}

/** The work of one kernel in one phase and part. */
export interface WorkRow extends Work {
  /** The kernel's name. */
  readonly kernel: string;
  /** When it ran. */
  readonly phase: Phase;
  /** What {@linkcode attribute} called the code that ran it, or that it is the gradient of; `""` where nothing did. */
  readonly part: string;
}

/** What {@linkcode measure} found. */
export interface Measured<T> {
  /** What the body returned. */
  readonly value: T;
  /** The work, a row for each kernel, phase and part. */
  readonly rows: readonly WorkRow[];
  /** How often work was handed to the GPU. */
  readonly submits: number;
  /** Bytes of the tensors that tapes began to keep for a backward pass, by part; of none that something else keeps. */
  readonly savedBytes: Readonly<Record<string, number>>;
  /** The most bytes that were live at once, what was live before included. */
  readonly peakBytes: number;
  /** What the peak was made of. */
  readonly peakByOwner: BytesByOwner;
}

interface Meter {
  readonly rows: Map<string, { -readonly [K in keyof WorkRow]: WorkRow[K] }>;
  readonly savedBytes: Record<string, number>;
}

const meters: Meter[] = [];
const now: { phase: Phase; part: string } = { phase: "forward", part: "" };

/**
 * Runs `body` and tells what it cost. What it records counts when it is recorded, not when the GPU does it: a submit
 * that comes later is not among its submits.
 *
 * @throws {TypeError} If `body` returns a promise.
 */
export function measure<T>(body: () => T): Measured<T> {
  const { submits } = counters;
  const { rows, savedBytes, stop } = startMeter();
  try {
    const { value, ...peak } = peakDuring(body);
    if (value instanceof Promise) {
      throw new TypeError("Cannot measure() a promise: await outside it");
    }
    return { value, rows: rows(), submits: counters.submits - submits, savedBytes, ...peak };
  } finally {
    stop();
  }
}

/** Counts all work from now on until it is stopped. */
export function startMeter(): {
  readonly rows: () => WorkRow[];
  readonly savedBytes: Readonly<Record<string, number>>;
  readonly stop: () => void;
} {
  const meter: Meter = { rows: new Map(), savedBytes: {} };
  meters.push(meter);
  return {
    rows: () => [...meter.rows.values()],
    savedBytes: meter.savedBytes,
    stop: () => meters.splice(meters.indexOf(meter), 1),
  };
}

/** The sum of the rows that a filter lets through, all by default. */
export function total(
  rows: readonly WorkRow[],
  filter: Partial<Pick<WorkRow, "kernel" | "phase" | "part">> = {},
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

/** Runs `body`, whose work is of the given phase. */
export function during<T>(phase: Phase, body: () => T): T {
  return within({ ...now, phase }, body);
}

/** Runs `body`, whose work, and that of its gradients later on, counts as `part`. */
export function attribute<T>(part: string, body: () => T): T {
  return within({ ...now, part }, body);
}

function within<T>(place: typeof now, body: () => T): T {
  const before = { ...now };
  Object.assign(now, place);
  try {
    return body();
  } finally {
    Object.assign(now, before);
  }
}

/** What the code that runs now is attributed to. */
export function currentPart(): string {
  return now.part;
}

/** Counts a dispatch, whose work is asked for only if somebody measures; or a part of one, as none. */
export function count(
  kernel: string,
  work: () => Omit<Work, "dispatches">,
  dispatches: 0 | 1 = 1,
): void {
  if (meters.length === 0) return;
  const { flops, bytesRead, bytesWritten } = work();
  const { phase, part } = now;
  const key = [kernel, phase, part].join("\n");
  for (const { rows } of meters) {
    let row = rows.get(key);
    if (!row) {
      row = { kernel, phase, part, dispatches: 0, flops: 0, bytesRead: 0, bytesWritten: 0 };
      rows.set(key, row);
    }
    row.dispatches += dispatches;
    row.flops += flops;
    row.bytesRead += bytesRead;
    row.bytesWritten += bytesWritten;
  }
}

/** Counts bytes that a tape begins to keep. */
export function noteSaved(bytes: number): void {
  const { part } = now;
  for (const { savedBytes } of meters) savedBytes[part] = (savedBytes[part] ?? 0) + bytes;
}
