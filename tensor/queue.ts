/**
 * Records dispatches, and hands them to the GPU together.
 *
 * @module
 */

import { BindGroups, type Binding } from "./bind_groups.ts";
import type { BufferPool } from "./buffer_pool.ts";
import { currentEngine } from "./engine.ts";
import { KernelError } from "./errors.ts";
import type { Device } from "./gpu_device.ts";
import { Readbacks } from "./readback.ts";

/** Bytes of one dispatch's sizes: WebGPU's largest required alignment of a dynamic offset. */
export const SIZES_BYTES = 256;

/** Dispatches for which there is room before a submit. */
const MAX_RECORDED = 4096;

/** Dispatches after which a GPU gets to work, while the host records more. */
const HEAD_START = 128;

/** Workgroups along x, y and z. */
export type Grid = readonly [x: number, y?: number, z?: number];

/** Times dispatches one by one, each in a pass by itself. */
export interface Timer {
  /**
   * Where the GPU writes when a dispatch of a kernel begins and ends; null if a submit must make
   * room.
   */
  stamps(kernel: string): GPUComputePassTimestampWrites | null;
  /** Told before a submit, to bring the times along. */
  submitting(encoder: GPUCommandEncoder): void;
}

/** What is recorded for a device and not yet submitted, and what comes back from it. */
export class Queue {
  /** How often the GPU was given work. */
  readonly counts = { dispatches: 0, submits: 0, readbacks: 0 };
  /** Dispatches that make a submit by themselves. A software GPU would work in the host's time. */
  readonly recordedAtMost: number;
  /** What recorded dispatches bind. */
  readonly bindGroups: BindGroups;
  /** How data comes back. */
  readonly readbacks: Readbacks;
  readonly #device: Device;
  readonly #pool: BufferPool;
  #encoder: GPUCommandEncoder | null = null;
  #pass: GPUComputePassEncoder | null = null;
  #recorded = 0;
  readonly #kernels = new Set<string>();
  readonly #sizesOfRecorded = new Uint8Array(MAX_RECORDED * SIZES_BYTES);
  #uniforms: Uniforms | null = null;
  #timer: Timer | null = null;

  /** Nothing recorded; buffers come from `pool`. */
  constructor(device: Device, pool: BufferPool) {
    this.recordedAtMost = device.isSoftware ? MAX_RECORDED : HEAD_START;
    this.bindGroups = new BindGroups(device, pool);
    this.readbacks = new Readbacks(device, this);
    this.#device = device;
    this.#pool = pool;
    pool.relieve = () => this.trim();
  }

  /** The layout of bind group 1, the sizes of a dispatch. */
  get sizesLayout(): GPUBindGroupLayout {
    return this.#sizes.layout;
  }

