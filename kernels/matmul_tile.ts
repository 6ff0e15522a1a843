/**
 * The WGSL of a matrix product: the kernels that do most of a model's work.
 *
 * @module
 */

import functions from "./functions.wgsl" with { type: "text" };
import { half, half4, HALVES } from "./halves.ts";
import { evaluator } from "./pointwise.ts";
import type { Style } from "./style.ts";

/**
 * How an operand lies: in whole vec4 along the inner axis k, in whole vec4 along its outer axis (the rows of `a`, the
 * columns of `c`), or with any strides.
 */
export type Along = "inner" | "outer" | "any";

/** What a kernel is made for. */
export interface Tile {
  /** How invocations share what they load. */
  readonly style: Style;
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
  /** Invocations of a workgroup along the rows. In the style `subgroup` this or `across` is 1. */
  readonly down: number;
  /** Whether k is no multiple of 4. */
  readonly ragged: boolean;
  /** Whether the result's rows are whole vec4. */
  readonly quads: boolean;
  /** What becomes of the product before it is stored. */
  readonly epilogue: EpilogueCode;
}

/** The WGSL side of an epilogue: expressions, and the names of their operands. */
export interface EpilogueCode {
  /** What is stored: an expression of `x`, the product, and of the operands. */
  readonly expression: string;
  /** What is stored beside it, an expression of `x` and the vectors; nothing if null. */
  readonly kept: string | null;
  /** Operands `[n]`, which all rows have in common. */
  readonly vectors: readonly string[];
  /** Operands of the result's shape. */
  readonly matrices: readonly string[];
  /** Numbers. */
  readonly numbers: readonly string[];
  /** Whether a product of few terms is added first. */
  readonly low: boolean;
  /** What dropout's mask lies over, if anything. */
  readonly masked: "a" | "c" | "low" | null;
  /** Whether the mask is a part of a larger one. */
  readonly items: boolean;
}

/** Steps along k whose numbers a workgroup holds in its memory at a time. */
const DEPTH = 16;

const PARTS = "xyzw";
const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const each = (count: number, line: (i: number) => string) => range(count).map(line).join("\n");
const optional = (wanted: boolean, text: string) => wanted ? text : "";

/**
 * The WGSL of `out[b] = f(a[b] × c[b])`. Put together here, because a tile has up to 256 accumulators, each with a name
 * of its own: a software adapter keeps an array that a loop indexes in memory, at half the speed.
 *
 * For each step along k an invocation needs `rows + cols` numbers, and multiplies `rows · cols` times; loading is what
 * takes the time. In the style `lane` it loads all of them. In the style `subgroup` each lane loads a share of those that
 * its neighbours need too, and hands it around. In the style `workgroup` they fill workgroup memory together.
 */
