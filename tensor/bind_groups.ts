/**
 * Bind groups: made once for what they bind, and found again.
 *
 * @module
 */

import type { BufferPool } from "./buffer_pool.ts";
import type { Device } from "./gpu_device.ts";

/** A range of a buffer, as a kernel binds it. */
export interface Binding {
  /** The buffer. */
  readonly buffer: GPUBuffer;
  /** Its first byte, a multiple of 256. */
  readonly offset: number;
  /** How many bytes. */
  readonly size: number;
}

/** What a kernel does with a binding. */
export type Access = "read" | "read_write";

/**
 * So many at once: Mesa's software driver maps a page of memory for each, and Linux lets a process
 * have 65,530 mappings. Only steps of very many kernels need more, and make some of theirs again.
 */
const MAX_BIND_GROUPS = 6144;

/**
 * Bind groups by what they bind: a step that repeats finds the buffers, and so the groups, of the
 * step before.
 */
export class BindGroups {
  /** How many were ever made. */
  made = 0;
  readonly #device: Device;
  readonly #pool: BufferPool;
  readonly #groups = new Map<string, GPUBindGroup>();
  /**
   * What every bind group binds beside its kernel's buffers. A group has no destroy(), and waits
   * for the collector, which does not know what it holds; but what a driver has of it goes when one
   * of its buffers does.
   */
  #ticket: GPUBuffer | null = null;

  /** None at first; `pool` numbers the buffers. */
  constructor(device: Device, pool: BufferPool) {
    this.#device = device;
    this.#pool = pool;
  }

  /** How many there are. */
  get size(): number {
    return this.#groups.size;
  }

  /** Whether some must go before another is made. */
  get isFull(): boolean {
    return this.#groups.size >= MAX_BIND_GROUPS;
  }

  /** The layout of bind group 0: a kernel's bindings with their access, and the ticket. */
  layout(access: readonly Access[]): GPUBindGroupLayout {
    const visibility = GPUShaderStage.COMPUTE;
    return this.#device.gpu.createBindGroupLayout({
      label: access.join(),
      entries: [
        ...access.map((access, binding): GPUBindGroupLayoutEntry => ({
          binding,
          visibility,
          buffer: { type: access === "read" ? "read-only-storage" : "storage" },
        })),
        { binding: access.length, visibility, buffer: { type: "uniform" } },
      ],
    });
  }

  /** The group of some bindings; `explain` tells what the GPU refused of it. */
  find(
    layout: GPUBindGroupLayout,
    bindings: readonly Binding[],
    explain: (message: string) => Error,
  ): GPUBindGroup {
    const bound = bindings.map(({ buffer, offset, size }) =>
      `${this.#pool.numberOf(buffer)}:${offset}:${size}`
    );
    const key = layout.label + bound.join();
    let group = this.#groups.get(key);
    if (group) return group;
    const { gpu } = this.#device;
    this.#ticket ??= gpu.createBuffer({
      label: "ticket",
      size: 16,
      usage: GPUBufferUsage.UNIFORM,
    });
    const resources = [...bindings, { buffer: this.#ticket }];
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    group = this.#device.guarded(
      "validation",
      () => gpu.createBindGroup({ layout, entries }),
      explain,
    );
    this.#groups.set(key, group);
    this.made++;
    return group;
  }

  /** Gives all of them back. Nothing recorded may still use them. */
  clear(): void {
    this.#ticket?.destroy();
    this.#ticket = null;
    this.#groups.clear();
  }
}
