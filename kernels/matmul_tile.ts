/**
 * Matrix products in register tiles: the kernels that do most of a model's work.
 *
 * @module
 */

import { half, half4, HALVES } from "./halves.ts";

/**
 * How the operands of `a × c` lie: in whole vec4 along an axis each, so that a load gives four elements, or with any
 * strides. A `c` along k is a transpose.
 */
export type Layout =
  | "a along k, c along k"
  | "a along k, c along n"
  | "a along m, c along n"
  | "any strides";

/** One of the kernels. */
export interface Tile {
  /** How the operands lie. */
  readonly layout: Layout;
  /** Rows of the result that an invocation makes; a multiple of 4 unless strides are any. */
  readonly rows: number;
  /** Columns of the result that an invocation makes; a multiple of 4 unless strides are any. */
  readonly cols: number;
  /** Whether `c` is stored in half precision. */
  readonly halves: boolean;
}

const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const lines = (count: number, line: (i: number) => string) => range(count).map(line).join("\n");

/**
 * The WGSL of `out[b] = a[b] × c[b]`, put together here because a tile has up to 64 accumulators, each with a name of
 * its own: a software adapter keeps an array that a loop indexes in memory, at half the speed. At each step along k an
 * invocation loads `rows + cols` elements for `rows · cols` products; such an adapter is bound by the loads.
 */
export function tileWgsl(tile: Tile): string {
  const { layout, rows, cols, halves } = tile;
  const { starts, loop, stores } = (layout === "any strides" ? anyStrides : quads)(tile);
  const type = layout === "any strides" ? ["f32", "halves"] : ["vec4f", "halves4"];
  return /* wgsl */ `// out[b] = a[b] × c[b], ${layout}; an invocation makes ${rows} rows of ${cols} columns.
${HALVES}override LANES_X: u32;
override LANES_Y: u32;

struct Sizes {
  m: u32,
  n: u32,
  k: u32,
  tiles_m: u32,
  tiles_n: u32,
  groups: u32,
  batch1: u32,
  batch2: u32,
  a_offset: u32,
  a_batch0: u32,
  a_batch1: u32,
  a_batch2: u32,
  a_row: u32,
  a_col: u32,
  c_offset: u32,
  c_batch0: u32,
  c_batch1: u32,
  c_batch2: u32,
  c_row: u32,
  c_col: u32,
}
@group(0) @binding(0) var<storage, read> a: array<${type[0]}>;
@group(0) @binding(1) var<storage, read> c: array<${type[Number(halves)]}>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let at = group.y * groups.x + group.x;
  if (at >= sizes.groups) {
    return;
  }
  let batch = at / (sizes.tiles_m * sizes.tiles_n);
  let row = (at / sizes.tiles_n % sizes.tiles_m * LANES_Y + lane.y) * ${rows}u;
  let col = at % sizes.tiles_n * LANES_X * ${cols}u + lane.x${
    layout === "any strides" ? "" : ` * ${cols}u`
  };
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;
  let a_start = sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2;
  let c_start = sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2;
  let start = batch * sizes.m * sizes.n;

  // Past the ragged edge the last rows and columns are read again, and not stored.
${starts}
${loop}
${stores}
}
`;
}

/** The parts of a kernel's source that depend on how it loads and stores. */
interface Parts {
  readonly starts: string;
  readonly loop: string;
  readonly stores: string;
}

/** Four elements a load, eight lanes side by side. */
function quads({ layout, rows, cols, halves }: Tile): Parts {
  const c = (at: string) => halves ? half4("c", at) : `c[${at}]`;
  const [rowQuads, colQuads] = [rows / 4, cols / 4];
  const starts = [
    layout === "a along m, c along n"
      ? lines(rowQuads, (i) => `  let a${i} = (a_start + min(row + ${4 * i}u, sizes.m - 4u)) / 4u;`)
      : lines(
        rows,
        (i) => `  let a${i} = (a_start + min(row + ${i}u, sizes.m - 1u) * sizes.a_row) / 4u;`,
      ),
    layout === "a along k, c along k"
      ? lines(
        cols,
        (j) => `  let c${j} = (c_start + min(col + ${j}u, sizes.n - 1u) * sizes.c_col) / 4u;`,
      )
      : lines(
        colQuads,
        (j) => `  let c${j} = (c_start + min(col + ${4 * j}u, sizes.n - 4u)) / 4u;`,
      ),
    lines(rows, (i) => lines(colQuads, (j) => `  var s${i}_${j} = vec4f();`)),
  ].join("\n");
  const stores = lines(rows, (i) =>
    `  if (row + ${i}u < sizes.m) {\n` +
    lines(colQuads, (j) =>
      lines(4, (l) => {
        const at = `${4 * j + l}u`;
        return `    if (col + ${at} < sizes.n) {\n` +
          `      out[start + (row + ${i}u) * sizes.n + col + ${at}] = s${i}_${j}.${
            "xyzw"[l]
          };\n    }`;
      })) +
    "\n  }");
  return { starts, loop: LOOPS[layout as keyof typeof LOOPS](rows, cols, c), stores };
}

