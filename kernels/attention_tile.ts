/**
 * The WGSL of attention and of its gradients, none of which puts the table of scores into memory.
 *
 * @module
 */

import { type SizeTypes, u32s } from "./kernel.ts";
import special from "./special.wgsl" with { type: "text" };
import type { Variant } from "./variant.ts";
import {
  apartWgsl,
  directLoads,
  each,
  multiplyAdd,
  type Operand,
  optional,
  PARTS,
  range,
  type Staging,
  stagingBytes,
  stagingMemory,
  subgroupBroadcastLoads,
  togetherWgsl,
  workgroupStagedLoads,
} from "./tile.ts";

/**
 * What is summed over the columns j of the score matrix for each of its rows i, with scores `s = scale · x · y` and weights `p`:
 *
 * - `forward`: `Σ p z`, softmax of the scores giving the weights; x is q, y is k, z is v. Also the logarithm of each
 *   row's sum of exponentials.
 * - `values`: `Σ p z`, the weights from that logarithm; x is k, y is q, z is the output's gradient: the gradient of v.
 * - `inputs`: `Σ scale p (w · z - δ) y`. With q as x, the output's gradient as w, k as y and v as z it is the gradient of
 *   q; with k as x, v as w, q as y and the output's gradient as z, that of k.
 *
 * The logarithm and δ, the sum of the output times its gradient, belong to queries: of `inputs` these are the rows,
 * or the columns. Source: Dao et al., arXiv 2205.14135, algorithms 1 and 4.
 */
export type Sum = "forward" | "values" | "inputs";

/** What a kernel is made for. */
export interface AttentionTile {
  /** How invocations share what they load. */
  readonly variant: Exclude<Variant, "perLane">;
  /** What is summed. */
  readonly sum: Sum;
  /** Whether a query sees only the keys up to its number. */
  readonly causal: boolean;
  /** Rows of an invocation, a multiple of 4. */
  readonly rows: number;
  /** Columns of the result of an invocation, a multiple of 4. */
  readonly cols: number;
  /** Invocations of a workgroup along the columns of the score matrix, and along the columns of the result. */
  readonly across: number;
  /** Invocations of a workgroup along rows; in the variant `subgroup` 1. */
  readonly down: number;
}

/** Columns whose scores an invocation makes in a step: a vec4. */
const STEP = 4;

/** The operands of each sum. */
export const OPERANDS: Readonly<Record<Sum, readonly ("x" | "w" | "y" | "z")[]>> = {
  forward: ["x", "y", "z"],
  values: ["x", "y", "z"],
  inputs: ["x", "w", "y", "z"],
};

/** Bytes of workgroup memory that a kernel takes. */
export function memoryOf({ variant, rows, cols, across, down }: AttentionTile): number {
  const weights = rows * down * STEP * across * 4;
  if (variant === "subgroup") return weights;
  const bytes = [rows * down / 4, across, cols * across / 4].map(stagingBytes);
  return weights + bytes.reduce((sum, each) => sum + each) + 4 * rows * down * across;
}

/**
 * The WGSL of one of the sums. A workgroup takes some rows of the score matrix, and goes over its columns in blocks: it makes the
 * block's scores, a product; turns them into weights, which go to workgroup memory; and adds the weights' product with
 * the block to the result.
 */
