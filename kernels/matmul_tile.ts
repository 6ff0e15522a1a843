/**
 * The kernels of a matrix product, which do most of a model's work, from their templates.
 *
 * A tile has up to 256 accumulators. For each step along the inner axis an invocation needs as many
 * numbers as its tile has rows and columns, and multiplies as often as it has elements: loading is
 * what takes the time.
 *
 * @module
 */

import type { Declaration, SizeType, Types } from "./declaration.ts";
import { half, half4 } from "./halves.ts";
import matmulWgsl from "./matmul.wgsl" with { type: "text" };
import lowRankWgsl from "./matmul_low_rank.wgsl" with { type: "text" };
import perLaneWgsl from "./matmul_per_lane.wgsl" with { type: "text" };
import storeWgsl from "./matmul_store.wgsl" with { type: "text" };
import subgroupWgsl from "./matmul_subgroup.wgsl" with { type: "text" };
import workgroupWgsl from "./matmul_workgroup.wgsl" with { type: "text" };
import { evaluator, FUNCTIONS } from "./pointwise.ts";
import { expand } from "./template.ts";
import type { Variant } from "./variant.ts";

/** How an operand lies in memory. */
export type Layout =
  /** In complete vec4 along the inner axis. */
  | "inner"
  /**
   * In complete vec4 along its outer axis: the rows of the left operand, the columns of the right
   * one.
   */
  | "outer"
  /** With any strides. */
  | "any";

/** What a kernel is made for. */
export interface MatmulTile {
  /** How invocations share what they load. */
  readonly variant: Variant;
  /** How `a` lies. */
  readonly a: Layout;
  /** How `c` lies. */
  readonly c: Layout;
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
  /** Whether the inner axis is no multiple of 4. */
  readonly ragged: boolean;
  /** Whether the result's rows are complete vec4. */
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
  /** Whether the mask is cut out of a larger batch's. */
  readonly items: boolean;
}

/** Steps along the inner axis whose numbers a workgroup holds in its memory at a time. */
export const DEPTH = 16;

/** Bytes of workgroup memory for an operand of so many vec4 of rows or columns. */
export const sharedBytes = (quads: number): number => 16 * DEPTH * (quads + 1);

const TEMPLATES: Readonly<Record<Variant, string>> = {
  perLane: perLaneWgsl,
  subgroup: subgroupWgsl,
  workgroup: workgroupWgsl,
};

/** The WGSL of `out[b] = f(a[b] × c[b])`, but for what {@linkcode matmulDeclaration} says. */
export function matmulTileWgsl(tile: MatmulTile): string {
  const { variant, rows, cols, across, down, ragged, quads, epilogue } = tile;
  const { expression, saved, vectors, matrices, masked, items, lowRank } = epilogue;
  const lanes = across * down;
  const sharesA = across > 1;
  const call = callOf(quads);
  return expand(TEMPLATES[variant], {
    ...{ ROWS: rows, COLS: cols, ACROSS: across, DOWN: down, RAGGED: ragged, QUADS: quads },
    ...operandValues("a", tile.a, false, masked),
    ...operandValues("c", tile.c, tile.halves, masked),
    ...(variant === "subgroup" && {
      SHARES_A: sharesA,
      LANES: lanes,
      ROUNDS: Math.ceil((sharesA ? rows : cols) / lanes),
    }),
    ...(variant === "workgroup" && {
      DEPTH,
      A_QUADS: rows * down / 4,
      C_QUADS: cols * across / 4,
    }),
    GUARDED: variant === "workgroup",
    EPILOGUE: epilogueWgsl(epilogue),
    MASKED: masked !== null,
    ITEMS: items,
    LOW_RANK: lowRank,
    CHANGE_MASKED: masked === "lowRank",
    RESULT: quads ? "vec4f" : "f32",
    VECTORS: vectors,
    MATRICES: matrices,
    SAVES: saved !== null,
    SAVED: call("saved_", ["x", ...vectors]),
    VALUE: expression === "x" ? "x" : call("value_", ["x", ...vectors, ...matrices]),
  }, { MATMUL: matmulWgsl, LOW_RANK: lowRankWgsl, STORE: storeWgsl });
}

