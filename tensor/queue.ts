/**
 * Records dispatches, and submits them to the GPU together.
 *
 * @module
 */

import { BindGroups, type Binding } from "./bind_groups.ts";
import type { BufferPool } from "./buffer_pool.ts";
import { currentEngine } from "./engine.ts";
import { KernelError } from "./errors.ts";
import type { Device } from "./gpu_device.ts";
import { Readbacks } from "./readback.ts";

/**
 * Bytes reserved for the sizes of one dispatch: WebGPU's largest required alignment of a dynamic
 * offset.
 */
export const SIZES_BYTES = 256;

/** The most dispatches of a submit: the uniform buffer has room for the sizes of so many. */
const MAX_RECORDED = 4096;

/**
 * Dispatches after which a hardware GPU is given work, so that it runs while the host records more.
 */
const HEAD_START = 128;

/** Workgroups along x, y and z. */
export type Grid = readonly [x: number, y?: number, z?: number];

/** Times dispatches one by one, each in a pass by itself. */
export interface Timer {
  /**
   * Where the GPU writes the times at which a dispatch of `kernel` begins and ends; null if a
   * submit must first make room.
   */
  stamps(kernel: string): GPUComputePassTimestampWrites | null;
  /** Called before a submit with its encoder, to record the copy of the times. */
  submitting(encoder: GPUCommandEncoder): void;
}

/**
 * The work that is recorded for a device and not yet submitted, and the readbacks from the device.
 */
export class Queue {
  /** How many dispatches, submits and readbacks there were. */
  readonly counts = { dispatches: 0, submits: 0, readbacks: 0 };
  /**
   * The most dispatches before a submit. A software GPU gets no early submits: it would take CPU
   * time from the host that records.
   */
  readonly recordedAtMost: number;
  /** The bind groups of dispatches. */
  readonly bindGroups: BindGroups;
  /** The readbacks from the device. */
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

  /** Starts with nothing recorded; buffers come from `pool`. */
  constructor(device: Device, pool: BufferPool) {
    this.recordedAtMost = device.isSoftware ? MAX_RECORDED : HEAD_START;
    this.bindGroups = new BindGroups(device, pool);
    this.readbacks = new Readbacks(device, this);
    this.#device = device;
    this.#pool = pool;
    pool.relieve = () => this.trim();
  }

  /** The layout of bind group 1, which holds the sizes of a dispatch. */
  get sizesLayout(): GPUBindGroupLayout {
    return this.#sizes.layout;
  }

  get #sizes(): Uniforms {
    return this.#uniforms ??= makeUniforms(this.#device.gpu);
  }

  /**
   * Records one run of `pipeline` over `bindings`, with `values` as its packed sizes. If the GPU
   * refuses the bindings, `explain` turns the message into an error.
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

  /** Records a copy of `bytes` bytes of `from`, from byte `offset` on, to the start of `to`. */
  copy(from: GPUBuffer, offset: number, to: GPUBuffer, bytes: number): void {
    this.#endPass();
    this.#encoder ??= this.#device.gpu.createCommandEncoder();
    this.#encoder.copyBufferToBuffer(from, offset, to, 0, bytes);
  }

  #endPass(): void {
    this.#pass?.end();
    this.#pass = null;
  }

  /** Submits the recorded work to the GPU. */
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
      this.bindGroups.submitted();
      this.counts.submits++;
    }
    if (this.#pool.overstocked) this.trim();
  }

  /** Submits the recorded work, then gives pooled buffers and bind groups back to the GPU. */
  trim(): void {
    if (this.#encoder) this.flush();
    this.#pool.clear();
    this.readbacks.clear();
    this.bindGroups.clear();
  }

  /** Overwrites `buffer` from byte `offset` on. Submits the recorded work first. */
  write(buffer: GPUBuffer, offset: number, values: ArrayBufferView<ArrayBuffer>): void {
    // writeBuffer runs before work that is recorded but not submitted, and such work may still read
    // a buffer that came from the pool.
    this.flush();
    const { gpu } = this.#device;
    gpu.queue.writeBuffer(buffer, offset, values.buffer, values.byteOffset, values.byteLength);
  }

  /** Submits the recorded work. From then on `timer` times each dispatch; null ends the timing. */
  timeBy(timer: Timer | null): void {
    this.flush();
    this.#timer = timer;
  }
}

/**
 * One uniform buffer for the sizes of all recorded dispatches, with its layout and bind group. It
 * is written once a submit: sizes that change need no compilation and no other upload.
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

/** How often the current engine gave its GPU work, and how many bind groups it made for it. */
export interface Counters {
  /** Kernels dispatched. */
  readonly dispatches: number;
  /** Submits of recorded work. */
  readonly submits: number;
  /** Readbacks of data. */
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

/** Submits the recorded work to the GPU. */
export function flush(): void {
  currentEngine().queue.flush();
}

/** Submits the recorded work, then gives pooled buffers and bind groups back to the GPU. */
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
