/**
 * The one generated kernel: a WGSL expression, evaluated at every position of a shape.
 *
 * @module
 */

import { broadcastStrides, collapse, type Shape } from "../tensor/shape.ts";
import { type Dtype, Tensor } from "../tensor/tensor.ts";
import functions from "./functions.wgsl" with { type: "text" };
import { half, HALVES } from "./halves.ts";
import { Kernel, spread } from "./kernel.ts";

/** What an expression may name. */
export type Operands = Readonly<Record<string, Tensor | number | bigint>>;

const LANES = 64;
const cache = new Map<string, Kernel>();

/**
 * Evaluates `expression` at every position of `shape`, with the tensors among `operands` broadcast to it, halves as
 * f32; numbers are f32 scalars and bigints u32 ones, which compile nothing anew when they change. `i` is the position's
 * number.
 */
export function pointwise(
  expression: string,
  operands: Operands,
  shape: Shape,
  dtype: Dtype = "f32",
): Tensor {
  const out = Tensor.empty(shape, dtype);
  try {
    pointwiseInto(out, expression, operands);
  } catch (error) {
    out.release();
    throw error;
  }
  return out;
}

/** As {@linkcode pointwise}, into a tensor or a view that exists already. It must not be among the operands. */
export function pointwiseInto(out: Tensor, expression: string, operands: Operands): void {
  if (out.dtype === "f16") {
    throw new TypeError(`Cannot compute f16 [${out.shape}]: halves only store what is frozen`);
  }
  const names = Object.keys(operands);
  const tensors = names.filter((name) => typeof operands[name] === "object");
  const inputs = tensors.map((name) => operands[name] as Tensor);
  const { shape, strides } = collapse(out.shape, [
    ...inputs.map((input) => broadcastStrides(input.shape, input.strides, out.shape)),
    out.strides,
  ]);
  const scalars = names.filter((name) => !tensors.includes(name))
    .map((name) => `${name}_value: ${typeof operands[name] === "bigint" ? "u32" : "f32"}`);
  const key = [
    expression,
    shape.length,
    ...tensors.map((name, i) => `${name} ${inputs[i].dtype}`),
    ...scalars,
    out.dtype,
  ].join();
  let kernel = cache.get(key);
  if (!kernel) {
    cache.set(
      key,
      kernel = generate(expression, shape.length, tensors, inputs, scalars, out.dtype),
    );
  }

  const sizes: Record<string, number> = { count: out.size };
  shape.forEach((size, axis) => sizes[`size${axis}`] = size);
  [...tensors, "out"].forEach((name, k) => {
    sizes[`${name}_offset`] = (inputs[k] ?? out).offset;
    strides[k].forEach((stride, axis) => sizes[`${name}_stride${axis}`] = stride);
  });
  for (const name of names) {
    if (typeof operands[name] !== "object") sizes[`${name}_value`] = Number(operands[name]);
  }
  kernel.run(inputs, [out], sizes, spread(Math.ceil(out.size / LANES)));
}

/** What an expression counts as: its operators and calls, each as one, but not the making of vectors. */
function operations(expression: string): number {
  const found = expression
    .replaceAll(/\b(?:\d+\.\d*|\d+)(?:e[-+]?\d+)?u?\b/g, "1")
    .replaceAll(/\b(?:vec\du?|f32|u32|i32|bool)\(/g, "(")
    .match(/[<>=!]=|<<|>>|[-+*\/%<>^&|]|\w+\(/g);
  return found?.length ?? 0;
}

function generate(
  expression: string,
  rank: number,
  tensors: readonly string[],
  inputs: readonly Tensor[],
  scalars: readonly string[],
  dtype: Dtype,
): Kernel {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const strided = [...tensors, "out"];
  const index = (name: string) =>
    [`sizes.${name}_offset`, ...axes.map((axis) => `at${axis} * sizes.${name}_stride${axis}`)].join(
      " + ",
    );
  const isHalf = (i: number) => inputs[i].dtype === "f16";
  const wgsl = /* wgsl */ `${functions}${HALVES}
struct Sizes {
  count: u32,
${axes.map((axis) => `  size${axis}: u32,`).join("\n")}
${strided.map((name) => `  ${name}_offset: u32,`).join("\n")}
${strided.flatMap((name) => axes.map((axis) => `  ${name}_stride${axis}: u32,`)).join("\n")}
${scalars.map((scalar) => `  ${scalar},`).join("\n")}
}
${
    tensors.map((name, i) =>
      `@group(0) @binding(${i}) var<storage, read> ${name}_in: array<${
        isHalf(i) ? "halves" : inputs[i].dtype
      }>;`
    ).join("\n")
  }
@group(0) @binding(${tensors.length}) var<storage, read_write> out: array<${dtype}>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(${LANES})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * ${LANES}u + id.x;
  if (i >= sizes.count) {
    return;
  }
${
    axes.toReversed().map((axis, k) =>
      axis === 0
        ? `  let at0 = ${k === 0 ? "i" : `rest${axis + 1}`};`
        : `  let at${axis} = ${k === 0 ? "i" : `rest${axis + 1}`} % sizes.size${axis};\n` +
          `  let rest${axis} = ${k === 0 ? "i" : `rest${axis + 1}`} / sizes.size${axis};`
    ).join("\n")
  }
${
    tensors.map((name, i) =>
      isHalf(i)
        ? `  let ${name} = ${half(`${name}_in`, index(name))};`
        : `  let ${name} = ${name}_in[${index(name)}];`
    ).join("\n")
  }
${
    scalars.map((scalar) => scalar.split("_value")[0])
      .map((name) => `  let ${name} = sizes.${name}_value;`).join("\n")
  }
  out[${index("out")}] = ${expression};
}
`;
  const each = operations(expression);
  return new Kernel(`pointwise "${expression}"`, wgsl, { flops: ({ count }) => each * count });
}