export function attentionWgsl(tile: AttentionTile): string {
  const { variant, sum, causal, rows, cols, across, down } = tile;
  const forward = sum === "forward";
  const gradient = sum === "inputs";
  const source = gradient ? "y" : "z";
  const block = STEP * across;
  const quads = range(cols / 4);
  const all = (line: (i: number) => string) => each(rows, line);
  const statistics = forward ? [] : gradient ? ["logs", "deltas"] : ["logs"];
  const bindings = [
    ...OPERANDS[sum].map((name) => ({ name, access: "read", type: "vec4f" })),
    ...statistics.map((name) => ({ name, access: "read", type: "f32" })),
    { name: "out", access: "read_write", type: "vec4f" },
    ...(forward ? [{ name: "logs", access: "read_write", type: "f32" }] : []),
  ];
  const operands = [...OPERANDS[sum], "out"];
  const products = productsOf(tile, source);
  // The lanes of a software adapter's register go on together, and what one has stored all can load; a barrier
  // there costs as much as a third of all the rest.
  const barrier = variant === "workgroup" ? "    workgroupBarrier();" : "";
  const tops = acrossRow(tile, "max", (i) => `max(max(e${i}.x, e${i}.y), max(e${i}.z, e${i}.w))`);
  const totals = acrossRow(tile, "add", (i) => `total${i}`);
  const tileEnd = `min(first + ${rows * down}u, sizes.rows)`;
  return /* wgsl */ `// ${sum} of attention: ${
    rows * down
  } rows of a workgroup, ${block} columns at a time.
${special}
${
    bindings.map(({ name, access, type }, i) =>
      `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`
    ).join("\n")
  }
const LOWEST = -3.402823466e38; // no finite score is lower

// A statistic of the rows, or of the columns, if those are the queries; else there is none, and this is 0.
fn of_rows(x: f32) -> f32 {
  return select(x, 0.0, sizes.keys == 1u);
}
fn of_columns(x: f32) -> f32 {
  return select(0.0, x, sizes.keys == 1u);
}

var<workgroup> weights: array<vec4f, ${rows * down * across}>;
${optional(variant === "workgroup", `var<workgroup> shares: array<f32, ${rows * down * across}>;`)}
${products.declarations}

@compute @workgroup_size(${across * down})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
  ${optional(variant === "subgroup", "@builtin(subgroup_invocation_id) lane: u32,")}
) {
  let at = min(group.y * groups.x + group.x, sizes.groups - 1u);
  let batch = at / sizes.tiles;
  let first = at % sizes.tiles * ${rows * down}u;
  let right = ${variant === "subgroup" ? "lane" : `index % ${across}u`};
  let below = ${variant === "subgroup" ? "0u" : `index / ${across}u`};
${
    operands.map((name) =>
      `  let ${name}_start = sizes.${name}_offset + batch / sizes.heads * sizes.${name}_batch + batch % sizes.heads * sizes.${name}_head;`
    ).join("\n")
  }
${all((i) => `  let r${i} = min(first + ${localRow(tile, i)}, sizes.rows - 1u);`)}
${
    quads.map((q) => `  let d${4 * q} = min(4u * (right + ${q * across}u), sizes.cols - 4u);`).join(
      "\n",
    )
  }
${
    optional(
      gradient,
      all((i) =>
        `  let log${i} = of_rows(logs[batch * sizes.rows + r${i}]);\n  let delta${i} = of_rows(deltas[batch * sizes.rows + r${i}]);`
      ),
    )
  }
${optional(forward, all((i) => `  var most${i} = LOWEST;\n  var total${i} = 0.0;`))}
${all((i) => quads.map((q) => `  var o${i}_${q} = vec4f();`).join("\n"))}
${
    // Queries see keys up to themselves, and keys are seen by queries from themselves on.
    causal
      ? `  let start = select(0u, first / ${block}u * ${block}u, sizes.keys == 1u);
  let limit = select(min(sizes.columns, ${tileEnd}), sizes.columns, sizes.keys == 1u);`
      : "  let start = 0u;\n  let limit = sizes.columns;"}
  for (var j = start; j < limit; j += ${block}u) {
    let other = vec4u(j + ${STEP}u * right) + vec4u(0u, 1u, 2u, 3u);
${each(STEP, (h) => `    let c${h} = min(other.${PARTS[h]}, sizes.columns - 1u);`)}
${all((i) => `    var s${i} = vec4f();`)}
${products.scores}
${optional(gradient, all((i) => `    var t${i} = vec4f();`) + products.weightGradients)}
${optional(!forward, ofColumns("log", "logs"))}
${optional(gradient, ofColumns("delta", "deltas"))}
    let known = other < vec4u(sizes.columns);
${
    all((i) => {
      const order = `select(other <= vec4u(r${i}), other >= vec4u(r${i}), sizes.keys == 1u)`;
      const seen = causal ? `known & ${order}` : "known";
      const score = `s${i} * sizes.scale`;
      // What is not seen has no weight at all: no score is so small that another could not be smaller.
      return `    let seen${i} = ${seen};
    let e${i} = ${forward ? `select(vec4f(LOWEST), ${score}, seen${i})` : score};`;
    })
  }
${
    forward
      ? tops.before + "\n" + all((i) =>
        `    let top${i} = max(most${i}, ${tops.value(i)});
    let fade${i} = exp(most${i} - top${i});
    most${i} = top${i};
    let p${i} = select(vec4f(), exp(e${i} - top${i}), seen${i});
    total${i} = total${i} * fade${i} + dot(p${i}, vec4f(1.0));
${quads.map((q) => `    o${i}_${q} *= fade${i};`).join("\n")}`
      )
      : all((i) => {
        const weight = gradient
          ? `sizes.scale * exp(e${i} - (log${i} + log)) * (t${i} - (delta${i} + delta))`
          : `exp4_(e${i} - log)`;
        return `    let p${i} = select(vec4f(), ${weight}, seen${i});`;
      })
  }
${barrier}
${all((i) => `    weights[(${localRow(tile, i)}) * ${across}u + right] = p${i};`)}
${barrier}
${products.sums}
  }
${
    optional(
      forward,
      totals.before + "\n" + all((i) => `  let sum${i} = total_(${totals.value(i)});`),
    )
  }
${
    all((i) => {
      const stores = quads.map((q) =>
        `  out[(out_start + r${i} * sizes.out_row + d${4 * q}) / 4u] = o${i}_${q}${
          forward ? ` / sum${i}` : ""
        };`
      ).concat(
        forward ? [`  logs[batch * sizes.rows + r${i}] = most${i} + log_(sum${i});`] : [],
      ).join("\n");
      return variant === "workgroup"
        ? `  if (first + ${localRow(tile, i)} < sizes.rows) {\n${stores}\n  }`
        : stores;
    })
  }
}
`;
}