type Loop = (rows: number, cols: number, c: (at: string) => string) => string;

const LOOPS: Record<Exclude<Layout, "any strides">, Loop> = {
  "a along k, c along k": (rows, cols, c) => `
  for (var k = 0u; k < sizes.k / 4u; k++) {
${lines(rows, (i) => `    let x${i} = a[a${i} + k];`)}
${
    lines(cols / 4, (j) =>
      lines(4, (l) => `    let y${4 * j + l} = ${c(`c${4 * j + l} + k`)};`) +
      "\n" +
      lines(rows, (i) => {
        const dots = range(4).map((l) => `dot(x${i}, y${4 * j + l})`).join(", ");
        return `    s${i}_${j} += vec4f(${dots});`;
      }))
  }
  }`,
  "a along k, c along n": (rows, cols, c) => `
  let step = sizes.c_row / 4u;
  for (var k = 0u; k < sizes.k / 4u; k++) {
${lines(rows, (i) => `    let x${i} = a[a${i} + k];`)}
${
    lines(4, (l) =>
      `    let at${l} = (k * 4u + ${l}u) * step;\n` +
      lines(cols / 4, (j) =>
        `    let y${l}_${j} = ${c(`c${j} + at${l}`)};\n` +
        lines(rows, (i) => `    s${i}_${j} += x${i}.${"xyzw"[l]} * y${l}_${j};`)))
  }
  }`,
  "a along m, c along n": (rows, cols, c) => `
  let a_step = sizes.a_col / 4u;
  let step = sizes.c_row / 4u;
  for (var k = 0u; k < sizes.k; k++) {
${lines(rows / 4, (i) => `    let x${i} = a[a${i} + k * a_step];`)}
${
    lines(cols / 4, (j) =>
      `    let y${j} = ${c(`c${j} + k * step`)};\n` +
      lines(rows, (i) => `    s${i}_${j} += x${Math.floor(i / 4)}.${"xyzw"[i % 4]} * y${j};`))
  }
  }`,
};

/** An element a load; neighbouring lanes make neighbouring columns, so that what they load lies together. */
function anyStrides({ rows, cols, halves }: Tile): Parts {
  const c = (at: string) => halves ? half("c", at) : `c[${at}]`;
  const column = (j: number) => `col + ${j}u * LANES_X`;
  return {
    starts: [
      lines(rows, (i) => `  let a${i} = a_start + min(row + ${i}u, sizes.m - 1u) * sizes.a_row;`),
      lines(cols, (j) => `  let c${j} = c_start + min(${column(j)}, sizes.n - 1u) * sizes.c_col;`),
      lines(rows, (i) => lines(cols, (j) => `  var s${i}_${j} = 0.0;`)),
    ].join("\n"),
    loop: `
  for (var k = 0u; k < sizes.k; k++) {
    let at_a = k * sizes.a_col;
    let at_c = k * sizes.c_row;
${lines(rows, (i) => `    let x${i} = a[a${i} + at_a];`)}
${
      lines(cols, (j) =>
        `    let y${j} = ${c(`c${j} + at_c`)};\n` +
        lines(rows, (i) => `    s${i}_${j} += x${i} * y${j};`))
    }
  }`,
    stores: lines(rows, (i) =>
      `  if (row + ${i}u < sizes.m) {\n` +
      lines(cols, (j) =>
        `    if (${column(j)} < sizes.n) {\n` +
        `      out[start + (row + ${i}u) * sizes.n + ${column(j)}] = s${i}_${j};\n    }`) +
      "\n  }"),
  };
}
