/**
 * The WGSL of a matrix product: the kernels that do most of a model's work.
 *
 * @module
 */

import { half, half4, HALVES } from "./halves.ts";
import { type SizeTypes, u32s } from "./kernel.ts";
import { evaluator, FUNCTIONS } from "./pointwise.ts";
import type { Variant } from "./variant.ts";
import {
  type Along,
  apartWgsl,
  directLoads,
  each,
  multiplyAdd,
  type Operand,
  optional,
  PARTS,
  range,
  stagingMemory,
  subgroupBroadcastLoads,
  togetherWgsl,
  workgroupStagedLoads,
} from "./tile.ts";

/** What a kernel is made for. */
export interface Tile {
  /** How invocations share what they load. */
  readonly variant: Variant;
  /** How `a` lies. */
  readonly a: Along;
  /** How `c` lies. */
  readonly c: Along;
  /** Whether `c` is stored in half precision. */
  readonly halves: boolean;
  /** Rows of the result that an invocation makes, a multiple of 4. */
  readonly rows: number;
  /** Columns of the result that an invocation makes, a multiple of 4. */
  readonly cols: number;
  /** Invocations of a workgroup along the columns. */
  readonly across: number;
  /** Invocations of a workgroup along the rows. In the variant `subgroup` this or `across` is 1. */
  readonly down: number;
  /** Whether k is no multiple of 4. */
  readonly ragged: boolean;
  /** Whether the result's rows are full vec4. */
  readonly quads: boolean;
  /** What becomes of the product before it is stored. */
  readonly epilogue: EpilogueCode;
}

/** The WGSL side of an epilogue: expressions, and the names of their operands. */
export interface EpilogueCode {
  /** What is stored: an expression of `x`, the product, and of the operands. */
  readonly expression: string;
  /** What is stored beside it, an expression of `x` and the vectors; nothing if null. */
  readonly saved: string | null;
  /** Operands `[n]`, which all rows have in common. */
  readonly vectors: readonly string[];
  /** Operands of the result's shape. */
  readonly matrices: readonly string[];
  /** Numbers. */
  readonly numbers: readonly string[];
  /** Whether a product of few terms is added first. */
  readonly lowRank: boolean;
  /** What dropout's mask lies over, if anything. */
  readonly masked: "a" | "c" | "lowRank" | null;
  /** Whether the mask is a section of a larger one. */
  readonly items: boolean;
}

/**
 * The WGSL of `out[b] = f(a[b] × c[b])`. In the variant `perLane` each invocation loads all that it needs; in the variant
 * `subgroup` the lanes lie along the columns and share the rows of `a`, or along the rows and share the columns of `c`; in
 * the variant `workgroup` all invocations share.
 */
