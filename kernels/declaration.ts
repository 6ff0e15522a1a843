/**
 * What a kernel declares, and the WGSL that is written from it.
 *
 * @module
 */

import type { Access, Binding } from "../tensor/bind_groups.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Values of a kernel's `override` constants: what is built into a pipeline. */
export type Constants = Readonly<Record<string, number>>;

/** Values of a kernel's sizes: what may differ from run to run. */
export type Sizes = Readonly<Record<string, number>>;

/** What a run of a kernel counts as, beside the bytes of its inputs and outputs. */
export interface KernelWork {
  /** Arithmetic operations of a run. */
  readonly flops: (sizes: Sizes, inputs: readonly (Tensor | Binding)[]) => number;
  /** Bytes read, where that is not every element of the inputs once. */
  readonly reads?: (sizes: Sizes) => number;
  /** Bytes written, where that is not every element of the outputs once. */
  readonly writes?: (sizes: Sizes) => number;
}

/** The WGSL types of a size. */
export type SizeType = "u32" | "i32" | "f32";

/** Names, and the WGSL types of what they name. */
export type Types<T extends string = string> = Readonly<Record<string, T>>;

/**
 * What a kernel's WGSL names and does not declare, in the order in which it is bound and packed.
 */
export interface Declaration extends KernelWork {
  /**
   * The element types of what is read. `halves` and `halves4` are one or two words of f16; integers
   * serve as the bits of floats too.
   */
  readonly inputs: Types;
  /** The element types of what is written. */
  readonly outputs: Types;
  /** The numbers that change from run to run: `sizes.name` in WGSL. */
  readonly sizes: Types<SizeType>;
  /** The numbers that are built into a pipeline; none by default. */
  readonly constants?: Types<"u32" | "bool">;
  /** Whether it uses subgroups; false by default. */
  readonly subgroups?: boolean;
}

/** A binding of a declaration. */
export interface DeclaredBinding {
  readonly name: string;
  readonly type: string;
  readonly access: Access;
}

/** The bindings of a declaration: inputs in their order, then outputs. */
export function bindingsOf({ inputs, outputs }: Declaration): readonly DeclaredBinding[] {
  const all = (types: Types, access: Access) =>
    Object.entries(types).map(([name, type]) => ({ name, type, access }));
  return [...all(inputs, "read"), ...all(outputs, "read_write")];
}

/** What a binding of a type holds; not said of integers, which serve as the bits of floats too. */
export function dtypeOf(type: string): "f32" | "f16" | undefined {
  if (type.startsWith("halves")) return "f16";
  return type.endsWith("f") || type === "f32" ? "f32" : undefined;
}

/** Half precision is read by the word: not every GPU knows f16. */
const HALVES: Types = { halves: "u32", halves4: "vec2u" };

/** The comment that WGSL begins with, and the rest. */
export function splitComment(wgsl: string): [comment: string, rest: string] {
  const [comment] = /^(\/\/.*\n)*/.exec(wgsl)!;
  return [comment, wgsl.slice(comment.length).trim() + "\n"];
}

/** WGSL with its declarations, after the comment that it begins with. */
export function declared(wgsl: string, declaration: Declaration): string {
  const [comment, rest] = splitComment(wgsl);
  const { constants = {}, sizes } = declaration;
  const fields = Object.entries(sizes).map(([name, type]) => `  ${name}: ${type},\n`).join("");
  const lines = [
    ...Object.entries(constants).map(([name, type]) => `override ${name}: ${type};`),
    ...(fields === "" ? [] : [`struct Sizes {\n${fields}}`]),
    ...bindingsOf(declaration).map(({ name, type, access }, i) =>
      `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${HALVES[type] ?? type}>;`
    ),
    ...(fields === "" ? [] : ["@group(1) @binding(0) var<uniform> sizes: Sizes;"]),
  ];
  return `${comment}${lines.join("\n")}\n\n${rest}`;
}

/** A key that is the same for the same values, in whatever order an object names them. */
export function cacheKey(value: unknown): string {
  return JSON.stringify(
    value,
    (_, item) =>
      item && typeof item === "object" && !Array.isArray(item)
        ? Object.fromEntries(Object.entries(item).sort(([a], [b]) => a < b ? -1 : 1))
        : item,
  );
}
