/**
 * Kernels that work on many tensors in one dispatch.
 *
 * @module
 */

import { gpu } from "../tensor/device.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type Constants,
  type Declaration,
  type KernelWork,
  type Sizes,
  splitComment,
  type Types,
} from "./declaration.ts";
import { Kernel, spread } from "./kernel.ts";
import manyWgsl from "./many.wgsl" with { type: "text" };
import special from "./special.wgsl" with { type: "text" };
import { expand } from "./template.ts";
import { variant } from "./variant.ts";

/** One of the tensors, or pair of tensors, that a kernel works on. */
export interface Member {
  /** What is read: `x`. */
  readonly x: Tensor;
  /** What is read and written, of the same size: `y`; nothing if the kernel has none. */
  readonly y?: Tensor;
  /** Its sizes, by the names of {@linkcode ManyOptions.memberSizes}. */
  readonly sizes: Sizes;
}

/** What a kernel of many tensors is like. */
export interface ManyOptions {
  /** Whether members have a `y`. */
  readonly writes: boolean;
  /** What is read by all members. */
  readonly inputs: Types;
  /** What is written by all members. */
  readonly outputs: Types;
  /** The sizes of a member: `sizes.name_m` in WGSL. */
  readonly memberSizes: Types<"u32" | "f32">;
  /** The sizes that all members share. */
  readonly sizes: Types<"u32" | "f32">;
  /** The numbers that are built into a pipeline; none by default. */
  readonly constants?: Declaration["constants"];
  /** Elements of a workgroup of 64 invocations; a member's last workgroup may have fewer. */
  readonly elements: number;
  /** What a run counts as; `count` is among its sizes. */
  readonly work: KernelWork;
}

/**
 * The most members of a dispatch: each adds to what is compiled, which a software GPU does slowly.
 */
const MOST = { perLane: 8, subgroup: 8, workgroup: 15 } as const;

/**
 * A kernel of many tensors. Its WGSL is a template of the m-th member's `work_m(group, lane)`,
 * which does a workgroup's share: `x_m` and `y_m` are the member's arrays, `sizes.count_m` is how
 * many elements it has. What it does must be in a loop over elements: a software GPU goes through
 * the code of all members, and skips nothing but loops.
 */
export class ManyKernel {
  readonly #name: string;
  readonly #wgsl: string;
  readonly #options: ManyOptions;
  readonly #kernels = new Map<number, Kernel>();

  /** Nothing is compiled before the first run. */
  constructor(name: string, wgsl: string, options: ManyOptions) {
    this.#name = name;
    this.#wgsl = wgsl;
    this.#options = options;
  }

  /**
   * Records as few runs as the GPU's bindings allow. The members are row-major from the start of
   * their buffers.
   */
  run(
    members: readonly Member[],
    inputs: readonly Tensor[],
    outputs: readonly Tensor[],
    shared: Sizes,
    constants: Constants = {},
  ): void {
    const { writes, elements } = this.#options;
    const some = members.filter(({ x }) => x.size > 0);
    const bindings = gpu().limits.maxStorageBuffersPerShaderStage - inputs.length - outputs.length;
    const most = Math.min(MOST[variant()], Math.floor(bindings / (writes ? 2 : 1)));
    for (let first = 0; first < some.length; first += most) {
      const group = some.slice(first, first + most);
      const sizes: Record<string, number> = { ...shared, count: 0, first_0: 0 };
      let groups = 0;
      group.forEach(({ x, sizes: memberSizes }, m) => {
        sizes[`count_${m}`] = x.size;
        sizes.count += x.size;
        for (const [name, value] of Object.entries(memberSizes)) sizes[`${name}_${m}`] = value;
        groups += Math.ceil(x.size / elements);
        sizes[`first_${m + 1}`] = groups;
      });
      this.kernel(group.length).run(
        [...group.map(({ x }) => x), ...inputs],
        [...(writes ? group.map(({ y }) => y!) : []), ...outputs],
        sizes,
        spread(groups),
        constants,
      );
    }
  }

  /** The kernel of so many members. */
  kernel(members: number): Kernel {
    let kernel = this.#kernels.get(members);
    if (!kernel) {
      const [comment, work] = splitComment(this.#wgsl);
      const wgsl = comment + expand(manyWgsl, { MEMBERS: members }, { WORK: work }) + special;
      kernel = new Kernel(this.#name, wgsl, declarationOf(members, this.#options));
      this.#kernels.set(members, kernel);
    }
    return kernel;
  }
}

/** What so many members name. */
function declarationOf(members: number, options: ManyOptions): Declaration {
  const { writes, inputs, outputs, memberSizes, sizes, constants, work } = options;
  const each = <T extends string>(name: string, type: T, count = members): Types<T> =>
    Object.fromEntries(Array.from({ length: count }, (_, m) => [`${name}_${m}`, type]));
  return {
    ...work,
    inputs: { ...each("x", "f32"), ...inputs },
    outputs: { ...(writes && each("y", "f32")), ...outputs },
    sizes: Object.assign(
      // A member has the workgroups from its first to before the next one's.
      each("first", "u32", members + 1),
      each("count", "u32"),
      ...Object.entries(memberSizes).map(([name, type]) => each(name, type)),
      sizes,
    ),
    constants,
  };
}