export function tileWgsl(tile: Tile): string {
  const { variant, rows, cols, across, down, epilogue } = tile;
  const [a, c] = [leftOf(tile), rightOf(tile)];
  const product = productOf(tile, a, c);
  const { expression, saved, vectors, matrices, numbers, lowRank, masked } = epilogue;
  const subgroup = variant === "subgroup";
  return /* wgsl */ `// out[b] = f(a[b] × c[b]), in tiles of ${rows * down} × ${cols * across}.
${optional(expression !== "x" || masked !== null, FUNCTIONS)}${HALVES}
${
    bindingsOf(tile, [a, c]).map(({ name, access, type }, i) =>
      `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`
    ).join("\n")
  }
${optional(masked !== null, maskOf(epilogue))}
${a.loader}
${c.loader}
${evaluator("value_", expression, floats(["x", ...vectors, ...matrices]), numbers)}
${optional(saved !== null, evaluator("saved_", saved!, floats(["x", ...vectors]), numbers))}
${product.declarations}

@compute @workgroup_size(${across * down})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
  ${optional(subgroup, "@builtin(subgroup_invocation_id) lane: u32,")}
) {
  // Beyond the last tile it is made again: a branch here would make every load slow on a software adapter.
  let at = min(group.y * groups.x + group.x, sizes.groups - 1u);
  let tile = at % (sizes.tiles_m * sizes.tiles_n);
  let chunk = at / (sizes.tiles_m * sizes.tiles_n) % sizes.chunks;
  let batch = at / (sizes.tiles_m * sizes.tiles_n) / sizes.chunks;
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;
  let a_start = sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2;
  let c_start = sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2;
  let start = (chunk * sizes.batches + batch) * sizes.m * sizes.n;
  let first = chunk * sizes.chunk;
  let end = min(first + sizes.chunk, (sizes.k + 3u) / 4u);
  // Down the columns first: a tile of a processor has more of them than rows, and they stay in its cache that way.
  let row = tile % sizes.tiles_m * ${rows * down}u;
  let col = tile / sizes.tiles_m * ${cols * across}u;
  let x = ${subgroup ? "lane" : "index"} % ${across}u;
  let y = ${subgroup ? "lane" : "index"} / ${across}u;

  // Beyond the boundary the last rows and columns are made again.
${each(rows, (i) => `  let r${i} = ${a.nth(`(4u * (y + ${(i >> 2) * down}u) + ${i & 3}u)`)};`)}
${each(cols, (j) => `  let c${j} = ${c.nth(`(4u * (x + ${(j >> 2) * across}u) + ${j & 3}u)`)};`)}
${each(rows, (i) => each(cols / 4, (j) => `  var s${i}_${j} = vec4f();`))}
${product.loop}
${optional(lowRank, lowWgsl(tile))}
${storesWgsl(tile)}
}
`;
}

/** The sizes of a product. */
export function tileSizes({ lowRank, masked, numbers }: EpilogueCode): SizeTypes {
  const strides = ["offset", "batch0", "batch1", "batch2", "outer", "inner"];
  return {
    ...u32s("m", "n", "k", "chunk", "chunks", "tiles_m", "tiles_n", "groups"),
    ...u32s("batches", "batch1", "batch2"),
    ...u32s(...["a", "c"].flatMap((name) => strides.map((field) => `${name}_${field}`))),
    ...(lowRank ? u32s("rank", "low_a_row", "low_a_col", "low_c_row", "low_c_col") : {}),
    ...(masked === null
      ? {}
      : { ...u32s("seed", "stream", "below"), gain: "f32", ...u32s("item", "pitch") }),
    ...Object.fromEntries(numbers.map((name) => [`${name}_value`, "f32"])),
  };
}

const floats = (names: readonly string[]) => names.map((name) => `${name}: f32`);

/** What is bound, in order. */
function bindingsOf({ quads, epilogue }: Tile, operands: readonly Bound[]) {
  const { vectors, matrices, lowRank, items, saved } = epilogue;
  const element = quads ? "vec4f" : "f32";
  const read = (name: string, type: string) => ({ name, access: "read", type });
  const written = (name: string) => ({ name, access: "read_write", type: element });
  return [
    ...operands.map(({ name, element }) => read(name, element)),
    ...[...vectors, ...matrices].map((name) => read(`${name}_in`, element)),
    ...(lowRank ? [read("low_a", "f32"), read("low_c", "f32")] : []),
    ...(items ? [read("items", "u32")] : []),
    written("out"),
    ...(saved === null ? [] : [written("saved")]),
  ];
}

/** An operand, and the WGSL of its binding. */
interface Bound extends Operand {
  readonly name: "a" | "c";
  /** What its binding is an array of. */
  readonly element: string;
  /** A function that does its loads. */
  readonly loader: string;
}

function leftOf(tile: Tile): Bound {
  const { a: along, rows: count } = tile;
  return {
    count,
    index: (f) => `r${f}`,
    nth: boundary("row", "m", along === "outer"),
    ...bound("a", along, false, tile),
  };
}

function rightOf(tile: Tile): Bound {
  const { c: along, cols: count, halves, quads } = tile;
  return {
    count,
    index: (f) => `c${f}`,
    nth: boundary("col", "n", quads),
    ...bound("c", along, halves, tile),
  };
}

