/**
 * The kernels of attention and of its gradients, none of which puts the table of scores into
 * memory, from their templates.
 *
 * @module
 */

import attentionTemplate from "./attention.wgsl" with { type: "text" };
import subgroupWgsl from "./attention_subgroup.wgsl" with { type: "text" };
import workgroupWgsl from "./attention_workgroup.wgsl" with { type: "text" };
import type { Declaration, SizeType, Types } from "./declaration.ts";
import { DEPTH, sharedBytes } from "./matmul_tile.ts";
import special from "./special.wgsl" with { type: "text" };
import { expand } from "./template.ts";
import type { Variant } from "./variant.ts";

/**
 * What is summed over the columns j of the score matrix for each of its rows i, with scores `s =
 * scale · x · y` and weights `p`:
 *
 * - `forward`: `Σ p z`, softmax of the scores giving the weights; x is q, y is k, z is v. Also the
 *   logarithm of each row's sum of exponentials.
 * - `values`: `Σ p z`, the weights from that logarithm; x is k, y is q, z is the output's gradient:
 *   the gradient of v.
 * - `inputs`: `Σ scale p (w · z - δ) y`. With q as x, the output's gradient as w, k as y and v as z
 *   it is the gradient of q; with k as x, v as w, q as y and the output's gradient as z, that of k.
 *
 * The logarithm and δ, the sum of the output times its gradient, belong to queries: of `inputs`
 * these are the rows, or the columns. Source: Dao et al., arXiv 2205.14135, algorithms 1 and 4.
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
  /** Rows of the score matrix of an invocation, a multiple of 4. */
  readonly rows: number;
  /** Columns of the result of an invocation, a multiple of 4. */
  readonly cols: number;
  /**
   * Invocations of a workgroup along the columns of the score matrix, and along those of the
   * result.
   */
  readonly across: number;
  /** Invocations of a workgroup along the rows; in the variant `subgroup` 1. */
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
  const operands = [rows * down / 4, across, cols * across / 4].map(sharedBytes);
  return weights + operands.reduce((sum, bytes) => sum + bytes) + 4 * rows * down * across;
}

const TEMPLATES = { subgroup: subgroupWgsl, workgroup: workgroupWgsl } as const;

/** The WGSL of one of the sums, but for what {@linkcode attentionDeclaration} says. */
export function attentionWgsl(tile: AttentionTile): string {
  const { variant, sum, causal, rows, cols, across, down } = tile;
  const gradient = sum === "inputs";
  return expand(TEMPLATES[variant], {
    ...{ SUM: sum, ROWS: rows, COLS: cols, ACROSS: across, DOWN: down, CAUSAL: causal },
    ...{ FORWARD: sum === "forward", VALUES: sum === "values", GRADIENT: gradient },
    SPECIAL: special.trim(),
    OPERANDS: [...OPERANDS[sum], "out"],
    // Whose rows the weights multiply.
    BLOCK: gradient ? "y" : "z",
    ...(variant === "subgroup" && { ROUNDS: Math.ceil(rows / across) }),
    ...(variant === "workgroup" && {
      DEPTH,
      HEIGHT: rows * down / 4,
      WIDTH: cols * across / 4,
      ROW_OPERANDS: gradient ? ["x", "w"] : ["x"],
      COLUMN_OPERANDS: gradient ? ["y", "z"] : ["y"],
    }),
  }, { ATTENTION: attentionTemplate });
}

/** What a sum's WGSL names: its bindings and its sizes. */
export function attentionDeclaration({ variant, sum }: AttentionTile): Omit<Declaration, "flops"> {
  const all = <T extends string>(names: readonly string[], type: T): Types<T> =>
    Object.fromEntries(names.map((name) => [name, type]));
  const strides = [...OPERANDS[sum], "out"].flatMap((name) =>
    ["offset", "batch", "head", "row"].map((field) => `${name}_${field}`)
  );
  const statistics = { forward: [], values: ["logs"], inputs: ["logs", "deltas"] }[sum];
  const sizes: Types<SizeType> = {
    ...all(["rows", "columns", "heads", "width", "depth", "out_width", "tiles", "groups"], "u32"),
    // 1 if the rows are keys, and the columns queries.
    keys: "u32",
    scale: "f32",
    ...all(strides, "u32"),
  };
  return {
    inputs: { ...all(OPERANDS[sum], "vec4f"), ...all(statistics, "f32") },
    outputs: { out: "vec4f", ...(sum === "forward" && { logs: "f32" }) },
    sizes,
    subgroups: variant === "subgroup",
  };
}
