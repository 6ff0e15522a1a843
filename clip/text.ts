/**
 * CLIP's text tower: a causal transformer.
 *
 * @module
 */

import { embedding, takeToken } from "../autograd/ops/embedding.ts";
import { add } from "../autograd/ops/pointwise.ts";
import { slice } from "../autograd/ops/view.ts";
import { tensor } from "../tensor/create.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { TextConfig } from "./config.ts";
import { blocksOf, type LayerNorm, layerNormOf, Linear, type ResidualBlock } from "./layers.ts";
import type { Weights } from "./weights.ts";

/** Prompts on the GPU: their ids, cut to the longest of them, and where each ends. */
export class Prompts {
  /** Token ids `[K, T]`. */
  readonly ids: Tensor;
  /** The place of each prompt's end-of-text token, `[K]`. */
  readonly ends: Tensor;

  /** Takes both tensors over. */
  constructor(ids: Tensor, ends: Tensor) {
    this.ids = keep(ids);
    this.ends = keep(ends);
  }

  /** Gives both tensors back. */
  release(): void {
    this.ids.release();
    this.ends.release();
  }
}

/** The text tower (methods `encode_text` and `build_attention_mask` of openai/CLIP's `clip/model.py`). */
export class TextTower {
  /** Its blocks, the one nearest to the tokens first. */
  readonly blocks: readonly ResidualBlock[];
  readonly #config: TextConfig;
  readonly #tokens: Tensor;
  readonly #positions: Tensor;
  readonly #finalNorm: LayerNorm;
  readonly #projection: Linear;

  /** Takes the weights of the tower out of those of the model. */
  constructor(weights: Weights, config: TextConfig) {
    const name = "text_model";
    this.#config = config;
    this.#tokens = weights.get(`${name}.embeddings.token_embedding.weight`);
    this.#positions = weights.get(`${name}.embeddings.position_embedding.weight`);
    this.blocks = blocksOf(weights, name, config, true);
    this.#finalNorm = layerNormOf(weights, `${name}.final_layer_norm`, config.layerNormEps);
    this.#projection = new Linear(weights.get("text_projection.weight"));
  }

  /**
   * Puts `rows` prompts, their ids row by row as the tokenizer gives them, on the GPU. What comes after the last
   * end-of-text token of them all is left out: attention is causal, so it changes nothing.
   *
   * @throws {RangeError} If the rows are longer than the model's context, or an id is not in its vocabulary.
   */
  prompts(ids: Int32Array<ArrayBuffer>, rows: number): Prompts {
    const { context, vocabulary } = this.#config;
    const length = ids.length / rows;
    if (!Number.isInteger(length) || length < 1 || length > context) {
      throw new RangeError(
        `Cannot encode ${rows} prompts of ${length} tokens: the model's context is ${context} tokens`,
      );
    }
    const stray = ids.find((id) => id < 0 || id >= vocabulary);
    if (stray !== undefined) {
      throw new RangeError(
        `Cannot encode token ${stray}: the model's vocabulary has ${vocabulary} tokens`,
      );
    }
    const ends = new Int32Array(rows);
    for (let row = 0; row < rows; row++) {
      ends[row] = this.#end(ids.subarray(row * length, (row + 1) * length));
    }
    const longest = Math.max(...ends) + 1;
    const cut = new Int32Array(rows * longest);
    for (let row = 0; row < rows; row++) {
      cut.set(ids.subarray(row * length, row * length + longest), row * longest);
    }
    return new Prompts(tensor(cut, [rows, longest]), tensor(ends));
  }

  /** Where a prompt ends, by the model's rule; at 0 where nothing marks it, as Hugging Face's implementation has it. */
  #end(ids: Int32Array): number {
    const { endRule, endToken } = this.#config;
    if (endRule === "first-end") return Math.max(0, ids.indexOf(endToken));
    return ids.indexOf(ids.reduce((largest, id) => Math.max(largest, id)));
  }

  /** What enters the first block: token and position embeddings, `[K, T, C]`. */
  embed({ ids }: Prompts): Tensor {
    return scope(() =>
      add(embedding(this.#tokens, ids), slice(this.#positions, 0, 0, ids.shape[1]))
    );
  }

  /** Normalized: `[…, C] → […, C]`. */
  normalize(hidden: Tensor): Tensor {
    return this.#finalNorm.forward(hidden);
  }

  /** The normalized last token of each prompt, of what left the last block: `[K, T, C] → [K, C]`. */
  pool(hidden: Tensor, { ends }: Prompts): Tensor {
    return scope(() => this.normalize(takeToken(hidden, ends)));
  }

  /** Text features, not normalized: `[K, E]`. With a `seed`, adapters drop inputs. */
  forward(prompts: Prompts, seed?: number): Tensor {
    return scope(() => {
      const hidden = this.blocks.reduce((x, block) => block.forward(x, seed), this.embed(prompts));
      return this.#projection.forward(this.pool(hidden, prompts));
    });
  }
}
