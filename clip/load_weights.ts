/**
 * Reads a model's weights from files, piece by piece, straight to the GPU.
 *
 * @module
 */

import { contiguous, reshape, slice, transpose } from "../autograd/ops/view.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { firstNonFinite } from "../tensor/finite.ts";
import { beyondHalf, floatsToHalves, LARGEST_HALF } from "../tensor/half.ts";
import { inCategory } from "../tensor/memory.ts";
import { upload } from "../tensor/queue.ts";
import { keep, scope } from "../tensor/scope.ts";
import { numel, sameShape, type Shape } from "../tensor/shape.ts";
import { ELEMENT_BYTES, Tensor, wholeWords } from "../tensor/tensor.ts";
import { type TensorFile, titleOf } from "../tensor/tensor_file.ts";
import { isOpenai, openaiSource, type WeightLocation } from "./openai_weights.ts";
import { type PrecisionChoice, storedAs, Weights } from "./weights.ts";
import { WeightsHash } from "./weights_hash.ts";

/** Entries that are not weights: buffers of old checkpoints, and sizes in OpenAI's archives. */
const NOT_WEIGHTS = /(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size)$/;

/**
 * Reads the weights with these names and shapes from one file or several shards. `precision` is
 * `"auto"` by default. In f16, weights that the file stores as F16 keep their bits.
 *
 * @throws {RangeError} If a weight is missing, has the wrong shape, does not fit the chosen
 * precision or is in two files, or if the files hold a weight that the model does not have.
 */
export async function loadWeights(
  files: readonly TensorFile[],
  shapes: ReadonlyMap<string, Shape>,
  { precision = "auto" }: { readonly precision?: PrecisionChoice } = {},
): Promise<Weights> {
  const holders = new Map<string, TensorFile>();
  for (const file of files) {
    for (const name of file.tensors.keys()) {
      const other = holders.get(name);
      if (other) {
        throw new RangeError(
          `Cannot load the model: ${titleOf(name)} is in ${other.name} and in ${file.name}`,
        );
      }
      holders.set(name, file);
    }
  }
  const openai = isOpenai(holders.keys());
  const text = holders.has("text.positional_embedding") ? "text." : "";
  const wanted = [...shapes].map(([name, shape]) => ({
    name,
    shape,
    source: openai ? openaiSource(name, text) : { name } as WeightLocation,
  }));
  checkNames(wanted.map(({ source }) => source.name), holders);
  for (const { name, shape, source } of wanted) checkShape(name, shape, source, holders);

  const tensors = new Map<string, Tensor>();
  const hash = new WeightsHash();
  try {
    for (const { name, shape, source } of wanted) {
      const file = holders.get(source.name)!;
      const inFile = file.tensors.get(source.name)!.dtype === "F16" ? "f16" : "f32";
      const stored = storedAs(name, shape, precision === "auto" ? inFile : precision);
      const read = stored === "f16" ? readHalves : readWeight;
      tensors.set(name, await read(hashing(hash, name, shape, file, source), source, shape));
    }
  } catch (error) {
    for (const tensor of tensors.values()) tensor.release();
    throw error;
  }
  const matrix = wanted.find(({ shape }) => shape.length > 1)!.source.name;
  const { dtype } = holders.get(matrix)!.tensors.get(matrix)!;
  return new Weights(tensors, { sha256: await hash.digest(), dtype });
}

/**
 * Wraps a file so that its pieces are checked and hashed as they are read. Only the values of this
 * weight count, in the model's order. A weight that is NaN or infinite throws.
 */
function hashing(
  hash: WeightsHash,
  name: string,
  shape: Shape,
  file: TensorFile,
  { third = 0, transposed }: WeightLocation,
): Pick<TensorFile, "tensors" | "pieces"> {
  const first = third * numel(shape);
  return {
    tensors: file.tensors,
    async *pieces(source) {
      hash.begin(name, shape, transposed === true);
      for await (const piece of file.pieces(source)) {
        const section = piece.values.subarray(
          Math.max(0, first - piece.start),
          Math.max(0, first + numel(shape) - piece.start),
        );
        const at = firstNonFinite(section);
        if (at >= 0) {
          throw new RangeError(
            `Cannot load "${source}": it holds ${section[at]}, the model's weights are broken`,
          );
        }
        await hash.add(section);
        yield piece;
      }
      hash.end();
    },
  };
}

function checkNames(wanted: readonly string[], held: ReadonlyMap<string, unknown>): void {
  const missing = [...new Set(wanted)].filter((name) => !held.has(name));
  if (missing.length > 0) {
    throw new RangeError(`Cannot load the model: ${some(missing)} missing from its weights`);
  }
  const unknown = [...held.keys()].filter((name) =>
    !wanted.includes(name) && !NOT_WEIGHTS.test(name)
  );
  if (unknown.length > 0) {
    throw new RangeError(
      `Cannot load the model: ${some(unknown)} not known, the configuration has no such weights`,
    );
  }
}

