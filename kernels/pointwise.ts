/**
 * The one generated kernel: a WGSL expression, evaluated at every position of a shape.
 *
 * @module
 */

import { perEngine } from "../tensor/engine.ts";
import { broadcastStrides, collapse, type Shape } from "../tensor/shape.ts";
import { type Dtype, Tensor } from "../tensor/tensor.ts";
import functions from "./functions.wgsl" with { type: "text" };
import { half, half4, HALVES } from "./halves.ts";
import { Kernel, type Sizes, spread, u32s } from "./kernel.ts";
import special from "./special.wgsl" with { type: "text" };

/** What an expression may name. */
export type Operands = Readonly<Record<string, Tensor | number | bigint>>;

/** WGSL of the functions that an expression may call. */
export const FUNCTIONS: string = special + functions;

const LANES = 64;
const kernels = perEngine(() => new Map<string, Kernel>());

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
  const dtypes = inputs.map(({ dtype }) => dtype);
  const quads = inQuads(shape, strides, [...inputs, out]);
  const key = [expression, shape.length, names, dtypes, scalars, out.dtype, quads].join();
  const cache = kernels();
  let kernel = cache.get(key);
  if (!kernel) {
    const parts = { expression, rank: shape.length, tensors, dtypes, scalars, quads };
    cache.set(key, kernel = generate(parts, out.dtype));
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
  const invocations = quads ? out.size / 4 : out.size;
  kernel.run(inputs, [out], sizes, spread(Math.ceil(invocations / LANES)));
}

/**
 * Which tensors, the result last, are read or written in vec4, if an invocation can make four neighbours: those that lie
 * along the last axis, while more repeat one element there. Null if it cannot. That is three times as fast: four
 * elements share a load, and the divisions that find their index.
 */
function inQuads(
  shape: Shape,
  strides: readonly Shape[],
  tensors: readonly Tensor[],
): readonly boolean[] | null {
  if (shape.length === 0 || shape.at(-1)! % 4 !== 0) return null;
  const along = strides.map((steps, k) =>
    steps.at(-1) === 1 && [tensors[k].offset, ...steps.slice(0, -1)].every((step) => step % 4 === 0)
  );
  const fits = along.every((inQuads, k) => inQuads || strides[k].at(-1) === 0);
  return fits && along.at(-1) ? along : null;
}

/** What an expression counts as: its operators and calls, each as one, but not the making of vectors. */
export function operations(expression: string): number {
  const operators = expression
    .replaceAll(/\b(?:\d+\.\d*|\d+)(?:e[-+]?\d+)?u?\b/g, "1")
    .replaceAll(/\b(?:vec\du?|f32|u32|i32|bool)\(/g, "(")
    .match(/[<>=!]=|<<|>>|[-+*\/%<>^&|]|\w+\(/g);
  return operators?.length ?? 0;
}

/** What a generated kernel is made of. */
interface Parts {
  readonly expression: string;
  readonly rank: number;
  readonly tensors: readonly string[];
  readonly dtypes: readonly Dtype[];
  readonly scalars: readonly string[];
  readonly quads: readonly boolean[] | null;
}

const VEC4 = { f32: "vec4f", u32: "vec4u", i32: "vec4i", f16: "halves4" } as const;
const SCALAR = { f32: "f32", u32: "u32", i32: "i32", f16: "halves" } as const;

function generate(
  { expression, rank, tensors, dtypes, scalars, quads }: Parts,
  dtype: Dtype,
): Kernel {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  const strided = [...tensors, "out"];
  const step = quads ? 4 : 1;
  const index = (name: string) =>
    [`sizes.${name}_offset`, ...axes.map((axis) => `at${axis} * sizes.${name}_stride${axis}`)]
      .join(" + ");
  const element = (k: number, type: Dtype) => (quads?.[k] ? VEC4 : SCALAR)[type];
  const load = (name: string, k: number) => {
    const at = index(name);
    if (!quads?.[k]) return dtypes[k] === "f16" ? half(`${name}_in`, at) : `${name}_in[${at}]`;
    return dtypes[k] === "f16" ? half4(`${name}_in`, `(${at}) / 4u`) : `${name}_in[(${at}) / 4u]`;
  };
  const values = (component: string) =>
    [`i${component && ` + ${"xyzw".indexOf(component[1])}u`}`]
      .concat(tensors.map((name, k) => quads?.[k] ? name + component : name)).join(", ");
  // Positions along the last axis count in steps of an invocation.
  const split = axes.toReversed().map((axis, k) => {
    const rest = k === 0 ? "position" : `rest${axis + 1}`;
    const size = k === 0 && quads ? `(sizes.size${axis} / 4u)` : `sizes.size${axis}`;
    const times = k === 0 && quads ? " * 4u" : "";
    return axis === 0
      ? `  let at0 = ${rest}${times};`
      : `  let at${axis} = ${rest} % ${size}${times};\n  let rest${axis} = ${rest} / ${size};`;
  });
  const parameters = tensors.map((name, k) =>
    `${name}: ${dtypes[k] === "f16" ? "f32" : dtypes[k]}`
  );
  const wgsl = /* wgsl */ `${FUNCTIONS}${HALVES}
${
    tensors.map((name, k) =>
      `@group(0) @binding(${k}) var<storage, read> ${name}_in: array<${element(k, dtypes[k])}>;`
    ).join("\n")
  }
@group(0) @binding(${tensors.length}) var<storage, read_write> out: array<${
    element(tensors.length, dtype)
  }>;
${
    evaluator(
      "evaluate_",
      expression,
      ["i: u32", ...parameters],
      scalars.map((scalar) => scalar.split("_value")[0]),
      dtype,
    )
  }

@compute @workgroup_size(${LANES})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let position = id.y * groups.x * ${LANES}u + id.x;
  let i = position * ${step}u;
  if (i >= sizes.count) {
    return;
  }
${split.join("\n")}
${tensors.map((name, k) => `  let ${name} = ${load(name, k)};`).join("\n")}
${
    quads
      ? `  out[(${index("out")}) / 4u] = ${VEC4[dtype]}(${
        [".x", ".y", ".z", ".w"].map((component) => `evaluate_(${values(component)})`).join(", ")
      });`
      : `  out[${index("out")}] = evaluate_(${values("")});`
  }
}
`;
  const each = operations(expression);
  const sizes = {
    ...u32s("count", ...axes.map((axis) => `size${axis}`)),
    ...u32s(...strided.map((name) => `${name}_offset`)),
    ...u32s(...strided.flatMap((name) => axes.map((axis) => `${name}_stride${axis}`))),
    ...Object.fromEntries(scalars.map((scalar) => scalar.split(": "))),
  };
  const work = { flops: ({ count }: Sizes) => each * count };
  return new Kernel(`pointwise "${expression}"`, wgsl, sizes, work);
}

/** A WGSL function of an expression over `parameters` and the numbers that `sizes` has a `_value` of. */
export function evaluator(
  name: string,
  expression: string,
  parameters: readonly string[],
  numbers: readonly string[],
  type = "f32",
): string {
  return `fn ${name}(${parameters.join(", ")}) -> ${type} {
${numbers.map((number) => `  let ${number} = sizes.${number}_value;`).join("\n")}
  return ${expression};
}`;
}
