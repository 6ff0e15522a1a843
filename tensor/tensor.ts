/**
 * The tensor: a handle on a GPU buffer.
 *
 * @module
 */

import type { Binding } from "./bind_groups.ts";
import { currentEngine, type Engine } from "./engine.ts";
import { halvesToFloats } from "./half.ts";
import { adopt, keep } from "./scope.ts";
import { checkShape, contiguousStrides, isContiguous, numel, type Shape } from "./shape.ts";

/**
 * The type of an element. Halves, `"f16"`, only store frozen weights: some ops read them, as f32,
 * and no op makes them.
 */
export type Dtype = "f32" | "u32" | "i32" | "f16";

/** Elements on the host. */
export type Data = Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** The typed array that holds the elements of each dtype on the host. */
export const ARRAY_OF = {
  f32: Float32Array,
  u32: Uint32Array,
  i32: Int32Array,
  f16: Float32Array,
} as const;

/** Bytes of an element of each dtype. */
export const ELEMENT_BYTES = { f32: 4, u32: 4, i32: 4, f16: 2 } as const;

/** A buffer, and what all tensors on it share. */
interface Storage {
  readonly engine: Engine;
  readonly buffer: GPUBuffer;
  /** How many tensors are on the buffer. */
  holders: number;
  /** How many times tapes have saved it. */
  saves: number;
}

/**
 * An n-dimensional array on the GPU. Made by {@linkcode tensor} and by ops; operated on by
 * functions, not methods. The innermost open scope owns it. Outside of scopes the code that made it
 * owns it, and calls `release()`.
 */
export class Tensor {
  /** The size of each axis. */
  readonly shape: Shape;
  /** Elements to step along each axis. */
  readonly strides: Shape;
  /** Where the first element is in the buffer, in elements. */
  readonly offset: number;
  /** The type of an element. */
  readonly dtype: Dtype;
  readonly #storage: Storage;
  #holders = 1;

  private constructor(
    storage: Storage,
    shape: Shape,
    strides: Shape,
    offset: number,
    dtype: Dtype,
  ) {
    this.#storage = storage;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
    this.dtype = dtype;
    adopt(this);
  }

  /** A tensor on a buffer that it takes over, row-major from its first byte. */
  static on(buffer: GPUBuffer, shape: Shape, dtype: Dtype = "f32"): Tensor {
    const storage = { engine: currentEngine(), buffer, holders: 1, saves: 0 };
    return new Tensor(storage, shape, contiguousStrides(shape), 0, dtype);
  }

  /**
   * A tensor whose content is undefined, for kernels to write. With `exact` its buffer is no larger
   * than needed, but less likely to be reused: for a tensor that stays.
   *
   * @throws {RangeError} If a size is no integer from 0 on, or the GPU allows no buffer so large.
   */
  static empty(shape: Shape, dtype: Dtype = "f32", exact = false): Tensor {
    checkShape(shape);
    const buffer = currentEngine().pool.acquire(ELEMENT_BYTES[dtype] * numel(shape), exact);
    return Tensor.on(buffer, shape, dtype);
  }

  /** Another tensor on the same buffer. */
  view(
    shape: Shape,
    strides: Shape = contiguousStrides(shape),
    offset: number = this.offset,
  ): Tensor {
    this.#assertLive();
    this.#storage.holders++;
    return new Tensor(this.#storage, shape, strides, offset, this.dtype);
  }

  /**
   * The engine that the tensor was made on, the only one that it can be used on.
   *
   * @internal
   */
  get engine(): Engine {
    return this.#storage.engine;
  }

  /** Whether the tensor may still be used. */
  get live(): boolean {
    return this.#holders > 0;
  }

  /** How many elements the tensor has. */
  get size(): number {
    return numel(this.shape);
  }

  /** Whether its elements lie row-major without gaps, from the buffer's start. */
  get contiguous(): boolean {
    return this.offset === 0 && isContiguous(this.shape, this.strides);
  }

  /**
   * The range that kernels bind: from the start of the buffer to the tensor's last element.
   *
   * @throws {Error} If it was released, or another engine than the tensor's is current.
   */
  get binding(): Binding {
    if (this.engine !== currentEngine()) {
      throw new Error(
        `Cannot use a tensor of shape [${this.shape}]: it was made on another engine, ` +
          "before init(), initDry() or onDryEngine() began this one",
      );
    }
    return this.#extent();
  }

  #extent(): Binding {
    this.#assertLive();
    const last = this.shape.reduce(
      (at, size, axis) => at + (size - 1) * this.strides[axis],
      this.offset,
    );
    return {
      buffer: this.#storage.buffer,
      offset: 0,
      size: Math.max(4, wholeWords(ELEMENT_BYTES[this.dtype] * (last + 1))),
    };
  }

