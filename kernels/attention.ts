/**
 * Attention in one pass over keys and values, and its gradients, each in another pass.
 *
 * @module
 */

import { gpu, lanes } from "../tensor/device.ts";
import { perEngine } from "../tensor/engine.ts";
import { numel } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import {
  attentionDeclaration,
  type AttentionTile,
  attentionWgsl,
  memoryOf,
  OPERANDS,
  type Sum,
} from "./attention_tile.ts";
import { cacheKey, type KernelWork, type Sizes } from "./declaration.ts";
import { Kernel, spread } from "./kernel.ts";
import rowDotWgsl from "./row_dot.wgsl" with { type: "text" };
import { pinnedTile, variant } from "./variant.ts";

/** How attention weighs. */
export interface Weighing {
  /** Whether a query sees only the keys up to its number. */
  readonly causal: boolean;
  /** The factor of the scores. */
  readonly scale: number;
}

/**
 * What attention and its gradients read; all `[batch, heads, rows, width]`, see
 * {@linkcode canAttend}.
 */
export interface Attended {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

/** What the gradients need besides. */
export interface Attention extends Attended {
  /** The output's gradient. */
  readonly g: Tensor;
  /** The logarithm of each query's sum of exponentials, `[batch, heads, rows]`. */
  readonly logs: Tensor;
  /** The sum of each query's output times its gradient, likewise. */
  readonly deltas: Tensor;
}

/**
 * Whether there are kernels for rows of this width: in complete vec4, and where invocations share
 * what they load.
 */
export function canAttend(...widths: readonly number[]): boolean {
  if (variant() === "perLane" || widths.some((width) => width === 0 || width % 4 !== 0)) {
    return false;
  }
  const memory = widths.map((width) =>
    memoryOf({ sum: "forward", causal: false, ...tileShape(width, Infinity) })
  );
  return Math.max(...widths) <= WIDEST &&
    Math.max(...memory) <= gpu().limits.maxComputeWorkgroupStorageSize;
}

/**
 * Whether a tensor `[batch, heads, rows, width]` lies as the kernels read it: rows without gaps,
 * that begin at complete vec4.
 */
export function isAttendable({ strides, offset }: Tensor): boolean {
  return strides[3] === 1 && [offset, ...strides.slice(0, 3)].every((step) => step % 4 === 0);
}

/**
 * `[batch, heads, rows, width]` in the order of `[batch, rows, heads, width]`, which is that of the
 * layers around.
 */
function emptyHeads([batch, heads, rows, width]: readonly number[]): Tensor {
  return Tensor.empty([batch, rows, heads, width]).view(
    [batch, heads, rows, width],
    [rows * heads * width, width, heads * width, 1],
  );
}

/** `softmax(scale · q kᵀ) v`, and the logarithms that its gradients need. */
export function attend({ q, k, v }: Attended, weighing: Weighing): { y: Tensor; logs: Tensor } {
  const y = emptyHeads([...q.shape.slice(0, 3), v.shape[3]]);
  const logs = Tensor.empty(q.shape.slice(0, 3));
  run("forward", false, { x: q, y: k, z: v }, [], [y, logs], weighing);
  return { y, logs };
}

/** The gradient of q. */
export function queryGradient({ q, k, v, g, logs, deltas }: Attention, weighing: Weighing): Tensor {
  const dq = emptyHeads(q.shape);
  run("inputs", false, { x: q, w: g, y: k, z: v }, [logs, deltas], [dq], weighing);
  return dq;
}

/** The gradient of k. */
export function keyGradient({ q, k, v, g, logs, deltas }: Attention, weighing: Weighing): Tensor {
  const dk = emptyHeads(k.shape);
  run("inputs", true, { x: k, w: v, y: q, z: g }, [logs, deltas], [dk], weighing);
  return dk;
}

/** The gradient of v. */
export function valueGradient({ q, k, v, g, logs }: Attention, weighing: Weighing): Tensor {
  const dv = emptyHeads(v.shape);
  run("values", true, { x: k, y: q, z: g }, [logs], [dv], weighing);
  return dv;
}

/**
 * The sum of each row of `a` times that of `c`: `[batch, heads, rows, width]` to `[batch, heads,
 * rows]`.
 */
export function rowDot(a: Tensor, c: Tensor): Tensor {
  const [, heads, rows, width] = a.shape;
  const y = Tensor.empty(a.shape.slice(0, 3));
  const sizes = {
    count: y.size,
    rows,
    heads,
    quads: width / 4,
    ...stridesOf("a", a),
    ...stridesOf("c", c),
  };
  rowDotKernel.run([a, c], [y], sizes, spread(Math.ceil(y.size / 64)));
  return y;
}

const rowDotKernel = new Kernel("row_dot.wgsl", rowDotWgsl, {
  inputs: { a: "vec4f", c: "vec4f" },
  outputs: { y: "f32" },
  sizes: {
    ...{ count: "u32", rows: "u32", heads: "u32", quads: "u32" },
    ...{ a_offset: "u32", a_batch: "u32", a_head: "u32", a_row: "u32" },
    ...{ c_offset: "u32", c_batch: "u32", c_head: "u32", c_row: "u32" },
  },
  flops: ({ count, quads }) => 8 * count * quads,
});

type Operands = Readonly<Partial<Record<"x" | "w" | "y" | "z", Tensor>>>;

/** Records a sum, whose rows are keys or queries. */
function run(
  sum: Sum,
  ofKeys: boolean,
  operands: Operands,
  statistics: readonly Tensor[],
  outputs: readonly Tensor[],
  { causal, scale }: Weighing,
): void {
  const [batch, heads, rows, width] = operands.x!.shape;
  const [columns, depth] = [operands.y!.shape[2], operands.z!.shape[3]];
  const outWidth = outputs[0].shape[3];
  const tile: AttentionTile = {
    ...{ sum, causal },
    ...tileShape(outWidth, batch * heads * rows * columns),
  };
  const tiles = Math.ceil(rows / (tile.rows * tile.down));
  const groups = tiles * batch * heads;
  const named = OPERANDS[sum].map((name) => [name, operands[name]!] as const);
  kernelOf(tile).run(
    [...named.map(([, operand]) => operand), ...statistics],
    outputs,
    {
      ...{ rows, columns, heads, tiles, groups, scale, width: width / 4, depth: depth / 4 },
      out_width: outWidth,
      keys: Number(ofKeys),
      ...Object.assign({}, ...named.map(([name, operand]) => stridesOf(name, operand))),
      ...stridesOf("out", outputs[0]),
    },
    spread(groups),
  );
}

function stridesOf(name: string, { offset, strides }: Tensor): Sizes {
  return {
    [`${name}_offset`]: offset,
    [`${name}_batch`]: strides[0],
    [`${name}_head`]: strides[1],
    [`${name}_row`]: strides[2],
  };
}

/** Wider rows have no kernels: an invocation could not hold its share. */
const WIDEST = 256;

/** Scores from which on more rows an invocation earn the time that they take to compile. */
const MANY_SCORES = 2 ** 21;

function tileShape(
  width: number,
  scores: number,
): Pick<AttentionTile, "variant" | "rows" | "cols" | "across" | "down"> {
  const isWorkgroup = variant() === "workgroup";
  const across = isWorkgroup ? 8 : lanes();
  const cols = 4 * Math.ceil(width / 4 / across);
  if (isWorkgroup) return { variant: "workgroup", rows: 4, cols, across, down: 8 };
  const size = pinnedTile() ?? (scores < MANY_SCORES ? "medium" : "large");
  return { variant: "subgroup", rows: size === "large" ? 16 : 8, cols, across, down: 1 };
}

const kernels = perEngine(() => new Map<string, Kernel>());

function kernelOf(tile: AttentionTile): Kernel {
  const key = cacheKey(tile);
  let kernel = kernels().get(key);
  if (!kernel) kernels().set(key, kernel = attentionKernel(tile));
  return kernel;
}

/** The kernel of a tile. */
export function attentionKernel(tile: AttentionTile): Kernel {
  const { sum, causal } = tile;
  const name = `attention ${sum}${causal ? ", causal" : ""}`;
  return new Kernel(name, attentionWgsl(tile), { ...attentionDeclaration(tile), ...workOf(sum) });
}

/**
 * Products of rows, 2 for each element, and 8 more for each weight; of what a causal mask hides
 * too.
 */
function workOf(sum: Sum): KernelWork {
  const gradient = sum === "inputs";
  return {
    flops: ({ columns, width, depth }, [x]) => {
      const each = 8 * (gradient ? 2 * width + depth : width + depth) + 8;
      return numel((x as Tensor).shape.slice(0, 3)) * columns * each;
    },
  };
}
