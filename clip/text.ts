/**
 * CLIP's text tower: a causal transformer.
 *
 * @module
 */

import { embedding, takeToken } from "../autograd/ops/embedding.ts";
import { add } from "../autograd/ops/pointwise.ts";
import { reshape, slice } from "../autograd/ops/view.ts";
import { tensor } from "../tensor/create.ts";
import { attribute } from "../tensor/measure.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { TextConfig } from "./config.ts";
import {
  blocksOf,
  type Items,
  type LayerNorm,
  layerNormOf,
  Linear,
  type Pass,
  type ResidualBlock,
  runBlocks,
  type TowerHook,
} from "./layers.ts";
import type { PromptTower } from "./model.ts";
import { type NamedLinear, namedLinears } from "./tower.ts";
import type { WeightSource } from "./weights.ts";

/** One prompt on the host. */
export interface PromptRow {
  /** Its token ids, padded. */
  readonly ids: Int32Array<ArrayBuffer>;
  /** The index of its end-of-text token. */
  readonly end: number;
}

/**
 * Prompts on the GPU: their ids, and where each of them ends. If the tower's attention is causal,
 * the tokens after the last end-of-text token of all prompts are cut off, because they change
 * nothing.
 */
export class Prompts {
  /** Token ids `[K, T]`. */
  readonly ids: Tensor;
  /** The index of each prompt's end-of-text token, `[K]`. */
  readonly ends: Tensor;
  readonly #rows: readonly PromptRow[];

  readonly #causal: boolean;

  /**
   * Uploads prompts for a tower that is causal or not. Each row holds the ids of one prompt, all of
   * them padded to one length, and the index of its end-of-text token.
   */
  constructor(rows: readonly PromptRow[], causal = true) {
    this.#causal = causal;
    const longest = causal
      ? Math.max(...rows.map(({ end }) => end)) + 1
      : Math.max(...rows.map(({ ids }) => ids.length));
    const ids = new Int32Array(rows.length * longest);
    rows.forEach(({ ids: row }, i) => ids.set(row.subarray(0, longest), i * longest));
    this.#rows = rows;
    this.ids = keep(tensor(ids, [rows.length, longest]));
    this.ends = keep(tensor(Int32Array.from(rows, ({ end }) => end)));
  }

  /** Number of tokens of each prompt, including its start and end. */
  get lengths(): number[] {
    return this.#rows.map(({ end }) => end + 1);
  }

  /** Number of prompts. */
  get count(): number {
    return this.#rows.length;
  }