/** The cases and the reads of an operand. */
function operandValues(
  name: "a" | "c",
  layout: Layout,
  halves: boolean,
  masked: EpilogueCode["masked"],
) {
  const single = layout === "any";
  const value = !halves ? `${name}[at]` : single ? half(name, "at") : half4(name, "at");
  const mask = masked !== name ? "" : single ? " * mask1(at)" : " * mask4(4u * at)";
  const prefix = name.toUpperCase();
  return {
    [`${prefix}_INNER`]: layout === "inner",
    [`${prefix}_OUTER`]: layout === "outer",
    [`${prefix}_ANY`]: single,
    [`${prefix}_TYPE`]: single ? "f32" : "vec4f",
    [`${prefix}_VALUE`]: value + mask,
  };
}

/** The functions of an epilogue's expressions. */
function epilogueWgsl(
  { expression, saved, vectors, matrices, numbers, masked }: EpilogueCode,
): string {
  const floats = (names: readonly string[]) => names.map((name) => `${name}: f32`);
  return [
    ...(expression !== "x" || masked !== null ? [FUNCTIONS.trim()] : []),
    ...(expression !== "x"
      ? [evaluator("value_", expression, floats(["x", ...vectors, ...matrices]), numbers)]
      : []),
    ...(saved !== null ? [evaluator("saved_", saved, floats(["x", ...vectors]), numbers)] : []),
  ].join("\n\n");
}

/** WGSL that calls a function of scalars, with a scalar's operands or for each element of vec4. */
function callOf(quads: boolean): (name: string, operands: readonly string[]) => string {
  return (name, operands) => {
    if (!quads) return `${name}(${operands.join(", ")})`;
    const calls = [..."xyzw"].map((element) =>
      `${name}(${operands.map((operand) => `${operand}.${element}`).join(", ")})`
    );
    return `vec4f(\n    ${calls.join(",\n    ")},\n  )`;
  };
}

/** What a product's WGSL names: its bindings and its sizes. */
export function matmulDeclaration(
  { variant, a, c, halves, quads, epilogue }: MatmulTile,
): Omit<Declaration, "flops"> {
  const { vectors, matrices, numbers, lowRank, masked, items, saved } = epilogue;
  const element = quads ? "vec4f" : "f32";
  const all = <T extends string>(names: readonly string[], type: T): Types<T> =>
    Object.fromEntries(names.map((name) => [name, type]));
  const sizes: Types<SizeType> = {
    ...all(["m", "n", "k", "chunk", "chunks", "tiles_m", "tiles_n", "groups"], "u32"),
    ...all(["batches", "batch1", "batch2"], "u32"),
    ...all(
      ["a", "c"].flatMap((name) =>
        ["offset", "batch0", "batch1", "batch2", "outer", "inner"].map((field) =>
          `${name}_${field}`
        )
      ),
      "u32",
    ),
    ...(lowRank && all(
      ["rank", "low_rank_a_row", "low_rank_a_col", "low_rank_c_row", "low_rank_c_col"],
      "u32",
    )),
    ...(masked && {
      ...all(["seed", "stream", "below"], "u32"),
      gain: "f32",
      ...all(["item", "pitch"], "u32"),
    }),
    ...all(numbers.map((name) => `${name}_value`), "f32"),
  };
  return {
    inputs: {
      a: a === "any" ? "f32" : "vec4f",
      c: halves ? (c === "any" ? "halves" : "halves4") : c === "any" ? "f32" : "vec4f",
      ...all([...vectors, ...matrices].map((name) => `${name}_in`), element),
      ...(lowRank && { low_rank_a: "f32", low_rank_c: "f32" }),
      ...(items && { items: "u32" }),
    },
    outputs: { out: element, ...(saved !== null && { saved: element }) },
    sizes,
    subgroups: variant === "subgroup",
  };
}
