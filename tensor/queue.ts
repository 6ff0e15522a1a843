/**
 * Records dispatches, hands them to the GPU together, and brings data back.
 *
 * @module
 */

import {
  gpu,
  guarded,
  isSoftware,
  KernelError,
  onStart,
  onTrial,
  refusal,
  settle,
} from "./device.ts";
import { acquire, clearShelves, numberOf, onLimit, overstocked, sizeClass } from "./memory.ts";

/** Bytes of one dispatch's sizes: WebGPU's largest required alignment of a dynamic offset. */
export const SIZES_BYTES = 256;

/** Dispatches for which there is room before a submit. */
const MAX_RECORDED = 4096;

/** Dispatches after which a GPU gets to work, while the host records more. */
const HEAD_START = 128;

/** Dispatches recorded before a submit happens by itself. A software adapter would work in the host's time. */
export function recordedAtMost(): number {
  return isSoftware() ? MAX_RECORDED : HEAD_START;
}

/** How often the GPU was given work since the start, and how many bind groups were made for it. */
export const counters = { dispatches: 0, submits: 0, readbacks: 0, bindGroups: 0 };

let encoder: GPUCommandEncoder | null = null;
let pass: GPUComputePassEncoder | null = null;
let recorded = 0;
const kernels = new Set<string>();
const sizesOfRecorded = new Uint8Array(MAX_RECORDED * SIZES_BYTES);

interface Sizes {
  readonly device: GPUDevice;
  readonly buffer: GPUBuffer;
  readonly layout: GPUBindGroupLayout;
  readonly group: GPUBindGroup;
}
let sizes: Sizes | null = null;

/**
 * Every dispatch's sizes live in one uniform buffer, which is written once a submit: sizes that change compile nothing
 * and upload nothing of their own.
 */
function sizesOf(device: GPUDevice): Sizes {
  if (sizes?.device === device) return sizes;
  const buffer = device.createBuffer({
    label: "sizes",
    size: MAX_RECORDED * SIZES_BYTES,
    usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  });
  const layout = device.createBindGroupLayout({
    label: "sizes",
    entries: [{
      binding: 0,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: "uniform", hasDynamicOffset: true },
    }],
  });
  const group = device.createBindGroup({
    label: "sizes",
    layout,
    entries: [{ binding: 0, resource: { buffer, size: SIZES_BYTES } }],
  });
  return sizes = { device, buffer, layout, group };
}

/** The layout of bind group 1, the sizes of a dispatch. */
export function sizesLayout(): GPUBindGroupLayout {
  return sizesOf(gpu()).layout;
}

/** A part of a buffer, as a kernel binds it. */
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

/** Workgroups along x, y and z. */
export type Grid = readonly [x: number, y?: number, z?: number];

/** Bind groups by what they bind: a step that repeats finds the buffers, and so the groups, of the step before. */
let bindGroups = new Map<string, GPUBindGroup>();

/**
 * So many at once: Mesa's software driver maps a page of memory for each, and Linux lets a process have 65,530 mappings.
 * Only steps of very many parts need more, and make some of theirs again.
 */
const MAX_BIND_GROUPS = 6144;

/**
 * What every bind group binds beside its kernel's buffers. A group has no destroy(), and waits for the collector, which
 * does not know what it holds; but a driver's part of it goes when one of its buffers does.
 */
let ticket: GPUBuffer | null = null;

/** How many bind groups there are. */
export function liveBindGroups(): number {
  return bindGroups.size;
}