  get #sizes(): Uniforms {
    return this.#uniforms ??= makeUniforms(this.#device.gpu);
  }

  /**
   * Records one run of `pipeline` over `bindings`, with `values` as its sizes; `explain` tells what
   * the GPU refused.
   */
  dispatch(
    pipeline: GPUComputePipeline,
    layout: GPUBindGroupLayout,
    bindings: readonly Binding[],
    values: Uint8Array,
    grid: Grid,
    explain: (message: string) => Error,
  ): void {
    const { gpu } = this.#device;
    if (this.#recorded === this.recordedAtMost) this.flush();
    if (this.bindGroups.isFull) {
      this.flush();
      this.bindGroups.clear();
    }
    let timestampWrites = this.#timer?.stamps(pipeline.label);
    if (timestampWrites === null) {
      this.flush();
      timestampWrites = this.#timer!.stamps(pipeline.label)!;
    }
    this.#encoder ??= gpu.createCommandEncoder();
    const pass = this.#pass ??= this.#encoder.beginComputePass(
      timestampWrites && { timestampWrites },
    );
    const offset = this.#recorded * SIZES_BYTES;
    this.#sizesOfRecorded.set(values, offset);
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, this.bindGroups.find(layout, bindings, explain));
    pass.setBindGroup(1, this.#sizes.group, [offset]);
    pass.dispatchWorkgroups(grid[0], grid[1] ?? 1, grid[2] ?? 1);
    this.#recorded++;
    this.#kernels.add(pipeline.label);
    this.counts.dispatches++;
    if (timestampWrites) this.#endPass();
  }

  /** Records a copy of `bytes` bytes, from byte `offset` on, to the start of another buffer. */
  copy(from: GPUBuffer, offset: number, to: GPUBuffer, bytes: number): void {
    this.#endPass();
    this.#encoder ??= this.#device.gpu.createCommandEncoder();
    this.#encoder.copyBufferToBuffer(from, offset, to, 0, bytes);
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
  }

  /** Hands what is recorded to the GPU. */
  flush(): void {
    if (this.#encoder) {
      const { gpu } = this.#device;
      this.#endPass();
      this.#timer?.submitting(this.#encoder);
      const commands = this.#encoder;
      const used = this.#recorded * SIZES_BYTES;
      const names = [...this.#kernels].join(", ");
      this.#encoder = null;
      this.#recorded = 0;
      this.#kernels.clear();
      this.#device.guarded(
        "validation",
        () => {
          if (used > 0) {
            gpu.queue.writeBuffer(this.#sizes.buffer, 0, this.#sizesOfRecorded, 0, used);
          }
          gpu.queue.submit([commands.finish()]);
        },
        (message) =>
          new KernelError(`Cannot run what was recorded, that is ${names}: ${message}`, names),
      );
      this.counts.submits++;
    }
    if (this.#pool.overstocked) this.trim();
  }

  /** Gives the buffers that wait back to the GPU. */
  trim(): void {
    if (this.#encoder) this.flush();
    this.#pool.clear();
    this.readbacks.clear();
    this.bindGroups.clear();
  }

  /** Overwrites `buffer` from byte `offset` on. */
  write(buffer: GPUBuffer, offset: number, values: ArrayBufferView<ArrayBuffer>): void {
    // writeBuffer overtakes what is recorded but not submitted, and there a buffer from the pool
    // may still have readers.
    this.flush();
    const { gpu } = this.#device;
    gpu.queue.writeBuffer(buffer, offset, values.buffer, values.byteOffset, values.byteLength);
  }

  /** Has dispatches timed from now on, or no longer. Submits what is recorded. */
  timeBy(timer: Timer | null): void {
    this.flush();
    this.#timer = timer;
  }
}

/**
 * Where the sizes of all dispatches live: one uniform buffer, which is written once a submit. Sizes
 * that change compile nothing and upload nothing more.
 */
interface Uniforms {
  readonly buffer: GPUBuffer;
  readonly layout: GPUBindGroupLayout;
  readonly group: GPUBindGroup;
}

function makeUniforms(gpu: GPUDevice): Uniforms {
  const buffer = gpu.createBuffer({
    label: "sizes",
    size: MAX_RECORDED * SIZES_BYTES,
    usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  });
  const layout = gpu.createBindGroupLayout({
    label: "sizes",
    entries: [{
      binding: 0,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: "uniform", hasDynamicOffset: true },
    }],
  });
  const group = gpu.createBindGroup({
    label: "sizes",
    layout,
    entries: [{ binding: 0, resource: { buffer, size: SIZES_BYTES } }],
  });
  return { buffer, layout, group };
}

/** How often the current engine's GPU was given work, and how many bind groups were made for it. */
export interface Counters {
  /** Kernels started. */
  readonly dispatches: number;
  /** Times that recorded work was handed over. */
  readonly submits: number;
  /** Times that data was read. */
  readonly readbacks: number;
  /** Bind groups made. */
  readonly bindGroups: number;
}

/** The current engine's counts, since its start. */
export const counters: Counters = {
  get dispatches() {
    return currentEngine().queue.counts.dispatches;
  },
  get submits() {
    return currentEngine().queue.counts.submits;
  },
  get readbacks() {
    return currentEngine().queue.counts.readbacks;
  },
  get bindGroups() {
    return currentEngine().queue.bindGroups.made;
  },
};

/** Hands what is recorded to the GPU. */
export function flush(): void {
  currentEngine().queue.flush();
}

/** Gives the buffers that wait to be used again back to the GPU. */
export function trim(): void {
  currentEngine().queue.trim();
}

/** A new buffer with the given content. */
export function upload(values: ArrayBufferView<ArrayBuffer>): GPUBuffer {
  const { pool, queue } = currentEngine();
  const buffer = pool.acquire(values.byteLength);
  if (values.byteLength > 0) queue.write(buffer, 0, values);
  return buffer;
}