export function tileWgsl(tile: Tile): string {
  const { style, rows, cols, across, down, epilogue } = tile;
  const [a, c] = [leftOf(tile), rightOf(tile)];
  const { expression, kept, vectors, matrices, numbers, low, masked } = epilogue;
  const subgroup = style === "subgroup";
  return /* wgsl */ `// out[b] = f(a[b] × c[b]), in tiles of ${rows * down} × ${cols * across}.
${functions}${HALVES}
struct Sizes {
  m: u32,
  n: u32,
  k: u32,
  part: u32,
  parts: u32,
  tiles_m: u32,
  tiles_n: u32,
  groups: u32,
  batches: u32,
  batch1: u32,
  batch2: u32,
${
    ["a", "c"].map((name) =>
      ["offset", "batch0", "batch1", "batch2", "outer", "inner"]
        .map((field) => `  ${name}_${field}: u32,`).join("\n")
    ).join("\n")
  }
${optional(low, "  rank: u32,\n  low_a_row: u32,\n  low_a_col: u32,\n  low_c_row: u32,\n  low_c_col: u32,")}
${optional(masked !== null, "  seed: u32,\n  stream: u32,\n  below: u32,\n  gain: f32,\n  item: u32,\n  pitch: u32,")}
${numbers.map((name) => `  ${name}_value: f32,`).join("\n")}
}
${
    bindingsOf(tile, [a, c]).map(({ name, access, type }, i) =>
      `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`
    ).join("\n")
  }
@group(1) @binding(0) var<uniform> sizes: Sizes;

${optional(masked !== null, maskOf(epilogue))}
${a.load}
${c.load}
${evaluator("value_", expression, floats(["x", ...vectors, ...matrices]), numbers)}
${optional(kept !== null, evaluator("kept_", kept!, floats(["x", ...vectors]), numbers))}
${optional(style === "workgroup", staging([a, c]))}

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
  let part = at / (sizes.tiles_m * sizes.tiles_n) % sizes.parts;
  let batch = at / (sizes.tiles_m * sizes.tiles_n) / sizes.parts;
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;
  let a_start = sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2;
  let c_start = sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2;
  let start = (part * sizes.batches + batch) * sizes.m * sizes.n;
  let first = part * sizes.part;
  let end = min(first + sizes.part, (sizes.k + 3u) / 4u);
  let row = tile / sizes.tiles_n * ${rows * down}u;
  let col = tile % sizes.tiles_n * ${cols * across}u;
  let x = ${subgroup ? "lane" : "index"} % ${across}u;
  let y = ${subgroup ? "lane" : "index"} / ${across}u;

  // Beyond the edge the last rows and columns are made again.
${each(rows, (i) => `  let r${i} = ${atEdge(a, `row + 4u * (y + ${(i >> 2) * down}u)`, i & 3)};`)}
${each(cols, (j) => `  let c${j} = ${atEdge(c, `col + 4u * (x + ${(j >> 2) * across}u)`, j & 3)};`)}
${each(rows, (i) => each(cols / 4, (j) => `  var s${i}_${j} = vec4f();`))}
${style === "workgroup" ? togetherWgsl(tile) : apartWgsl(tile, [a, c])}
${optional(low, lowWgsl(tile))}
${storesWgsl(tile)}
}
`;
}

const floats = (names: readonly string[]) => names.map((name) => `${name}: f32`);

/** What is bound, in order. */
function bindingsOf({ quads, epilogue }: Tile, operands: readonly Operand[]) {
  const { vectors, matrices, low, items, kept } = epilogue;
  const element = quads ? "vec4f" : "f32";
  const read = (name: string, type: string) => ({ name, access: "read", type });
  const written = (name: string) => ({ name, access: "read_write", type: element });
  return [
    ...operands.map(({ name, element }) => read(name, element)),
    ...[...vectors, ...matrices].map((name) => read(`${name}_in`, element)),
    ...(low ? [read("low_a", "f32"), read("low_c", "f32")] : []),
    ...(items ? [read("items", "u32")] : []),
    written("out"),
    ...(kept === null ? [] : [written("kept")]),
  ];
}

/** An operand of the product. */
interface Operand {
  readonly name: "a" | "c";
  readonly along: Along;
  /** What its binding is an array of. */
  readonly element: string;
  /** The number of its rows or columns in `sizes`. */
  readonly size: "m" | "n";
  /** How many vec4 of rows or columns a tile has. */
  readonly quads: number;
  /** How many rows or columns of it are an invocation's. */
  readonly count: number;
  /** Whether rows or columns come in whole fours, also at the edge. */
  readonly whole: boolean;
  /** WGSL of `load_a(base, k)`: four numbers along k, which counts fours; along the outer axis if they lie so, k counting ones. */
  readonly load: string;
}

function leftOf(tile: Tile): Operand {
  const { a: along, rows: count, down } = tile;
  const whole = along === "outer";
  return { name: "a", along, size: "m", quads: count * down / 4, count, whole, ...loadOf("a", along, false, tile) };
}

function rightOf(tile: Tile): Operand {
  const { c: along, cols: count, across, halves, quads: whole } = tile;
  return { name: "c", along, size: "n", quads: count * across / 4, count, whole, ...loadOf("c", along, halves, tile) };
}

