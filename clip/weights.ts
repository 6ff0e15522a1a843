/**
 * A checkpoint's tensors, by the names that Hugging Face's `CLIPModel` gives them.
 *
 * @module
 */

import { contiguous, reshape, slice, transpose } from "../autograd/ops/view.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { beyondHalf, floatsToHalves, LARGEST_HALF } from "../tensor/half.ts";
import { owned } from "../tensor/memory.ts";
import { upload } from "../tensor/queue.ts";
import { keep, scope } from "../tensor/scope.ts";
import { numel, sameShape, type Shape } from "../tensor/shape.ts";
import { type Dtype, ELEMENT_BYTES, Tensor, wholeWords } from "../tensor/tensor.ts";
import { type TensorFile, titleOf } from "../tensor/tensor_file.ts";
import type { ClipConfig, TowerConfig } from "./config.ts";

/** The tensors of a model, by Hugging Face's names. They belong to whoever holds this. */
export class Weights {
  readonly #tensors: Map<string, Tensor>;

  /** Takes the tensors over. */
  constructor(tensors: Map<string, Tensor>) {
    this.#tensors = tensors;
  }

  /** The names, in the checkpoint's order. */
  get names(): readonly string[] {
    return [...this.#tensors.keys()];
  }

  /** One tensor. */
  get(name: string): Tensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) {
      throw new RangeError(`Cannot find weight "${name}": the model has none of that name`);
    }
    return tensor;
  }

  /** Gives all tensors back. */
  release(): void {
    for (const tensor of this.#tensors.values()) tensor.release();
    this.#tensors.clear();
  }
}

/** The name and shape of every weight of a model. */
export function weightShapes({ vision, text, embedding }: ClipConfig): Map<string, Shape> {
  const shapes = new Map<string, Shape>([["logit_scale", []]]);
  const tower = (name: string, { width, mlpWidth, layers }: TowerConfig) => {
    for (let layer = 0; layer < layers; layer++) {
      const block = `${name}.encoder.layers.${layer}`;
      for (const norm of ["layer_norm1", "layer_norm2"]) {
        shapes.set(`${block}.${norm}.weight`, [width]).set(`${block}.${norm}.bias`, [width]);
      }
      for (const part of ["q_proj", "k_proj", "v_proj", "out_proj"]) {
        shapes.set(`${block}.self_attn.${part}.weight`, [width, width]);
        shapes.set(`${block}.self_attn.${part}.bias`, [width]);
      }
      shapes.set(`${block}.mlp.fc1.weight`, [mlpWidth, width]).set(`${block}.mlp.fc1.bias`, [
        mlpWidth,
      ]);
      shapes.set(`${block}.mlp.fc2.weight`, [width, mlpWidth]).set(`${block}.mlp.fc2.bias`, [
        width,
      ]);
    }
  };
  const { width, imageSize, patchSize } = vision;
  const patches = Math.floor(imageSize / patchSize) ** 2;
  shapes.set("vision_model.embeddings.class_embedding", [width]);
  shapes.set("vision_model.embeddings.patch_embedding.weight", [width, 3, patchSize, patchSize]);
  shapes.set("vision_model.embeddings.position_embedding.weight", [patches + 1, width]);
  for (const norm of ["pre_layrnorm", "post_layernorm"]) {
    shapes.set(`vision_model.${norm}.weight`, [width]).set(`vision_model.${norm}.bias`, [width]);
  }
  tower("vision_model", vision);
  shapes.set("visual_projection.weight", [embedding, width]);
  shapes.set("text_model.embeddings.token_embedding.weight", [text.vocabulary, text.width]);
  shapes.set("text_model.embeddings.position_embedding.weight", [text.context, text.width]);
  tower("text_model", text);
  shapes.set("text_model.final_layer_norm.weight", [text.width]);
  shapes.set("text_model.final_layer_norm.bias", [text.width]);
  shapes.set("text_projection.weight", [embedding, text.width]);
  return shapes;
}

/** How the matrices among a model's weights are stored: in f32, or in half the memory, rounded to the nearest half. */
export type Precision = "f32" | "f16";
/** A precision; or that of the checkpoint, in which nothing is rounded: f16 for matrices that it has as F16, else f32. */
export type PrecisionChoice = Precision | "auto";

