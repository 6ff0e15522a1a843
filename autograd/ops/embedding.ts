/**
 * Rows, tokens and elements looked up by index.
 *
 * @module
 */

import gatherWgsl from "../../kernels/gather.wgsl" with { type: "text" };
import { half } from "../../kernels/halves.ts";
import { Kernel, MAX_STEPS, spread } from "../../kernels/kernel.ts";
import scatterWgsl from "../../kernels/scatter.wgsl" with { type: "text" };
import { expand } from "../../kernels/template.ts";
import { gpu } from "../../tensor/device.ts";
import { scope } from "../../tensor/scope.ts";
import { numel, resolveAxis } from "../../tensor/shape.ts";
import { checkReadable, ELEMENT_BYTES, Tensor, wholeWords } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { contiguous, reshape, slice, transpose } from "./view.ts";

/** The kernel of each dtype that the table may have. */
const gatherKernels = {
  f32: gatherKernel("gather.wgsl", "f32", "table[at]", ELEMENT_BYTES.f32),
  f16: gatherKernel("gather.wgsl (f16)", "halves", half("table", "at"), ELEMENT_BYTES.f16),
};
const scatterKernel = new Kernel("scatter.wgsl", scatterWgsl, {
  inputs: { ids: "u32", g: "f32" },
  outputs: { dtable: "f32" },
  sizes: { rows: "u32", cols: "u32", group: "u32", step: "u32", first: "u32", last: "u32" },
  // An addition for each element of the gradient.
  flops: (_, [, g]) => numel((g as Tensor).shape),
});

/**
 * The gather kernel of a table whose binding is of `type`. `element` is WGSL that reads element
 * `at` as f32; `bytes` is the size of an element.
 */
function gatherKernel(name: string, type: string, element: string, bytes: number): Kernel {
  return new Kernel(name, expand(gatherWgsl, { ELEMENT: element }), {
    inputs: { table: type, ids: "u32" },
    outputs: { y: "f32" },
    sizes: { count: "u32", cols: "u32", group: "u32", step: "u32", first: "u32", rows: "u32" },
    flops: () => 0,
    // The rows that the ids name, and the ids.
    reads: ({ count, cols }) => count * (bytes * cols + ELEMENT_BYTES.u32),
  });
}

/** Offsets of bindings are multiples of this: WebGPU's largest required alignment. */
const ALIGNMENT = 256;

/**
 * The rows of `table` `[V, C]` that `ids` name: `[…] → […, C]`. An id that is no row of the table
 * gives zeros. The table may be larger than one binding, and may be f16.
 *
 * @throws {TypeError} If the ids are not integers, or the table holds integers.
 * @throws {RangeError} If the table does not have two axes.
 */
export function embedding(table: Tensor, ids: Tensor): Tensor {
  const [, width] = table.shape;
  if (table.shape.length !== 2) {
    throw new RangeError(`Cannot embed by a table of [${table.shape}]: it needs two axes`);
  }
  return lookUp(table, ids, ids.size, table.shape[0], [...ids.shape, width]);
}

/**
 * The token of each sequence that `ids` names: `x` `[B, T, C]` and `ids` `[B]` to `[B, C]`. An id
 * that is no token's index gives zeros.
 *
 * @throws {TypeError} If the ids are not integers.
 * @throws {RangeError} If there is not one id for each sequence.
 */
export function takeToken(x: Tensor, ids: Tensor): Tensor {
  const [batch, tokens, width] = x.shape;
  if (x.shape.length !== 3 || ids.size !== batch) {
    throw new RangeError(
      `Cannot take tokens [${ids.shape}] of [${x.shape}]: one id for each sequence is needed`,
    );
  }
  return lookUp(x, ids, 1, tokens, [batch, width]);
}

/**
 * The slices of `x` along `axis` that `ids` `[n]` name: this axis of the result has size n. Like
 * `torch.index_select`.
 *
 * @throws {TypeError} If the ids are not integers.
 */