function loadOf(
  name: "a" | "c",
  along: Along,
  halves: boolean,
  { ragged, epilogue }: Tile,
): Pick<Operand, "element" | "load"> {
  const masked = epilogue.masked === name;
  const known = (value: string, k: string, none: string) =>
    ragged ? `select(${none}, ${value}, ${k} < sizes.k)` : value;
  const quad = (at: string) => {
    const value = halves ? half4(name, at) : `${name}[${at}]`;
    return masked ? `${value} * kept4(4u * (${at}))` : value;
  };
  const one = (at: string) => {
    const value = halves ? half(name, at) : `${name}[${at}]`;
    return masked ? `${value} * kept1(${at})` : value;
  };
  const values = {
    inner: quad("base + k"),
    outer: known(quad(`base + k * (sizes.${name}_inner / 4u)`), "k", "vec4f()"),
    any: `vec4f(${
      range(4).map((l) => `4u * k + ${l}u`)
        .map((at) => known(one(`base + (${at}) * sizes.${name}_inner`), at, "0.0")).join(", ")
    })`,
  };
  const type = halves ? ["halves", "halves4"] : ["f32", "vec4f"];
  return {
    element: type[along === "any" ? 0 : 1],
    load: `fn load_${name}(base: u32, k: u32) -> vec4f {\n  return ${values[along]};\n}`,
  };
}

/** Dropout's mask at an element, by its place in the tensor; a part of a batch is placed in the whole of it. */
function maskOf({ items }: EpilogueCode): string {
  const place = items ? "items[i / sizes.item] * sizes.pitch + i % sizes.item" : "i";
  return `fn kept1(i: u32) -> f32 {
  return select(0.0, sizes.gain, hash3_(vec3u(${place}, sizes.stream, sizes.seed)).x >= sizes.below);
}
fn kept4(i: u32) -> vec4f {
  return vec4f(kept1(i), kept1(i + 1u), kept1(i + 2u), kept1(i + 3u));
}`;
}

/** Row or column `quad + h`, `quad` a multiple of 4; at the edge the last one. */
function atEdge({ whole, size }: Pick<Operand, "whole" | "size">, quad: string, h: number | string): string {
  return whole ? `min(${quad}, sizes.${size} - 4u) + ${h}u` : `min(${quad} + ${h}u, sizes.${size} - 1u)`;
}

/** Where the loads of a row or column begin. */
function baseOf({ name, along }: Operand, at: string): string {
  return {
    inner: `(${name}_start + (${at}) * sizes.${name}_outer) / 4u`,
    outer: `(${name}_start + ${at}) / 4u`,
    any: `${name}_start + (${at}) * sizes.${name}_outer`,
  }[along];
}

/** What the loads of an operand give: a vec4 along k of a row or column, or one of four along k for four of them. */
function fragmentsOf({ name, along, count }: Operand) {
  const index = name === "a" ? "r" : "c";
  return range(count).map((f) => {
    if (along !== "outer") return { value: `${name}_${f}`, at: `${index}${f}`, l: 0 };
    const [l, quad] = [Math.floor(f / (count / 4)), f % (count / 4)];
    return { value: `${name}${l}_${quad}`, at: `${index}${4 * quad}`, l };
  });
}

/** Four steps along k, `s += a · c`, that touch each accumulator once. */
function multiplyAdd({ rows, cols }: Tile, a: Along, c: Along): string {
  const ofA = (i: number, l: number) =>
    a === "outer" ? `a${l}_${i >> 2}.${PARTS[i & 3]}` : `a_${i}.${PARTS[l]}`;
  const ofC = (j: number, l: number) =>
    c === "outer" ? `c${l}_${j}` : `vec4f(${range(4).map((h) => `c_${4 * j + h}.${PARTS[l]}`).join(", ")})`;
  return each(cols / 4, (j) =>
    each(4, (l) => `    let y${l}_${j} = ${ofC(j, l)};`) + "\n" +
    each(rows, (i) => {
      const s = `s${i}_${j}`;
      return `    ${s} = ${range(4).reduce((sum, l) => `fma(vec4f(${ofA(i, l)}), y${l}_${j}, ${sum})`, s)};`;
    }));
}

/** Invocations, or subgroups, that load what they need by themselves. */
function apartWgsl(tile: Tile, operands: readonly [Operand, Operand]): string {
  const lanes = tile.across * tile.down;
  // The lanes lie along the columns, and need the same of `a`; or along the rows, and need the same of `c`.
  const common = tile.style !== "subgroup" ? null : tile.across > 1 ? "a" : "c";
  const loads = operands.map((operand) => operand.name === common ? handedAround(operand, lanes) : loadedBy(operand));
  return `${loads.map(({ before }) => before).join("\n")}
  for (var k = first; k < end; k++) {
${loads.map(({ within }) => within).join("\n")}
${multiplyAdd(tile, tile.a, tile.c)}
  }`;
}