/** How a weight is stored: vectors and tables of positions, which are small, always in f32. */
export function storedAs(name: string, shape: Shape, precision: Precision): Dtype {
  const isMatrix = shape.length > 1 && !name.endsWith("position_embedding.weight");
  return isMatrix ? precision : "f32";
}

/** Where a weight is in an OpenAI state dict: a tensor, some third of its rows, or its transpose. */
interface Source {
  readonly name: string;
  readonly third?: 0 | 1 | 2;
  readonly transposed?: boolean;
}

const OPENAI_FIXED: Readonly<Record<string, Source>> = {
  "logit_scale": { name: "logit_scale" },
  "vision_model.embeddings.class_embedding": { name: "visual.class_embedding" },
  "vision_model.embeddings.patch_embedding.weight": { name: "visual.conv1.weight" },
  "vision_model.embeddings.position_embedding.weight": { name: "visual.positional_embedding" },
  "vision_model.pre_layrnorm.weight": { name: "visual.ln_pre.weight" },
  "vision_model.pre_layrnorm.bias": { name: "visual.ln_pre.bias" },
  "vision_model.post_layernorm.weight": { name: "visual.ln_post.weight" },
  "vision_model.post_layernorm.bias": { name: "visual.ln_post.bias" },
  "visual_projection.weight": { name: "visual.proj", transposed: true },
  "text_model.embeddings.token_embedding.weight": { name: "token_embedding.weight" },
  "text_model.embeddings.position_embedding.weight": { name: "positional_embedding" },
  "text_model.final_layer_norm.weight": { name: "ln_final.weight" },
  "text_model.final_layer_norm.bias": { name: "ln_final.bias" },
  "text_projection.weight": { name: "text_projection", transposed: true },
};

const OPENAI_PARTS: Readonly<Record<string, string>> = {
  "layer_norm1": "ln_1",
  "layer_norm2": "ln_2",
  "self_attn.out_proj": "attn.out_proj",
  "mlp.fc1": "mlp.c_fc",
  "mlp.fc2": "mlp.c_proj",
};

/**
 * Where openai/CLIP's own state dict has the weight that Hugging Face calls `name`. What a text tower of open_clip's
 * `custom_text` has is called the same after `text`, which is `"text."` then.
 */
export function openaiSource(name: string, text: "" | "text." = ""): Source {
  const block = /^(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  if (!block) {
    const source = OPENAI_FIXED[name];
    return name.startsWith("text_") ? { ...source, name: text + source.name } : source;
  }
  const [, tower, layer, part, kind] = block;
  const base = `${tower === "vision" ? "visual." : text}transformer.resblocks.${layer}`;
  const third = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].indexOf(part);
  if (third >= 0) return { name: `${base}.attn.in_proj_${kind}`, third: third as 0 | 1 | 2 };
  return { name: `${base}.${OPENAI_PARTS[part]}.${kind}` };
}

/** Whether a file has openai/CLIP's own names. */
export function isOpenai(names: Iterable<string>): boolean {
  return [...names].includes("visual.conv1.weight");
}

/** Entries that are no weights: buffers of old checkpoints, sizes in OpenAI's archives. */
const NOT_WEIGHTS =
  /(^|\.)position_ids$|^(text\.)?attn_mask$|^(input_resolution|context_length|vocab_size)$|^visual\.input_resolution$/;

/**
 * Reads a model's weights out of one file or several shards, in pieces, straight to the GPU; `precision` is `"auto"` by
 * default. In f16, weights that the file has as F16 keep their bits.
 *
 * @throws {RangeError} If a weight is missing or misshapen, is beyond the chosen precision, is in two files, or the files
 * hold one that the model does not have.
 */
