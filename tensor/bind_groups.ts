/**
 * Bind groups: one is made for each set of bindings, and reused.
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
 * The most bind groups held at once. Mesa's software driver maps a page of memory for each, and
 * Linux allows a process 65,530 mappings. Only a step with more sets of bindings than this makes
 * some of its bind groups again.
 */
const MAX_BIND_GROUPS = 6144;

/**
 * Bind groups, cached by what they bind. A step that repeats gets the same buffers from the pool as
 * the step before, and so finds that step's bind groups here.
 */
export class BindGroups {
  /** How many bind groups were ever made. */
  made = 0;
  readonly #device: Device;
  readonly #pool: BufferPool;
  readonly #groups = new Map<string, GPUBindGroup>();
  /**
   * A small buffer that every bind group binds beside its kernel's buffers. A bind group has no
   * destroy(); it waits for the garbage collector, which does not know how much memory a driver
   * holds for it. But a driver frees that memory when one of the bound buffers is destroyed:
   * destroying the ticket frees it for all bind groups, if they were made before the ticket was
   * first submitted: wgpu forgets those that come later. So each submission has a ticket of its
   * own, if bind groups are made for it.
   */
  #ticket: GPUBuffer | null = null;
  readonly #tickets: GPUBuffer[] = [];

  /** Starts without bind groups; `pool` numbers the buffers. */
  constructor(device: Device, pool: BufferPool) {
    this.#device = device;
    this.#pool = pool;
  }

  /** How many bind groups are held. */
  get size(): number {
    return this.#groups.size;
  }

  /** Whether the bind groups must be cleared before another is made. */
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

  /**
   * The bind group of `bindings`, made if there is none. If the GPU refuses it, `explain` turns the
   * message into an error.
   */
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
    const resources = [...bindings, { buffer: this.#ticket ??= this.#newTicket() }];
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

  /** Says that the work which uses the bind groups made so far was submitted. */
  submitted(): void {
    this.#ticket = null;
  }

  /** Frees all bind groups. No recorded work may still use them. */
  clear(): void {
    for (const ticket of this.#tickets) ticket.destroy();
    this.#tickets.length = 0;
    this.#ticket = null;
    this.#groups.clear();
  }

  #newTicket(): GPUBuffer {
    const usage = GPUBufferUsage.UNIFORM;
    const ticket = this.#device.gpu.createBuffer({ label: "ticket", size: 16, usage });
    this.#tickets.push(ticket);
    return ticket;
  }
}