  /**
   * Splits the prompts into chunks of at most `size`, the shortest prompts first, so that each
   * chunk is cut to its longest prompt. A chunk also holds the index of each of its prompts in this
   * set.
   */
  chunks(size: number): PromptChunk[] {
    const order = this.#rows.map((_, i) => i)
      .sort((a, b) => this.#rows[a].end - this.#rows[b].end || a - b);
    const tokens = this.ids.shape[1];
    return Array.from({ length: Math.ceil(order.length / size) }, (_, chunk) => {
      const numbers = order.slice(chunk * size, (chunk + 1) * size);
      return {
        prompts: new Prompts(numbers.map((i) => this.#rows[i]), this.#causal),
        items: { numbers: keep(tensor(Uint32Array.from(numbers))), tokens },
        numbers,
      };
    });
  }

  /** Releases both tensors. */
  release(): void {
    this.ids.release();
    this.ends.release();
  }
}

/** Some of a set of prompts, cut to the longest of them. */
export interface PromptChunk {
  /** The prompts. */
  readonly prompts: Prompts;
  /** Which prompts of the set they are. Random numbers depend on it. */
  readonly items: Items;
  /** The same indices on the host. */
  readonly numbers: readonly number[];
}

/** Releases the tensors of chunks. */
export function releaseChunks(chunks: readonly PromptChunk[]): void {
  for (const { prompts, items } of chunks) {
    prompts.release();
    items.numbers.release();
  }
}

/**
 * The text tower (methods `encode_text` and `build_attention_mask` of openai/CLIP's
 * `clip/model.py`).
 */
export class TextTower implements PromptTower {
  /** The blocks, from the tokens to the features. */
  readonly blocks: readonly ResidualBlock[];
  /** Projects the pooled token to features. */
  readonly projection: Linear;
  readonly #config: TextConfig;
  readonly #tokens: Tensor;
  readonly #positions: Tensor;
  readonly #finalNorm: LayerNorm;

  /** A token attends to itself and to those before it. */
  readonly causal = true;

  /** Builds the tower on its weights. `embedding` is the width of its features. */
  constructor(weights: WeightSource, config: TextConfig, embedding: number) {
    const { width, vocabulary, context, layerNormEps } = config;
    const tower = weights.at("text_model");
    this.#config = config;
    this.#tokens = tower.get("embeddings.token_embedding.weight", [vocabulary, width]);
    this.#positions = tower.get("embeddings.position_embedding.weight", [context, width]);
    this.blocks = blocksOf(tower, config, this.causal);
    this.#finalNorm = layerNormOf(tower, "final_layer_norm", width, layerNormEps);
    this.projection = new Linear(weights.get("text_projection.weight", [embedding, width]));
  }

  /** Number of blocks. */
  get depth(): number {
    return this.blocks.length;
  }

  /** The largest number of tokens in a prompt. */
  get context(): number {
    return this.#config.context;
  }

  /** Number of tokens in the vocabulary. */
  get vocabulary(): number {
    return this.#config.vocabulary;
  }

  /** The linear layers of the tower. */
  get linears(): readonly NamedLinear[] {
    const projection = { module: "text_projection", linear: this.projection };
    return namedLinears("text_model", this.blocks, projection);
  }

  /**
   * Uploads `rows` prompts to the GPU. `ids` holds their token ids row by row, as the tokenizer
   * returns them.
   *
   * @throws {RangeError} If the rows are longer than the model's context, or an id is not in its
   * vocabulary.
   */
  prompts(ids: Int32Array<ArrayBuffer>, rows: number): Prompts {
    const { context, vocabulary } = this.#config;
    const length = ids.length / rows;
    if (!Number.isInteger(length) || length < 1 || length > context) {
      throw new RangeError(
        `Cannot encode ${rows} prompts of ${length} tokens: ` +
          `the model's context is ${context} tokens`,
      );
    }
    const stray = ids.find((id) => id < 0 || id >= vocabulary);
    if (stray !== undefined) {
      throw new RangeError(
        `Cannot encode token ${stray}: the model's vocabulary has ${vocabulary} tokens`,
      );
    }
    return new Prompts(
      Array.from({ length: rows }, (_, row) => {
        const prompt = ids.slice(row * length, (row + 1) * length);
        return { ids: prompt, end: this.#end(prompt) };
      }),
      this.causal,
    );
  }

  /**
   * Where a prompt ends by the model's rule. If nothing marks the end, it is 0, as in Hugging
   * Face's implementation.
   */
  #end(ids: Int32Array): number {
    const { endRule, endToken } = this.#config;
    if (endRule === "first-end") return Math.max(0, ids.indexOf(endToken));
    return ids.indexOf(ids.reduce((largest, id) => Math.max(largest, id)));
  }

  /** Computes the input of the first block, token plus position embeddings: `[K, T, C]`. */
  embed({ ids }: Prompts, hook?: TowerHook): Tensor {
    return scope(() => {
      const tokens = embedding(this.#tokens, ids);
      const positions = slice(this.#positions, 0, 0, ids.shape[1]);
      const placed = add(hook?.embedded?.(tokens) ?? tokens, positions);
      const changed = hook?.positioned?.(placed);
      // Return a view: the caller releases it, but the hook may hold on to its tensor.
      return changed ? reshape(changed, changed.shape) : placed;
    });
  }

  /** Applies the final layer norm: `[…, C] → […, C]`. */
  normalize(hidden: Tensor): Tensor {
    return this.#finalNorm.forward(hidden);
  }

  /**
   * Normalizes the end-of-text token of each prompt in the output of the last block:
   * `[K, T, C] → [K, C]`.
   */
  pool(hidden: Tensor, { ends }: Prompts): Tensor {
    return scope(() => this.normalize(takeToken(hidden, ends)));
  }

  /** Text features, not L2-normalized: `[K, E]`. */
  forward(prompts: Prompts, pass?: Pass): Tensor {
    return attribute("text", () =>
      scope(() => {
        const hook = pass?.hooks?.text;
        const hidden = runBlocks(this.blocks, this.embed(prompts, hook), pass, hook);
        const [, tokens] = hidden.shape;
        if (tokens !== prompts.ids.shape[1]) {
          throw new RangeError(
            `Cannot pool prompts of ${prompts.ids.shape[1]} tokens: a hook made them ${tokens}, ` +
              "where the end of each is not known",
          );
        }
        const features = this.projection.forward(this.pool(hidden, prompts), pass);
        return hook?.features?.(features) ?? features;
      }));
  }
}