export async function loadWeights(
  files: readonly TensorFile[],
  config: ClipConfig,
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
  const wanted = [...weightShapes(config)].map(([name, shape]) => ({
    name,
    shape,
    source: openai ? openaiSource(name, text) : { name } as Source,
  }));
  checkNames(wanted.map(({ source }) => source.name), holders);
  for (const { name, shape, source } of wanted) checkShape(name, shape, source, holders);

  const tensors = new Map<string, Tensor>();
  try {
    for (const { name, shape, source } of wanted) {
      const file = holders.get(source.name)!;
      const inFile = file.tensors.get(source.name)!.dtype === "F16" ? "f16" : "f32";
      const stored = storedAs(name, shape, precision === "auto" ? inFile : precision);
      tensors.set(name, await (stored === "f16" ? readHalves : readWeight)(file, source, shape));
    }
  } catch (error) {
    for (const tensor of tensors.values()) tensor.release();
    throw error;
  }
  return new Weights(tensors);
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

/** `"a" is`, or `"a", "b" and 7 more are`. */
function some(names: readonly string[]): string {
  const shown = names.slice(0, 3).map((name) => `"${name}"`).join(", ");
  const rest = names.length - 3;
  return `${shown}${rest > 0 ? ` and ${rest} more` : ""} ${names.length > 1 ? "are" : "is"}`;
}

function checkShape(
  name: string,
  shape: Shape,
  source: Source,
  holders: ReadonlyMap<string, TensorFile>,
): void {
  const held = holders.get(source.name)!.tensors.get(source.name)!.shape;
  const needed = source.third !== undefined
    ? shape.with(0, shape[0] * 3)
    : source.transposed
    ? shape.toReversed()
    : shape;
  // A scalar is stored as [] by some and as [1] by others.
  if (sameShape(held, needed) || (needed.length === 0 && numel(held) === 1)) return;
  throw new RangeError(
    `Cannot load "${source.name}"${
      source.name === name ? "" : ` as "${name}"`
    }: the file holds [${held}], the model needs [${needed}]`,
  );
}

async function readWeight(
  file: TensorFile,
  { name, third, transposed }: Source,
  shape: Shape,
): Promise<Tensor> {
  const whole = await readTensor(file, name);
  if (third === undefined && !transposed) {
    return keepReshaped(whole, shape);
  }
  const part = scope(() => {
    const view = third === undefined
      ? transpose(whole)
      : slice(whole, 0, third * shape[0], (third + 1) * shape[0]);
    // A copy always, so that the whole is not held by a view of its part.
    return owned("frozenWeights", () => pointwise("x", { x: view }, shape));
  });
  whole.release();
  return keep(part);
}

function keepReshaped(whole: Tensor, shape: Shape): Tensor {
  if (sameShape(whole.shape, shape)) return whole;
  const view = keep(reshape(contiguous(whole), shape));
  whole.release();
  return view;
}

/**
 * A matrix in halves, put together on the host, where rounding is the same everywhere and what is too large is seen.
 */
async function readHalves(
  file: TensorFile,
  { name, third = 0, transposed }: Source,
  shape: Shape,
): Promise<Tensor> {
  const size = numel(shape);
  const halves = new Uint16Array(wholeWords(ELEMENT_BYTES.f16 * size) / ELEMENT_BYTES.f16);
  const first = third * size;
  for await (const { start, values } of file.pieces(name)) {
    const part = values.subarray(
      Math.max(0, first - start),
      Math.max(0, first + size - start),
    );
    checkHalves(part, name);
    floatsToHalves(part, halves, Math.max(0, start - first));
  }
  const ordered = transposed ? transposedHalves(halves, shape) : halves;
  return keep(owned("frozenWeights", () => Tensor.on(upload(ordered), shape, "f16")));
}

/** Throws unless each of `values` is near a finite half. */
function checkHalves(values: Float32Array, name: string): void {
  const stray = values.find(beyondHalf);
  if (stray === undefined) return;
  throw new RangeError(
    `Cannot load "${name}" in f16: it holds ${stray}, the largest f16 is ${LARGEST_HALF}, load it in f32`,
  );
}

/** The transpose `[rows, cols]` of a matrix `[cols, rows]`. */
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

/** Copies a tensor of a file to the GPU piece by piece: the file is never in memory as a whole. */
export async function readTensor(file: TensorFile, name: string): Promise<Tensor> {
  const { shape } = file.tensors.get(name)!;
  const tensor = keep(owned("frozenWeights", () => Tensor.empty(shape)));
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
