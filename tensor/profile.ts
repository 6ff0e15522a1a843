/**
 * Where the GPU's time goes, kernel by kernel.
 *
 * @module
 */

import { currentEngine } from "./engine.ts";
import type { Timer } from "./queue.ts";

/** The work and the time of one kernel. */
export interface ProfileRow {
  /** Its name. */
  readonly kernel: string;
  /** How often it ran. */
  readonly calls: number;
  /** Milliseconds of all its runs together, by the GPU's clock; null where the GPU has none. */
  readonly ms: number | null;
  /** Arithmetic operations. */
  readonly flops: number;
  /** Bytes that had to be read and written, each element once. */
  readonly bytes: number;
}

/** What {@linkcode profile} found. */
export interface Profile<T> {
  /** What the body returned. */
  readonly value: T;
  /**
   * A row for each kernel, the one that took longest first; without a clock, the one with the most
   * FLOPs first.
   */
  readonly rows: readonly ProfileRow[];
  /** Milliseconds of all kernels, by the GPU's clock; null where the GPU has none. */
  readonly gpuMs: number | null;
  /** Milliseconds from the start until all work was done. */
  readonly wallMs: number;
  /** How often recorded work was submitted to the GPU. */
  readonly submits: number;
}

/** The most timestamps of a query set, by WebGPU's limit. A dispatch needs two. */
const STAMPS = 4096;

/**
 * Runs `body`, and gives its value and each kernel's calls, work and time. Each dispatch is timed
 * in a pass by itself, so all takes longer than without profiling. Work recorded before is
 * submitted first. Times need the feature `timestamp-query`, which `init()` asks for; without it
 * there are only counts. Browsers round times to 0.1 ms.
 */
export async function profile<T>(body: () => T | Promise<T>): Promise<Profile<T>> {
  const { device: { gpu }, queue, meters } = currentEngine();
  const stopwatch = gpu.features.has("timestamp-query") ? new Stopwatch(gpu) : null;
  const meter = meters.start();
  queue.timeBy(stopwatch);
  const { submits } = queue.counts;
  const start = performance.now();
  try {
    const value = await body();
    queue.flush();
    await gpu.queue.onSubmittedWorkDone();
    const wallMs = performance.now() - start;
    const times = stopwatch && await stopwatch.times();
    const work = new Map<string, { calls: number; flops: number; bytes: number }>();
    for (const { kernel, dispatches, flops, bytesRead, bytesWritten } of meter.rows()) {
      const sum = work.get(kernel) ?? { calls: 0, flops: 0, bytes: 0 };
      sum.calls += dispatches;
      sum.flops += flops;
      sum.bytes += bytesRead + bytesWritten;
      work.set(kernel, sum);
    }
    const rows = [...work].map(([kernel, sums]) => ({
      kernel,
      ms: times?.get(kernel) ?? null,
      ...sums,
    }))
      .sort((a, b) => (b.ms ?? 0) - (a.ms ?? 0) || b.flops - a.flops);
    const gpuMs = times && [...times.values()].reduce((sum, ms) => sum + ms, 0);
    return { value, rows, gpuMs, wallMs, submits: queue.counts.submits - submits };
  } finally {
    queue.timeBy(null);
    meter.stop();
    stopwatch?.release();
  }
}

/** Collects the GPU's times of dispatches. */
class Stopwatch implements Timer {
  readonly #device: GPUDevice;
  readonly #set: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #read: { readonly kernels: readonly string[]; readonly buffer: GPUBuffer }[] = [];
  #kernels: string[] = [];

  constructor(device: GPUDevice) {
    this.#device = device;
    this.#set = device.createQuerySet({ type: "timestamp", count: STAMPS });
    this.#resolved = device.createBuffer({
      label: "timestamps",
      size: 8 * STAMPS,
      usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    });
  }

  stamps(kernel: string): GPUComputePassTimestampWrites | null {
    const at = 2 * this.#kernels.length;
    if (at === STAMPS) return null;
    this.#kernels.push(kernel);
    return { querySet: this.#set, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 };
  }

  submitting(encoder: GPUCommandEncoder): void {
    const kernels = this.#kernels;
    if (kernels.length === 0) return;
    const size = 16 * kernels.length;
    const buffer = this.#device.createBuffer({
      label: "timestamps",
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    encoder.resolveQuerySet(this.#set, 0, 2 * kernels.length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, buffer, 0, size);
    this.#read.push({ kernels, buffer });
    this.#kernels = [];
  }

  /** Milliseconds by kernel. */
  async times(): Promise<Map<string, number>> {
    const times = new Map<string, number>();
    await Promise.all(this.#read.map(({ buffer }) => buffer.mapAsync(GPUMapMode.READ)));
    for (const { kernels, buffer } of this.#read) {
      const stamps = new BigUint64Array(buffer.getMappedRange());
      for (const [i, kernel] of kernels.entries()) {
        const ms = Number(stamps[2 * i + 1] - stamps[2 * i]) / 1e6;
        times.set(kernel, (times.get(kernel) ?? 0) + ms);
      }
    }
    return times;
  }

  release(): void {
    this.#set.destroy();
    this.#resolved.destroy();
    for (const { buffer } of this.#read) buffer.destroy();
  }
}

/** A profile as a table: calls, milliseconds, GB/s, GFLOP/s, and the share of the GPU's time. */
export function profileTable(
  { rows, gpuMs, wallMs, submits }: Profile<unknown>,
  most = 30,
): string {
  const head = ["kernel", "calls", "ms", "GB/s", "GFLOP/s", "share"];
  const number = (value: number) => value >= 100 ? value.toFixed(0) : value.toPrecision(3);
  const cells = rows.slice(0, most).map(({ kernel, calls, ms, flops, bytes }) => [
    kernel.length > 72 ? `${kernel.slice(0, 71)}…` : kernel,
    String(calls),
    ms === null ? "" : number(ms),
    ms ? number(bytes / ms / 1e6) : "",
    ms ? number(flops / ms / 1e6) : "",
    ms !== null && gpuMs ? `${(100 * ms / gpuMs).toFixed(1)} %` : "",
  ]);
  const widths = head.map((text, i) => Math.max(text.length, ...cells.map((row) => row[i].length)));
  const line = (row: readonly string[]) =>
    row.map((text, i) => i === 0 ? text.padEnd(widths[0]) : text.padStart(widths[i] + 2)).join("");
  const rest = rows.length - cells.length;
  const calls = rows.reduce((sum, row) => sum + row.calls, 0);
  return [
    line(head),
    ...cells.map(line),
    ...(rest > 0 ? [`and ${rest} more`] : []),
    `${calls} dispatches in ${submits} submits, ${number(wallMs)} ms` +
    (gpuMs === null ? "; the GPU has no timestamps" : `, of them ${number(gpuMs)} ms in kernels`),
  ].join("\n");
}