/** WGSL before and within the loop along k. */
interface Loads {
  readonly before: string;
  readonly within: string;
}

/** Each invocation loads all that it needs of an operand. */
function loadedBy(operand: Operand): Loads {
  const { name, along } = operand;
  const fragments = fragmentsOf(operand);
  return {
    before: fragments.filter(({ l }) => l === 0)
      .map(({ at }) => `  let ${name}_${at} = ${baseOf(operand, at)};`).join("\n"),
    within: fragments.map(({ value, at, l }) => {
      const k = along === "outer" ? `4u * k + ${l}u` : "k";
      return `    let ${value} = load_${name}(${name}_${at}, ${k});`;
    }).join("\n"),
  };
}

/** Each lane loads its share of what they all need of an operand: the i-th lane the i-th fragment of each round. */
function handedAround(operand: Operand, lanes: number): Loads {
  const { name, along, count } = operand;
  const rounds = Math.ceil(count / lanes);
  const corner = name === "a" ? "row" : "col";
  const before = each(rounds, (round) => {
    const f = `f_${name}${round}`;
    const at = along === "outer"
      ? atEdge(operand, `${corner} + 4u * (${f} % ${count / 4}u)`, 0)
      : operand.whole
      ? `min(${corner} + ${f} / 4u * 4u, sizes.${operand.size} - 4u) + ${f} % 4u`
      : `min(${corner} + ${f}, sizes.${operand.size} - 1u)`;
    return `  let ${f} = (lane + ${round * lanes}u) % ${count}u;\n  let b_${name}${round} = ${baseOf(operand, at)};`;
  });
  const within = each(rounds, (round) => {
    const k = along === "outer" ? `4u * k + f_${name}${round} / ${count / 4}u` : "k";
    return `    let mine_${name}${round} = load_${name}(b_${name}${round}, ${k});`;
  }) + "\n" +
    fragmentsOf(operand).map(({ value }, f) =>
      `    let ${value} = subgroupBroadcast(mine_${name}${Math.floor(f / lanes)}, ${f % lanes}u);`
    ).join("\n");
  return { before, within };
}

/** Invocations that fill workgroup memory together. */
function togetherWgsl(tile: Tile): string {
  const { across, down } = tile;
  const sides = [leftOf(tile), rightOf(tile)].map(({ name, quads, count }) => ({
    fill: `
    for (var u = index; u < ${quads * DEPTH / 4}u; u += ${across * down}u) {
      stage_${name}(u, ${name}_start, ${name === "a" ? "row" : "col"}, k, end);
    }`,
    take: each(4, (l) =>
      each(count / 4, (q) => {
        const quad = name === "a" ? `y + ${q * down}u` : `x + ${q * across}u`;
        return `      let ${name}${l}_${q} = ${name}_tile[(step + ${l}u) * ${quads + 1}u + ${quad}];`;
      })),
  }));
  return `
  for (var k = first; k < end; k += ${DEPTH / 4}u) {
    workgroupBarrier();${sides.map(({ fill }) => fill).join("")}
    workgroupBarrier();
    for (var step = 0u; step < ${DEPTH}u; step += 4u) {
${sides.map(({ take }) => take).join("\n")}
${multiplyAdd(tile, "outer", "outer")}
    }
  }`;
}

/**
 * Workgroup memory for some steps along k, in vec4 along the outer axes, and the functions that fill it, 4 × 4 numbers a
 * call. Its rows are a vec4 longer than what they hold: the lanes that fill it would else meet in the same banks.
 */