/** The layout of bind group 0: a kernel's bindings with their access, and the {@linkcode ticket}. */
export function bindingsLayout(access: readonly Access[]): GPUBindGroupLayout {
  const visibility = GPUShaderStage.COMPUTE;
  return gpu().createBindGroupLayout({
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

function bindGroup(
  layout: GPUBindGroupLayout,
  bindings: readonly Binding[],
  explain: (message: string) => Error,
): GPUBindGroup {
  const key = layout.label +
    bindings.map(({ buffer, offset, size }) => `${numberOf(buffer)}:${offset}:${size}`).join();
  let group = bindGroups.get(key);
  if (group) return group;
  const device = gpu();
  const resources = [...bindings, { buffer: ticket ??= makeTicket(device) }];
  const entries = resources.map((resource, binding) => ({ binding, resource }));
  group = guarded("validation", () => device.createBindGroup({ layout, entries }), explain);
  bindGroups.set(key, group);
  counters.bindGroups++;
  return group;
}

function makeTicket(device: GPUDevice): GPUBuffer {
  return device.createBuffer({ label: "ticket", size: 16, usage: GPUBufferUsage.UNIFORM });
}

/** Gives all bind groups back. Nothing recorded may still use them. */
function forgetBindGroups(): void {
  ticket?.destroy();
  ticket = null;
  bindGroups = new Map();
}

/** Times dispatches one by one, each in a pass of its own. */
export interface Timer {
  /** Where the GPU writes when a dispatch of the named kernel begins and ends; null if there is no room before a submit. */
  stamps(kernel: string): GPUComputePassTimestampWrites | null;
  /** Told before a submit, to bring the times along. */
  submitting(encoder: GPUCommandEncoder): void;
}
let timer: Timer | null = null;

/** Has dispatches timed from now on, or no longer. Submits what is recorded. */
export function timeBy(by: Timer | null): void {
  flush();
  timer = by;
}

/** Forgets what was recorded. */
function drop(): void {
  encoder = pass = null;
  recorded = 0;
  kernels.clear();
}
onStart(() => {
  drop();
  forgetBindGroups();
  forgetStagings();
});

/** Records one run of `pipeline` over `bindings`, with `values` as its sizes; `explain` tells what the GPU refused. */
export function dispatch(
  pipeline: GPUComputePipeline,
  layout: GPUBindGroupLayout,
  bindings: readonly Binding[],
  values: Uint8Array,
  grid: Grid,
  explain: (message: string) => Error,
): void {
  const device = gpu();
  if (recorded === recordedAtMost()) flush();
  if (bindGroups.size >= MAX_BIND_GROUPS) {
    flush();
    forgetBindGroups();
  }
  let timestampWrites = timer?.stamps(pipeline.label);
  if (timestampWrites === null) {
    flush();
    timestampWrites = timer!.stamps(pipeline.label)!;
  }
  encoder ??= device.createCommandEncoder();
  pass ??= encoder.beginComputePass(timestampWrites && { timestampWrites });
  sizesOfRecorded.set(values, recorded * SIZES_BYTES);
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindGroup(layout, bindings, explain));
  pass.setBindGroup(1, sizesOf(device).group, [recorded * SIZES_BYTES]);
  pass.dispatchWorkgroups(grid[0], grid[1] ?? 1, grid[2] ?? 1);
  recorded++;
  kernels.add(pipeline.label);
  counters.dispatches++;
  if (!timestampWrites) return;
  pass.end();
  pass = null;
}

/** Hands what is recorded to the GPU. */
export function flush(): void {
  if (encoder) {
    const device = gpu();
    pass?.end();
    timer?.submitting(encoder);
    const commands = encoder;
    const used = recorded * SIZES_BYTES;
    const names = [...kernels].join(", ");
    drop();
    guarded(
      "validation",
      () => {
        if (used > 0) device.queue.writeBuffer(sizesOf(device).buffer, 0, sizesOfRecorded, 0, used);
        device.queue.submit([commands.finish()]);
      },
      (message) =>
        new KernelError(`Cannot run what was recorded, that is ${names}: ${message}`, names),
    );
    counters.submits++;
  }
  if (overstocked()) trim();
}

/** Gives the shelved buffers back to the GPU. */
export function trim(): void {
  if (encoder) flush();
  clearShelves();
  for (const shelf of stagings.values()) for (const buffer of shelf) buffer.destroy();
  forgetStagings();
  forgetBindGroups();
}
onLimit(trim);

/** A new buffer with the given content. */
export function upload(values: ArrayBufferView<ArrayBuffer>): GPUBuffer {
  const buffer = acquire(values.byteLength);
  if (values.byteLength > 0) write(buffer, 0, values);
  return buffer;
}

/** Overwrites `buffer` from byte `offset` on. */
export function write(
  buffer: GPUBuffer,
  offset: number,
  values: ArrayBufferView<ArrayBuffer>,
): void {
  // writeBuffer overtakes what is recorded but not submitted, and a buffer from a shelf may still have readers there.
  flush();
  gpu().queue.writeBuffer(buffer, offset, values.buffer, values.byteOffset, values.byteLength);
}

/**
 * Deno looks every 10 ms whether a buffer is mapped. Its `onSubmittedWorkDone()` however, once called, holds the thread
 * until the GPU is done, and the buffer is mapped then, although its promise does not know it yet.
 */
const CAN_HOLD = globalThis.navigator?.userAgent?.startsWith("Deno/") ?? false;

/** Short waits are held: a thread that is held hears no Ctrl-C, and of a long wait 10 ms are a small part. */
const HOLD_MS = 100;
let lastWait = 0;

/** Readbacks whose promise is still to settle: one in so many is waited for, so that events get their turn. */
const MAX_HELD = 16;
let held = 0;

/** Bytes from which on events get a turn before another buffer would have to be made, so that those in use come back. */
const LARGE_BYTES = 2 ** 20;

/** Waits until the events that are due had their turn; less than a timer's wait would not bring those of others. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** Buffers that readbacks have gone through, by size: to make one costs more than to fill it. */
let stagings = new Map<number, GPUBuffer[]>();
let stagedBytes = 0;
const MAX_STAGED_BYTES = 2 ** 26;
/** How often they were forgotten: what comes back later is not theirs. */
let generation = 0;

/**
 * Whether what is mapped is a copy, as in Deno since 2.9.5, and no view that ends when the buffer is unmapped: else a large
 * readback is copied twice.
 */
let copies = false;
onTrial(async () => {
  if (!CAN_HOLD) return;
  const buffer = staging(4);
  await buffer.mapAsync(GPUMapMode.READ);
  const range = buffer.getMappedRange();
  buffer.unmap();
  copies = !range.detached;
  putBack(buffer);
});

function staging(bytes: number): GPUBuffer {
  const size = sizeClass(bytes);
  const found = stagings.get(size)?.pop();
  if (found) {
    stagedBytes -= size;
    return found;
  }
  // To make a large one takes milliseconds, in which the GPU may be at work.
  if (bytes >= LARGE_BYTES) flush();
  const made = gpu().createBuffer({
    label: "readback",
    size,
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    // Deno crashes where a buffer that never was mapped is asked for its range before mapAsync() has settled.
    mappedAtCreation: CAN_HOLD,
  });
  if (CAN_HOLD) made.unmap();
  return made;
}

function putBack(buffer: GPUBuffer): void {
  const { size } = buffer;
  if (stagedBytes + size > MAX_STAGED_BYTES) return buffer.destroy();
  stagedBytes += size;
  const others = stagings.get(size);
  if (others) others.push(buffer);
  else stagings.set(size, [buffer]);
}

function forgetStagings(): void {
  generation++;
  stagings = new Map();
  stagedBytes = 0;
}

/**
 * Submits what is recorded, waits for it, and copies `bytes` bytes of `buffer` from `offset` on.
 *
 * @throws {KernelError} What the GPU refused since the last readback.
 * @throws {DeviceLostError} If the device is lost.
 */
export async function read(buffer: GPUBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
  const device = gpu();
  const hold = CAN_HOLD && lastWait < HOLD_MS && held < MAX_HELD;
  const born = generation;
  let target: GPUBuffer | undefined;
  let range: ArrayBuffer | undefined;
  let mapped: Promise<unknown> | undefined;
  try {
    target = staging(bytes);
    pass?.end();
    pass = null;
    encoder ??= device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, offset, target, 0, bytes);
    flush();
    counters.readbacks++;
    const start = performance.now();
    let refused: unknown;
    held++;
    mapped = target.mapAsync(GPUMapMode.READ, 0, bytes).catch((error) => refused = error);
    if (hold) device.queue.onSubmittedWorkDone();
    else await mapped;
    lastWait = performance.now() - start;
    await settle();
    if (hold && bytes >= LARGE_BYTES && !stagings.get(target.size)?.length) await turn();
    if (refused) throw refused;
    range = target.getMappedRange(0, bytes);
    return copies ? range : range.slice(0);
  } catch (error) {
    throw error instanceof DOMException ? await refusal(error) : error;
  } finally {
    // What went wrong may have left it in any state.
    if (!range) target?.destroy();
    mapped?.then(() => {
      held--;
      if (!target || !range) return;
      target.unmap();
      if (born === generation) putBack(target);
    }).catch(() => {}); // The device was lost meanwhile, and the buffer with it.
  }
}