/** The sizes of a sum; `keys` is 1 if the rows of the score matrix are keys. */
export function attentionSizes(sum: Sum): SizeTypes {
  const operands = [...OPERANDS[sum], "out"];
  return {
    ...u32s("rows", "columns", "heads", "width", "depth", "cols", "tiles", "groups", "keys"),
    scale: "f32",
    ...u32s(
      ...operands.flatMap((name) =>
        ["offset", "batch", "head", "row"].map((field) => `${name}_${field}`)
      ),
    ),
  };
}

/** The number in the workgroup of an invocation's i-th row. */
function localRow({ down }: AttentionTile, i: number): string {
  return `4u * (below + ${(i >> 2) * down}u) + ${i & 3}u`;
}

/** What the columns of a step have of a statistic. */
function ofColumns(name: string, array: string): string {
  const values = range(STEP).map((h) => `of_columns(${array}[batch * sizes.columns + c${h}])`);
  return `    let ${name} = vec4f(${values.join(", ")});`;
}

/** Joins what the invocations of a row have of it. */
function acrossRow(
  tile: AttentionTile,
  how: "max" | "add",
  share: (i: number) => string,
): { before: string; value: (i: number) => string } {
  const { variant, rows, across } = tile;
  const all = (line: (i: number) => string) => each(rows, line);
  if (variant === "subgroup") {
    const builtin = how === "max" ? "subgroupMax" : "subgroupAdd";
    return {
      before: all((i) => `    let ${how}${i} = ${builtin}(${share(i)});`),
      value: (i) => `${how}${i}`,
    };
  }
  const join = (a: string, b: string) => how === "max" ? `max(${a}, ${b})` : `(${a} + ${b})`;
  return {
    before: `    workgroupBarrier();
${all((i) => `    shares[(${localRow(tile, i)}) * ${across}u + right] = ${share(i)};`)}
    workgroupBarrier();
${
      all((i) =>
        `    let ${how}${i} = ${
          range(across).map((x) => `shares[(${localRow(tile, i)}) * ${across}u + ${x}u]`).reduce(
            join,
          )
        };`
      )
    }`,
    value: (i) => `${how}${i}`,
  };
}

