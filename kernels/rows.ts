/**
 * Kernels that work on each row by itself.
 *
 * @module
 */

import type { Tensor } from "../tensor/tensor.ts";
import {
  type Constants,
  Kernel,
  type KernelWork,
  replaced,
  type Sizes,
  type SizeTypes,
  spread,
} from "./kernel.ts";
import frameWgsl from "./rows.wgsl" with { type: "text" };
import special from "./special.wgsl" with { type: "text" };
import { variant } from "./variant.ts";

/** What an op's WGSL can name, for quads of each width. */
const PRELUDE = {
  4: `alias E = vec4f;
alias P = vec4u;
alias B = vec4<bool>;
const WIDTH = 4u;
fn places_(quad: u32) -> P {
  return 4u * quad + vec4u(0u, 1u, 2u, 3u);
}
fn sum_(x: E) -> f32 {
  return (x.x + x.y) + (x.z + x.w);
}
fn max_(x: E) -> f32 {
  return max(max(x.x, x.y), max(x.z, x.w));
}
fn min_(x: E) -> f32 {
  return min(min(x.x, x.y), min(x.z, x.w));
}
fn exps_(x: E) -> E {
  return exp4_(x);
}
fn any_nan_(x: E) -> bool {
  return any((bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
}
`,
  1: `alias E = f32;
alias P = u32;
alias B = bool;
const WIDTH = 1u;
fn places_(quad: u32) -> P {
  return quad;
}
fn sum_(x: E) -> f32 {
  return x;
}
fn max_(x: E) -> f32 {
  return x;
}
fn min_(x: E) -> f32 {
  return x;
}
fn exps_(x: E) -> E {
  return exp_(x);
}
fn any_nan_(x: E) -> bool {
  return is_nan_(x);
}
`,
} as const;

/** Where rows lie whose op does not say. */
const PLACES = `fn from_(row: u32) -> u32 {
  return row * sizes.cols;
}
fn to_(row: u32) -> u32 {
  return (row + 1u) * sizes.cols;
}
`;

/** What an op of rows is like. */
export interface RowsOptions {
  /** Whether it reads something that belongs to columns, so that no quad may span two rows; false by default. */
  readonly columns?: boolean;
  /** Whether it makes new elements; true by default. */
  readonly gives?: boolean;
}

/** Invocations of a workgroup, which share a row only in the variant `workgroup`. */
const LANES = { perLane: 16, subgroup: 16, workgroup: 256 } as const;
/** Quads of a row that an invocation takes at least, where it shares the row. */
const SHARE = 4;

/** The kernels of both widths of quads, from WGSL that writes its bindings as `array<E>`. */
function bothWidths(
  name: string,
  wgsl: string,
  sizes: SizeTypes,
  work: KernelWork,
): Readonly<Record<1 | 4, Kernel>> {
  const made = (width: 1 | 4) => {
    const element = width === 4 ? "vec4f" : "f32";
    return new Kernel(
      name,
      special + PRELUDE[width] + replaced(wgsl, "array<E>", `array<${element}>`),
      sizes,
      work,
    );
  };
  return { 1: made(1), 4: made(4) };
}

/** An op on rows: its WGSL defines the functions that `rows.wgsl` calls. */
export class RowsKernel {
  readonly #kernels: Readonly<Record<1 | 4, Kernel>>;
  readonly #columns: boolean;
  readonly #gives: boolean;

  /** Reads the sources; nothing is compiled before the first run. */
  constructor(
    name: string,
    wgsl: string,
    sizes: SizeTypes,
    work: KernelWork,
    options: RowsOptions = {},
  ) {
    const places = wgsl.includes("fn from_(") ? "" : PLACES;
    this.#kernels = bothWidths(name, wgsl + places + frameWgsl, sizes, work);
    this.#columns = options.columns ?? false;
    this.#gives = options.gives ?? true;
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
    const spans = !this.#columns && (cols >= 4 || !this.#gives);
    const width = aligned || spans ? 4 : 1;
    const GROUP = !this.#gives || aligned || width === 1 ? 1 : cols % 2 === 0 ? 2 : 4;
    const lanes = LANES[variant()];
    const shares = 2 ** Math.ceil(Math.log2(Math.max(1, cols / width / SHARE)));
    const ACROSS = variant() === "workgroup" ? Math.min(lanes, shares) : 1;
    const DOWN = lanes / ACROSS;
    this.#kernels[width].run(inputs, outputs, sizes, spread(Math.ceil(rows / (GROUP * DOWN))), {
      ACROSS,
      DOWN,
      GROUP,
      GIVES: Number(this.#gives),
      WHOLE: Number(aligned || width === 1),
      ...constants,
    });
  }
}

/** An op whose invocations go down the columns of a matrix each, a quad of columns at a time. */
export class ColumnsKernel {
  readonly #kernels: Readonly<Record<1 | 4, Kernel>>;

  /** Reads the source; nothing is compiled before the first run. */
  constructor(name: string, wgsl: string, sizes: SizeTypes, work: KernelWork) {
    this.#kernels = bothWidths(name, wgsl, sizes, work);
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
