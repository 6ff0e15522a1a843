/**
 * Kernels that work on each row by itself.
 *
 * @module
 */

import type { Tensor } from "../tensor/tensor.ts";
import type { Constants, Declaration, Sizes, Types } from "./declaration.ts";
import { Kernel, spread } from "./kernel.ts";
import singleWgsl from "./elements_f32.wgsl" with { type: "text" };
import quadWgsl from "./elements_vec4.wgsl" with { type: "text" };
import rangesWgsl from "./row_ranges.wgsl" with { type: "text" };
import frameWgsl from "./rows.wgsl" with { type: "text" };
import special from "./special.wgsl" with { type: "text" };
import { variant } from "./variant.ts";

/** What an op of rows is like. */
export interface RowsOptions {
  /**
   * Whether it reads something that belongs to columns, so that no quad may span two rows; false by
   * default.
   */
  readonly columns?: boolean;
  /** Whether it makes new elements; true by default. */
  readonly writes?: boolean;
}

/** Invocations of a workgroup, which share a row only in the variant `workgroup`. */
const INVOCATIONS = { perLane: 16, subgroup: 16, workgroup: 256 } as const;
/** Quads of a row that an invocation takes at least, where it shares the row. */
const LEAST_QUADS = 4;

/** The constants of rows.wgsl. */
const FRAME_CONSTANTS = {
  ACROSS: "u32",
  DOWN: "u32",
  GROUP: "u32",
  WRITES: "bool",
  ALIGNED: "bool",
} as const;

/**
 * An element of a row, or four: the type E, of which a declaration may say that its bindings are.
 */
const ELEMENTS = { 1: "f32", 4: "vec4f" } as const;

/** A kernel of single elements, and one of quads. */
type Widths = Readonly<Record<1 | 4, Kernel>>;

/** The kernels of both widths. */
function bothWidths(name: string, wgsl: string, declaration: Declaration): Widths {
  const made = (width: 1 | 4) => {
    const resolved = (types: Types): Types =>
      Object.fromEntries(
        Object.entries(types).map(([name, type]) => [name, type === "E" ? ELEMENTS[width] : type]),
      );
    const elements = width === 4 ? quadWgsl : singleWgsl;
    return new Kernel(name, [wgsl, elements, special].join("\n"), {
      ...declaration,
      inputs: resolved(declaration.inputs),
      outputs: resolved(declaration.outputs),
    });
  };
  return { 1: made(1), 4: made(4) };
}

/** An op on rows: its WGSL defines the functions that `rows.wgsl` calls. */
export class RowsKernel {
  /** Its kernels of single elements and of quads. */
  readonly kernels: Widths;
  readonly #columns: boolean;
  readonly #writes: boolean;

  /** Reads the sources; nothing is compiled before the first run. */
  constructor(name: string, wgsl: string, declaration: Declaration, options: RowsOptions = {}) {
    const sources = [wgsl, ...(wgsl.includes("fn row_start_(") ? [] : [rangesWgsl]), frameWgsl];
    this.kernels = bothWidths(name, sources.join("\n"), {
      ...declaration,
      constants: { ...FRAME_CONSTANTS, ...declaration.constants },
    });
    this.#columns = options.columns ?? false;
    this.#writes = options.writes ?? true;
  }

  /** Records a run over `rows` rows of `cols` elements. */
  run(
    inputs: readonly Tensor[],
    outputs: readonly Tensor[],
    sizes: Sizes & { readonly rows: number; readonly cols: number },
    constants: Constants = {},
  ): void {
    const { rows, cols } = sizes;
    const aligned = cols % 4 === 0;
    // New elements of a quad may be of two rows, not of three.
    const spans = !this.#columns && (cols >= 4 || !this.#writes);
    const width = aligned || spans ? 4 : 1;
    const GROUP = !this.#writes || aligned || width === 1 ? 1 : cols % 2 === 0 ? 2 : 4;
    const invocations = INVOCATIONS[variant()];
    const shares = 2 ** Math.ceil(Math.log2(Math.max(1, cols / width / LEAST_QUADS)));
    const ACROSS = variant() === "workgroup" ? Math.min(invocations, shares) : 1;
    const DOWN = invocations / ACROSS;
    this.kernels[width].run(inputs, outputs, sizes, spread(Math.ceil(rows / (GROUP * DOWN))), {
      ACROSS,
      DOWN,
      GROUP,
      WRITES: Number(this.#writes),
      ALIGNED: Number(aligned || width === 1),
      ...constants,
    });
  }
}

/** An op whose invocations go down the columns of a matrix each, a quad of columns at a time. */
export class ColumnsKernel {
  readonly #kernels: Widths;

  /** Reads the source; nothing is compiled before the first run. */
  constructor(name: string, wgsl: string, declaration: Declaration) {
    const sizes = { outputs: "u32", quads: "u32", ...declaration.sizes } as const;
    this.#kernels = bothWidths(name, wgsl, { ...declaration, sizes });
  }

  /** Records a run that makes `rows` rows of `cols` elements. */
  run(
    inputs: readonly Tensor[],
    outputs: readonly Tensor[],
    cols: number,
    rows: number,
    sizes: Sizes,
    constants: Constants = {},
  ): void {
    const width = cols % 4 === 0 ? 4 : 1;
    const quads = cols / width;
    const all = { outputs: rows * quads, quads, ...sizes };
    this.#kernels[width].run(inputs, outputs, all, spread(Math.ceil(rows * quads / 64)), constants);
  }
}