/** WGSL of the three products: the scores, the output's gradient times the values, and the weights times the block. */
function productsOf(tile: AttentionTile, source: "y" | "z") {
  const { variant, rows, cols, across, down } = tile;
  const rowsOf = (name: string): Operand => ({
    name,
    along: "inner",
    count: rows,
    index: (f) => `r${f}`,
    nth: (f) => `min(first + ${f}, sizes.rows - 1u)`,
    base: (at) => `(${name}_start + (${at}) * sizes.${name}_row) / 4u`,
    load: (base, k) => `${name}[${base} + ${k}]`,
  });
  const columnsOf = (name: string): Operand => ({
    ...rowsOf(name),
    count: STEP,
    index: (f) => `c${f}`,
    nth: (f) => `min(j + ${f}, sizes.columns - 1u)`,
  });
  const blockOf: Operand = {
    name: "b",
    along: "outer",
    count: cols,
    index: (f) => `d${f}`,
    nth: (f) => `min(${f}, sizes.cols - 4u)`,
    base: (at) => `(${source}_start + ${at}) / 4u`,
    load: (base, k) =>
      `${source}[${base} + min(j + ${k}, sizes.columns - 1u) * (sizes.${source}_row / 4u)]`,
  };
  const weights: Operand = {
    name: "p",
    along: "inner",
    count: rows,
    index: (f) => localRow(tile, f),
    nth: (f) => f,
    base: (at) => `(${at}) * ${across}u`,
    load: (base, k) => `weights[${base} + ${k}]`,
  };
  const [x, w, y, z] = [rowsOf("x"), rowsOf("w"), columnsOf("y"), columnsOf("z")];
  const one = (name: string) => (i: number) => `${name}${i}`;
  const summed = (i: number, q: number) => `o${i}_${q}`;
  if (variant === "subgroup") {
    const product = (a: Operand, c: Operand, end: string, to: (i: number, q: number) => string) =>
      apartWgsl(
        [subgroupBroadcastLoads(a, across), directLoads(c)],
        "0u",
        end,
        multiplyAdd(a, c, to, true),
      );
    return {
      declarations: "",
      scores: product(x, y, "sizes.width", one("s")),
      weightGradients: product(w, z, "sizes.depth", one("t")),
      sums: product(weights, blockOf, `${across}u`, summed),
    };
  }
  const threads = across * down;
  const [height, width] = [rows * down / 4, cols * across / 4];
  const side = (
    operand: Operand,
    memory: string,
    quads: number,
    index: (q: number) => string,
    end: string,
  ) =>
    workgroupStagedLoads(operand, {
      memory,
      quads,
      threads,
      slot: index,
      end,
      scope: scopeOf(operand, source),
    });
  const left = (operand: Operand, end: string) =>
    side(operand, "left_tile", height, (q) => `below + ${q * down}u`, end);
  const right = (operand: Operand, end: string) =>
    side(operand, "right_tile", across, () => "right", end);
  const outer = (operand: Operand) => ({ ...operand, along: "outer" as const });
  const [xs, ws, ys, zs] = [
    ...[left(x, "sizes.width"), left(w, "sizes.depth")],
    ...[right(y, "sizes.width"), right(z, "sizes.depth")],
  ];
  const block = side(blockOf, "block_tile", width, (q) => `right + ${q * across}u`, `${across}u`);
  // The weights are in workgroup memory already.
  const taken: Staging = {
    declarations: "",
    fill: "",
    take: each(
      rows,
      (i) => `      let p_${i} = weights[(${localRow(tile, i)}) * ${across}u + k + step / 4u];`,
    ),
  };
  const sides = tile.sum === "inputs" ? [xs, ys, ws, zs, block] : [xs, ys, block];
  return {
    declarations: [
      stagingMemory("left_tile", height),
      stagingMemory("right_tile", across),
      stagingMemory("block_tile", width),
      ...sides.map(({ declarations }) => declarations),
    ].join("\n"),
    scores: togetherWgsl(
      [xs, ys],
      "0u",
      "sizes.width",
      multiplyAdd(outer(x), outer(y), one("s"), false),
    ),
    weightGradients: togetherWgsl(
      [ws, zs],
      "0u",
      "sizes.depth",
      multiplyAdd(outer(w), outer(z), one("t"), false),
    ),
    sums: togetherWgsl(
      [taken, block],
      "0u",
      `${across}u`,
      multiplyAdd(weights, blockOf, summed, false),
    ),
  };
}

/** The variables that an operand's loads name. */
function scopeOf({ name }: Operand, source: string): string[] {
  return {
    x: ["x_start", "first"],
    w: ["w_start", "first"],
    y: ["y_start", "j"],
    z: ["z_start", "j"],
  }[name] ??
    [`${source}_start`, "j"];
}
