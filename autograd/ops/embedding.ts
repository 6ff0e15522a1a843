/**
 * Rows looked up by number.
 *
 * @module
 */

import gatherWgsl from "../../kernels/gather.wgsl" with { type: "text" };
import { Kernel, spread } from "../../kernels/kernel.ts";
import scatterWgsl from "../../kernels/scatter.wgsl" with { type: "text" };
import { gpu } from "../../tensor/device.ts";
import { scope } from "../../tensor/scope.ts";
import { numel } from "../../tensor/shape.ts";
import { ELEMENT_BYTES, Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { contiguous } from "./view.ts";

const gatherKernel = new Kernel("gather.wgsl", gatherWgsl);
const scatterKernel = new Kernel("scatter.wgsl", scatterWgsl);

/** Offsets of bindings are multiples of this: WebGPU's largest required alignment. */
const ALIGNMENT = 256;

/**
 * The rows of `table` `[V, C]` that `ids` name: `[…] → […, C]`. An id that is no row of the table gives zeros. The table
 * may be larger than one binding.
 *
 * @throws {TypeError} If the ids are not integers.
 */
export function embedding(table: Tensor, ids: Tensor): Tensor {
  const [, width] = table.shape;
  return lookUp(table, ids, ids.size, table.shape[0], [...ids.shape, width]);
}

/** One token of each sequence: `x` `[B, T, C]` and `ids` `[B]` to `[B, C]`. */
export function takeToken(x: Tensor, ids: Tensor): Tensor {
  const [batch, tokens, width] = x.shape;
  if (x.shape.length !== 3 || ids.size !== batch) {
    throw new RangeError(
      `Cannot take tokens [${ids.shape}] of [${x.shape}]: one id for each sequence is needed`,
    );
  }
  return lookUp(x, ids, 1, tokens, [batch, width]);
}

/** Gathers rows; each `group` ids in turn count from the next `step` rows of the table. */
function lookUp(
  table: Tensor,
  ids: Tensor,
  group: number,
  step: number,
  shape: readonly number[],
): Tensor {
  if (ids.dtype === "f32") throw new TypeError("Cannot look up f32 ids: give u32 or i32");
  const from = table.shape;
  const cols = from.at(-1)!;
  const rows = numel(from) / cols;
  const count = ids.size;
  return scope(() => {
    const [source, wanted] = [contiguous(table), contiguous(ids)];
    const y = Tensor.empty(shape);
    const { buffer, size } = source.binding;
    // Parts begin at rows whose bytes are aligned, and none exceeds what the adapter binds.
    const aligned = ALIGNMENT / gcd(ALIGNMENT, cols * ELEMENT_BYTES);
    const most = Math.floor(gpu().limits.maxStorageBufferBindingSize / (cols * ELEMENT_BYTES));
    const part = rows <= most ? rows : Math.floor(most / aligned) * aligned;
    for (let first = 0; first < Math.max(rows, 1); first += part) {
      const offset = first * cols * ELEMENT_BYTES;
      const held = Math.min(part, rows - first);
      gatherKernel.run(
        [{ buffer, offset, size: Math.min(size - offset, held * cols * ELEMENT_BYTES) }, wanted],
        [y],
        { count, cols, group, step, first, rows: held },
        spread(Math.ceil(count * cols / 64)),
      );
    }
    return record(y, [
      wrt(table, [wanted], (g) =>
        scope(() => {
          const dtable = Tensor.empty(from);
          const grid = spread(Math.ceil(rows * cols / 64));
          scatterKernel.run([wanted, contiguous(g)], [dtable], { rows, cols, group, step }, grid);
          return dtable;
        })),
    ]);
  });
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