  /** Holds the tensor once more, for a tape with a gradient rule that reads it. */
  save(): void {
    this.#assertLive();
    this.#holders++;
    if (this.#storage.saves++ > 0) return;
    const { engine, buffer } = this.#storage;
    const taken = engine.pool.reassign(buffer, "workspace", "savedActivations");
    if (taken) engine.meters.noteSaved(this.#extent().size);
  }

  /** Takes back one {@linkcode save}. */
  unsave(): void {
    if (--this.#storage.saves === 0) {
      this.engine.pool.reassign(this.#storage.buffer, "savedActivations", "workspace");
    }
    this.drop();
  }

  /** Moves the buffer to the memory category `gradients`, if its category is `workspace`. */
  markGradient(): void {
    this.engine.pool.reassign(this.#storage.buffer, "workspace", "gradients");
  }

  /** Holds the tensor once less. The buffer goes back to its pool when nothing holds it. */
  drop(): void {
    this.#assertLive();
    if (--this.#holders > 0) return;
    if (--this.#storage.holders === 0) this.engine.pool.recycle(this.#storage.buffer);
  }

  /**
   * Releases the tensor. Needed only outside of scopes, or to release a tensor before its scope
   * ends.
   */
  release(): void {
    keep(this).drop();
  }

  /**
   * Copies the elements to the host, in row-major order. Submits the recorded work, and waits for
   * it.
   */
  async data(): Promise<Data> {
    const { buffer, size } = this.#extent();
    const { readbacks } = this.engine.queue;
    const start = this.offset * ELEMENT_BYTES[this.dtype];
    // Only complete words of 4 bytes are read: a half may lie in the middle of one.
    const inOrder = isContiguous(this.shape, this.strides) && start % 4 === 0;
    const from = inOrder ? start : 0;
    const bytes = await readbacks.read(buffer, from, this.size === 0 ? 0 : size - from);
    const held = this.dtype === "f16"
      ? halvesToFloats(new Uint16Array(bytes))
      : new ARRAY_OF[this.dtype](bytes);
    if (inOrder && held.length === this.size) return held;
    const first = from / ELEMENT_BYTES[this.dtype];
    const gathered = new ARRAY_OF[this.dtype](this.size);
    const index = this.shape.map(() => 0);
    for (let i = 0, at = this.offset - first; i < gathered.length; i++) {
      gathered[i] = held[at];
      for (let axis = index.length - 1; axis >= 0; axis--) {
        at += this.strides[axis];
        if (++index[axis] < this.shape[axis]) break;
        at -= this.strides[axis] * this.shape[axis];
        index[axis] = 0;
      }
    }
    return gathered;
  }

  /**
   * The only element, as a number.
   *
   * @throws {RangeError} If the tensor has more than one.
   */
  async item(): Promise<number> {
    if (this.size !== 1) {
      throw new RangeError(
        `Cannot take the item of a tensor of shape [${this.shape}]: it has ${this.size} elements`,
      );
    }
    return (await this.data())[0];
  }

  #assertLive(): void {
    if (this.live) return;
    throw new Error(
      `Cannot use a released tensor of shape [${this.shape}]: ` +
        "return it from its scope(), or keep() it",
    );
  }
}

/** Bytes rounded up to what the GPU copies and binds: multiples of 4. */
export function wholeWords(bytes: number): number {
  return Math.ceil(bytes / 4) * 4;
}

/**
 * Checks that an op's tensors are f32.
 *
 * @throws {TypeError} If one of `tensors` holds integers or halves.
 */
export function checkFloats(op: string, ...tensors: readonly Tensor[]): void {
  for (const { dtype, shape } of tensors) {
    if (dtype !== "f32") throw new TypeError(`Cannot ${op} ${dtype} [${shape}]: it takes f32`);
  }
}

/**
 * As {@linkcode checkFloats}, for an op whose kernel also reads halves.
 *
 * @throws {TypeError} If one of `tensors` holds integers.
 */
export function checkReadable(op: string, ...tensors: readonly Tensor[]): void {
  checkFloats(op, ...tensors.filter(({ dtype }) => dtype !== "f16"));
}