/** Joins names with their verb: `"a" is`, or `"a", "b", "c" and 7 more are`. */
function some(names: readonly string[]): string {
  const shown = names.slice(0, 3).map((name) => `"${name}"`).join(", ");
  const rest = names.length - 3;
  return `${shown}${rest > 0 ? ` and ${rest} more` : ""} ${names.length > 1 ? "are" : "is"}`;
}

function checkShape(
  name: string,
  shape: Shape,
  source: WeightLocation,
  holders: ReadonlyMap<string, TensorFile>,
): void {
  const held = holders.get(source.name)!.tensors.get(source.name)!.shape;
  const needed = source.third !== undefined
    ? shape.with(0, shape[0] * 3)
    : source.transposed
    ? shape.toReversed()
    : shape;
  // Some programs store a scalar as [], but more store it as [1].
  if (sameShape(held, needed) || (needed.length === 0 && numel(held) === 1)) return;
  throw new RangeError(
    `Cannot load "${source.name}"${
      source.name === name ? "" : ` as "${name}"`
    }: the file holds [${held}], the model needs [${needed}]`,
  );
}

async function readWeight(
  file: Pick<TensorFile, "tensors" | "pieces">,
  { name, third, transposed }: WeightLocation,
  shape: Shape,
): Promise<Tensor> {
  const stored = await readTensor(file, name);
  if (third === undefined && !transposed) {
    return keepReshaped(stored, shape);
  }
  const section = scope(() => {
    const view = third === undefined
      ? transpose(stored)
      : slice(stored, 0, third * shape[0], (third + 1) * shape[0]);
    // Always copy: a view would hold on to all of the stored tensor.
    return inCategory("frozenWeights", () => pointwise("x", { x: view }, shape));
  });
  stored.release();
  return keep(section);
}

function keepReshaped(stored: Tensor, shape: Shape): Tensor {
  if (sameShape(stored.shape, shape)) return stored;
  const view = keep(reshape(contiguous(stored), shape));
  stored.release();
  return view;
}

/**
 * Reads a matrix as f16. It is converted on the host, where rounding is the same everywhere and
 * values that are too large are noticed.
 */
async function readHalves(
  file: Pick<TensorFile, "tensors" | "pieces">,
  { name, third = 0, transposed }: WeightLocation,
  shape: Shape,
): Promise<Tensor> {
  const size = numel(shape);
  const halves = new Uint16Array(wholeWords(ELEMENT_BYTES.f16 * size) / ELEMENT_BYTES.f16);
  const first = third * size;
  for await (const { start, values } of file.pieces(name)) {
    const section = values.subarray(
      Math.max(0, first - start),
      Math.max(0, first + size - start),
    );
    checkHalves(section, name);
    floatsToHalves(section, halves, Math.max(0, start - first));
  }
  const ordered = transposed ? transposedHalves(halves, shape) : halves;
  return keep(inCategory("frozenWeights", () => Tensor.on(upload(ordered), shape, "f16")));
}

/** Throws if any of `values` is finite, but would become infinite in f16. */
function checkHalves(values: Float32Array, name: string): void {
  const stray = values.find(beyondHalf);
  if (stray === undefined) return;
  throw new RangeError(
    `Cannot load "${name}" in f16: it holds ${stray}, the largest f16 is ${LARGEST_HALF}, ` +
      "load it in f32",
  );
}

/** Transposes a matrix `[cols, rows]` to `[rows, cols]`. */
function transposedHalves(
  halves: Uint16Array<ArrayBuffer>,
  [rows, cols]: Shape,
): Uint16Array<ArrayBuffer> {
  const turned = new Uint16Array(halves.length);
  for (let row = 0; row < rows; row++) {
    for (let col = 0; col < cols; col++) turned[row * cols + col] = halves[col * rows + row];
  }
  return turned;
}

/**
 * Copies a tensor from a file to the GPU piece by piece, so that the file is never entirely in
 * memory.
 */
export async function readTensor(
  file: Pick<TensorFile, "tensors" | "pieces">,
  name: string,
): Promise<Tensor> {
  const { shape } = file.tensors.get(name)!;
  const tensor = keep(inCategory("frozenWeights", () => Tensor.empty(shape)));
  try {
    for await (const { start, values } of file.pieces(name)) {
      tensor.engine.queue.write(tensor.binding.buffer, start * ELEMENT_BYTES.f32, values);
    }
  } catch (error) {
    tensor.release();
    throw error;
  }
  return tensor;
}