export function indexSelect(x: Tensor, axis: number, ids: Tensor): Tensor {
  const at = resolveAxis(axis, x.shape.length);
  return scope(() => {
    const moved = transpose(x, 0, at);
    const [rows, ...rest] = moved.shape;
    const found = embedding(reshape(moved, [rows, numel(rest)]), reshape(ids, [ids.size]));
    return transpose(reshape(found, [ids.size, ...rest]), 0, at);
  });
}

/**
 * An element of `x` for each of `ids`: its index is the id along `axis`, and the id's position
 * along the other axes. Like `torch.gather`.
 *
 * @throws {TypeError} If the ids are not integers.
 * @throws {RangeError} If `ids` is longer than `x` along another axis, or has another number of
 * axes.
 */
export function gather(x: Tensor, axis: number, ids: Tensor): Tensor {
  const at = resolveAxis(axis, x.shape.length);
  const fits = ids.shape.every((size, i) => i === at || size <= x.shape[i]);
  if (ids.shape.length !== x.shape.length || !fits) {
    throw new RangeError(`Cannot gather [${ids.shape}] from [${x.shape}] along axis ${at}`);
  }
  return scope(() => {
    const cut = ids.shape.reduce((cut, size, i) => i === at ? cut : slice(cut, i, 0, size), x);
    const [from, wanted] = [transpose(cut, at, -1), transpose(ids, at, -1)];
    const [step, group] = [x.shape[at], ids.shape[at]];
    const column = reshape(from, [from.size, 1]);
    return transpose(lookUp(column, wanted, group, step, wanted.shape), at, -1);
  });
}

/**
 * Gathers rows of `table`. The table is read as blocks of `step` rows, and `ids` as runs of `group`
 * ids: each run indexes the rows of its block.
 */
function lookUp(
  table: Tensor,
  ids: Tensor,
  group: number,
  step: number,
  shape: readonly number[],
): Tensor {
  checkReadable("look up", table);
  if (ids.dtype === "f32" || ids.dtype === "f16") {
    throw new TypeError(`Cannot look up ${ids.dtype} ids: give u32 or i32`);
  }
  const from = table.shape;
  const cols = from.at(-1)!;
  const rows = numel(from.slice(0, -1));
  const count = ids.size;
  return scope(() => {
    const [source, wanted] = [contiguous(table), contiguous(ids)];
    const y = Tensor.empty(shape);
    const { buffer, size } = source.binding;
    const dtype = source.dtype === "f16" ? "f16" : "f32";
    const rowBytes = cols * ELEMENT_BYTES[dtype];
    // A table larger than the GPU can bind is bound in chunks. Each begins at a row whose first
    // byte is aligned.
    const aligned = ALIGNMENT / gcd(ALIGNMENT, rowBytes);
    const most = Math.floor(gpu().limits.maxStorageBufferBindingSize / rowBytes);
    const chunk = rows <= most ? Math.max(rows, 1) : Math.floor(most / aligned) * aligned;
    if (chunk === 0) {
      throw new RangeError(
        `Cannot look up rows of [${from}]: ${most > 0 ? `${aligned} rows` : "one row"} of ` +
          `${rowBytes} bytes are more than this GPU binds at once`,
      );
    }
    for (let first = 0; first === 0 || first < rows; first += chunk) {
      const offset = first * rowBytes;
      const held = Math.min(chunk, rows - first);
      gatherKernels[dtype].run(
        [{ buffer, offset, size: Math.min(size - offset, wholeWords(held * rowBytes)) }, wanted],
        [y],
        { count, cols, group, step, first, rows: held },
        spread(Math.ceil(count * cols / 64)),
      );
    }
    return record(y, [
      wrt(table, [wanted], (gradient) =>
        scope(() => {
          const dtable = Tensor.empty(from);
          const grid = spread(Math.ceil(rows * Math.ceil(cols / 4) / 64));
          const g = contiguous(gradient);
          for (let first = 0; first === 0 || first < group; first += MAX_STEPS) {
            const sizes = {
              rows,
              cols,
              group,
              step,
              first,
              last: Math.min(first + MAX_STEPS, group),
            };
            scatterKernel.run([wanted, g], [dtable], sizes, grid);
          }
          return dtable;
        })),
    ]);
  });
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