/** A tile's f-th row or column from `corner` on; at the boundary the last one, or where they come in fours, of the last four. */
function boundary(corner: string, size: string, inFours: boolean): (f: string) => string {
  return (f) =>
    inFours
      ? `min(${corner} + ${f} / 4u * 4u, sizes.${size} - 4u) + ${f} % 4u`
      : `min(${corner} + ${f}, sizes.${size} - 1u)`;
}

function bound(
  name: "a" | "c",
  along: Along,
  halves: boolean,
  { ragged, epilogue }: Tile,
): Pick<Bound, "name" | "along" | "element" | "loader" | "base" | "load"> {
  const masked = epilogue.masked === name;
  const known = (value: string, k: string, none: string) =>
    ragged ? `select(${none}, ${value}, ${k} < sizes.k)` : value;
  const quad = (at: string) => {
    const value = halves ? half4(name, at) : `${name}[${at}]`;
    return masked ? `${value} * masked4(4u * (${at}))` : value;
  };
  const one = (at: string) => {
    const value = halves ? half(name, at) : `${name}[${at}]`;
    return masked ? `${value} * masked1(${at})` : value;
  };
  const values = {
    inner: quad("base + k"),
    outer: known(quad(`base + k * (sizes.${name}_inner / 4u)`), "k", "vec4f()"),
    any: `vec4f(${
      range(4).map((l) => `4u * k + ${l}u`)
        .map((at) => known(one(`base + (${at}) * sizes.${name}_inner`), at, "0.0")).join(", ")
    })`,
  };
  const bases = {
    inner: (at: string) => `(${name}_start + (${at}) * sizes.${name}_outer) / 4u`,
    outer: (at: string) => `(${name}_start + ${at}) / 4u`,
    any: (at: string) => `${name}_start + (${at}) * sizes.${name}_outer`,
  };
  const type = halves ? ["halves", "halves4"] : ["f32", "vec4f"];
  return {
    name,
    along,
    element: type[along === "any" ? 0 : 1],
    loader: `fn load_${name}(base: u32, k: u32) -> vec4f {\n  return ${values[along]};\n}`,
    base: bases[along],
    load: (base, k) => `load_${name}(${base}, ${k})`,
  };
}

/** WGSL of the product itself: a loop, and what it needs outside of `main`. */
function productOf(tile: Tile, a: Bound, c: Bound): { declarations: string; loop: string } {
  const { variant, rows, cols, across, down } = tile;
  const sum = (i: number, j: number) => `s${i}_${j}`;
  if (variant !== "workgroup") {
    const common = variant === "perLane" ? null : across > 1 ? a : c;
    const loads = [a, c].map((side) =>
      side === common ? subgroupBroadcastLoads(side, across * down) : directLoads(side)
    );
    return {
      declarations: "",
      loop: apartWgsl(loads, "first", "end", multiplyAdd(a, c, sum, true)),
    };
  }
  const threads = across * down;
  const quads = [rows * down / 4, cols * across / 4];
  const sides = [
    workgroupStagedLoads(a, {
      memory: "a_tile",
      quads: quads[0],
      threads,
      slot: (q) => `y + ${q * down}u`,
      end: "end",
      scope: ["a_start", "row"],
    }),
    workgroupStagedLoads(c, {
      memory: "c_tile",
      quads: quads[1],
      threads,
      slot: (q) => `x + ${q * across}u`,
      end: "end",
      scope: ["c_start", "col"],
    }),
  ];
  const [left, right] = [a, c].map((side) => ({ ...side, along: "outer" as const }));
  return {
    declarations: [
      ...["a_tile", "c_tile"].map((memory, i) => stagingMemory(memory, quads[i])),
      ...sides.map(({ declarations }) => declarations),
    ].join("\n"),
    loop: togetherWgsl(sides, "first", "end", multiplyAdd(left, right, sum, false)),
  };
}