function staging(operands: readonly Operand[]): string {
  return operands.map((operand) => {
    const { name, along, quads } = operand;
    // Neighbouring lanes read along the axis that lies in vec4.
    const [step, quad] = along === "outer"
      ? [`u / ${quads}u`, `u % ${quads}u`]
      : [`u % ${DEPTH / 4}u`, `u / ${DEPTH / 4}u`];
    const load = (h: number, k: string) =>
      `select(vec4f(), load_${name}(${baseOf(operand, atEdge(operand, "quad", h))}, ${k}), k + step < end)`;
    const values = along === "outer"
      ? each(4, (l) => `  let v${l} = ${load(0, `4u * (k + step) + ${l}u`)};`)
      : each(4, (h) => `  let w${h} = ${load(h, "k + step")};`) + "\n" +
        each(4, (l) => `  let v${l} = vec4f(${range(4).map((h) => `w${h}.${PARTS[l]}`).join(", ")});`);
    return `
var<workgroup> ${name}_tile: array<vec4f, ${DEPTH * (quads + 1)}>;

fn stage_${name}(u: u32, ${name}_start: u32, corner: u32, k: u32, end: u32) {
  let step = ${step};
  let quad = corner + 4u * (${quad});
${values}
${each(4, (l) => `  ${name}_tile[(4u * step + ${l}u) * ${quads + 1}u + ${quad}] = v${l};`)}
}`;
  }).join("\n");
}

/** The product of few terms, loaded as it is needed. */
function lowWgsl({ rows, cols, epilogue: { masked } }: Tile): string {
  const dropped = masked === "low";
  const sum = (i: number, j: number) => `${dropped ? "d" : "s"}${i}_${j}`;
  const all = (line: (i: number, j: number) => string) => each(rows, (i) => each(cols / 4, (j) => line(i, j)));
  const place = (i: number, j: number, h: number) => `start + r${i} * sizes.n + c${4 * j + h}`;
  return `${optional(dropped, all((i, j) => `  var d${i}_${j} = vec4f();`))}
  for (var r = 0u; r < sizes.rank; r++) {
${
    each(cols / 4, (j) =>
      `    let low${j} = vec4f(${
        range(4).map((h) => `low_c[c${4 * j + h} * sizes.low_c_row + r * sizes.low_c_col]`).join(", ")
      });`)
  }
${
    each(rows, (i) =>
      `    let t${i} = vec4f(low_a[r${i} * sizes.low_a_row + r * sizes.low_a_col]);\n` +
      each(cols / 4, (j) => `    ${sum(i, j)} = fma(t${i}, low${j}, ${sum(i, j)});`))
  }
  }
${
    optional(dropped, all((i, j) =>
      `  s${i}_${j} += d${i}_${j} * vec4f(${range(4).map((h) => `kept1(${place(i, j, h)})`).join(", ")});`))
  }`;
}

/** Stores the results, four at a time where the rows are whole vec4. */
function storesWgsl({ style, rows, cols, across, down, quads, epilogue }: Tile): string {
  const { expression, kept, vectors, matrices } = epilogue;
  const call = (fn: string, operands: readonly string[]) =>
    quads
      ? `vec4f(${
        range(4).map((h) => `${fn}(${operands.map((operand) => `${operand}.${PARTS[h]}`).join(", ")})`).join(", ")
      })`
      : `${fn}(${operands.join(", ")})`;
  const store = (i: number, j: number, h: number) => {
    const column = `c${4 * j + h}`;
    const value = quads ? `s${i}_${j}` : `s${i}_${j}.${PARTS[h]}`;
    const by = quads ? " / 4u" : "";
    const operands = [value, ...vectors.map((name) => `${name}_in[${column}${by}]`), ...matrices.map((name) => `${name}_in[p]`)];
    const names = operands.map((_, at) => `o${at}`);
    const plain = expression === "x";
    return `  {
    let p = (start + r${i} * sizes.n + ${column})${by};
${optional(!plain, operands.map((operand, at) => `    let o${at} = ${operand};`).join("\n"))}
${optional(kept !== null, `    kept[p] = ${call("kept_", names.slice(0, 1 + vectors.length))};`)}
    out[p] = ${plain ? value : call("value_", names)};
  }`;
  };
  return each(rows, (i) =>
    each(cols / 4, (j) => {
      const spots = each(quads ? 1 : 4, (h) => store(i, j, h));
      if (style !== "workgroup") return spots;
      // What a GPU stores twice, it waits for twice.
      const inside = `row + 4u * (y + ${(i >> 2) * down}u) + ${i & 3}u < sizes.m && col + 4u * (x + ${j * across}u) < sizes.n`;
      return `  if (${inside}) {\n${spots}\n  }`;
    }));
}
