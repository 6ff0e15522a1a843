/**
 * Kernels that work on many tensors in one dispatch.
 *
 * @module
 */

import { gpu } from "../tensor/device.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type Constants,
  Kernel,
  type KernelWork,
  type Sizes,
  type SizeTypes,
  spread,
} from "./kernel.ts";
import special from "./special.wgsl" with { type: "text" };
import { variant } from "./variant.ts";

/** One of the tensors, or pair of tensors, that a kernel works on. */
export interface Member {
  /** What is read: `x`. */
  readonly x: Tensor;
  /** What is read and written, of the same size: `y`; nothing if the kernel has none. */
  readonly y?: Tensor;
  /** Its numbers, by the names of {@linkcode ManyOptions.numbers}. */
  readonly numbers: Sizes;
}

/** What a kernel of many tensors is like. */
export interface ManyOptions {
  /** Whether members have a `y`. */
  readonly writes: boolean;
  /** What all members share, in the order of binding, with WGSL's access. */
  readonly shared: readonly { readonly name: string; readonly access: "read" | "read_write" }[];
  /** The names of the members' numbers, and of those that they share; WGSL's types. */
  readonly numbers: Readonly<Record<string, "u32" | "f32">>;
  /** Likewise. */
  readonly common: Readonly<Record<string, "u32" | "f32">>;
  /** Elements of a workgroup of 64 invocations; a member's last workgroup may have fewer. */
  readonly elements: number;
  /** What a run counts as; `count` is among its sizes. */
  readonly work: KernelWork;
}

/** The most members of a dispatch: each adds to what is compiled, which a software adapter does slowly. */
const MOST = { perLane: 8, subgroup: 8, workgroup: 15 } as const;

/**
 * A kernel of many tensors. Its WGSL defines `work_(group, lane)`, which does a workgroup's share of one member: `x_` and
 * `y_` are its arrays, `count_` is how many elements it has, and a number of it named `n` is `n_`. Each member gets a
 * copy with other names. What it does must be in a loop over elements: a software adapter goes through the copies of
 * all members, and skips nothing but loops.
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

  /** Records as few runs as the adapter's bindings allow. The members are row-major from the start of their buffers. */
  run(
    members: readonly Member[],
    shared: readonly Tensor[],
    common: Sizes,
    constants: Constants = {},
  ): void {
    const { writes, elements } = this.#options;
    const filled = members.filter(({ x }) => x.size > 0);
    const bindings = gpu().limits.maxStorageBuffersPerShaderStage - shared.length;
    const most = Math.min(MOST[variant()], Math.floor(bindings / (writes ? 2 : 1)));
    for (let first = 0; first < filled.length; first += most) {
      const some = filled.slice(first, first + most);
      const sizes: Record<string, number> = { ...common, count: 0, members: some.length };
      let groups = 0;
      some.forEach(({ x, numbers }, m) => {
        sizes[`first_${m}`] = groups;
        sizes[`count_${m}`] = x.size;
        sizes.count += x.size;
        for (const [name, value] of Object.entries(numbers)) sizes[`${name}_${m}`] = value;
        groups += Math.ceil(x.size / elements);
      });
      sizes.groups = groups;
      const reads = this.#options.shared.flatMap(({ access }, i) =>
        access === "read" ? [shared[i]] : []
      );
      const written = this.#options.shared.flatMap(({ access }, i) =>
        access === "read" ? [] : [shared[i]]
      );
      this.#kernel(some.length).run(
        [...some.map(({ x }) => x), ...reads],
        [...(writes ? some.map(({ y }) => y!) : []), ...written],
        sizes,
        spread(groups),
        constants,
      );
    }
  }

  #kernel(members: number): Kernel {
    let kernel = this.#kernels.get(members);
    if (!kernel) {
      const wgsl = frame(members, this.#wgsl, this.#options);
      const sizes = sizesOf(members, this.#options);
      kernel = new Kernel(this.#name, wgsl, sizes, this.#options.work);
      this.#kernels.set(members, kernel);
    }
    return kernel;
  }
}

/** The sizes of so many members. */
function sizesOf(members: number, { numbers, common }: ManyOptions): SizeTypes {
  const fields = Object.entries({ first: "u32", count: "u32", ...numbers } as const);
  return {
    groups: "u32",
    ...Object.fromEntries(
      fields.flatMap(([name, type]) =>
        Array.from({ length: members }, (_, m) => [`${name}_${m}`, type])
      ),
    ),
    ...common,
  };
}

/** The WGSL of so many members. */
function frame(
  members: number,
  wgsl: string,
  { writes, shared, numbers }: ManyOptions,
): string {
  const each = (line: (m: number) => string) =>
    Array.from({ length: members }, (_, m) => line(m)).join("\n");
  const reads = shared.filter(({ access }) => access === "read");
  const written = shared.filter(({ access }) => access !== "read");
  const all = (name: string, access: string) =>
    Array.from({ length: members }, (_, m) => ({ name: `${name}${m}`, access }));
  const bindings = [
    ...all("x_", "read"),
    ...reads,
    ...(writes ? all("y_", "read_write") : []),
    ...written,
  ];
  const named = new RegExp(`\\b(${["count", ...Object.keys(numbers)].join("|")})_\\b`, "g");
  const begin = wgsl.indexOf("fn work_(");
  const copy = (m: number) =>
    wgsl.slice(begin).replaceAll(/\b(x|y|work)_\b/g, `$1_${m}`).replaceAll(
      named,
      `sizes.$1_${m}`,
    );
  return /* wgsl */ `${special}
${
    bindings.map(({ name, access }, i) =>
      `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<f32>;`
    ).join("\n")
  }
${wgsl.slice(0, begin)}
${each(copy)}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let at = group.y * groups.x + group.x;
${
    each((m) => {
      const next = m + 1 < members ? `first_${m + 1}` : "groups";
      return `  if (at >= sizes.first_${m} && at < sizes.${next}) {
    work_${m}(at - sizes.first_${m}, lane);
  }`;
    })
  }
}
`;
}