/** Dropout's mask at an element, by its index in the tensor; a chunk of a batch is placed in the whole of it. */
function maskOf({ items }: EpilogueCode): string {
  const position = items ? "items[i / sizes.item] * sizes.pitch + i % sizes.item" : "i";
  return `fn masked1(i: u32) -> f32 {
  return select(0.0, sizes.gain, hash3_(vec3u(${position}, sizes.stream, sizes.seed)).x >= sizes.below);
}
fn masked4(i: u32) -> vec4f {
  return vec4f(masked1(i), masked1(i + 1u), masked1(i + 2u), masked1(i + 3u));
}`;
}

/** The product of few terms, loaded as it is needed. */
function lowWgsl({ rows, cols, epilogue: { masked } }: Tile): string {
  const dropped = masked === "lowRank";
  const sum = (i: number, j: number) => `${dropped ? "d" : "s"}${i}_${j}`;
  const all = (line: (i: number, j: number) => string) =>
    each(rows, (i) => each(cols / 4, (j) => line(i, j)));
  const position = (i: number, j: number, h: number) => `start + r${i} * sizes.n + c${4 * j + h}`;
  return `${optional(dropped, all((i, j) => `  var d${i}_${j} = vec4f();`))}
  for (var r = 0u; r < sizes.rank; r++) {
${
    each(cols / 4, (j) =>
      `    let lowRank${j} = vec4f(${
        range(4).map((h) =>
          `low_c[c${4 * j + h} * sizes.low_c_row + r * sizes.low_c_col]`
        ).join(", ")
      });`)
  }
${
    each(rows, (i) =>
      `    let t${i} = vec4f(low_a[r${i} * sizes.low_a_row + r * sizes.low_a_col]);\n` +
      each(cols / 4, (j) =>
        `    ${sum(i, j)} = fma(t${i}, lowRank${j}, ${sum(i, j)});`))
  }
  }
${
    optional(
      dropped,
      all((i, j) =>
        `  s${i}_${j} += d${i}_${j} * vec4f(${
          range(4).map((h) => `masked1(${position(i, j, h)})`).join(", ")
        });`
      ),
    )
  }`;
}

/** Stores the results, four at a time where the rows are full vec4. */
function storesWgsl({ variant, rows, cols, across, down, quads, epilogue }: Tile): string {
  const { expression, saved, vectors, matrices } = epilogue;
  const call = (fn: string, operands: readonly string[]) =>
    quads
      ? `vec4f(${
        range(4).map((h) =>
          `${fn}(${operands.map((operand) => `${operand}.${PARTS[h]}`).join(", ")})`
        ).join(", ")
      })`
      : `${fn}(${operands.join(", ")})`;
  const store = (i: number, j: number, h: number) => {
    const column = `c${4 * j + h}`;
    const value = quads ? `s${i}_${j}` : `s${i}_${j}.${PARTS[h]}`;
    const by = quads ? " / 4u" : "";
    const operands = [
      value,
      ...vectors.map((name) => `${name}_in[${column}${by}]`),
      ...matrices.map((name) => `${name}_in[p]`),
    ];
    const names = operands.map((_, at) => `o${at}`);
    const plain = expression === "x";
    return `  {
    let p = (start + r${i} * sizes.n + ${column})${by};
${optional(!plain, operands.map((operand, at) => `    let o${at} = ${operand};`).join("\n"))}
${optional(saved !== null, `    saved[p] = ${call("saved_", names.slice(0, 1 + vectors.length))};`)}
    out[p] = ${plain ? value : call("value_", names)};
  }`;
  };
  return each(rows, (i) =>
    each(cols / 4, (j) => {
      const spots = each(quads ? 1 : 4, (h) => store(i, j, h));
      if (variant !== "workgroup") return spots;
      // What a GPU stores twice, it waits for twice.
      const inside = `row + 4u * (y + ${(i >> 2) * down}u) + ${
        i & 3
      }u < sizes.m && col + 4u * (x + ${j * across}u) < sizes.n`;
      return `  if (${inside}) {\n${spots}\n  }`;
    }));
}
