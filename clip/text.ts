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
 * Prompts on the GPU: their ids, and where each ends. For a tower whose attention is causal what
 * comes after the last end-of-text token of them all is left out, since it changes nothing.
 */
export class Prompts {
  /** Token ids `[K, T]`. */
  readonly ids: Tensor;
  /** The index of each prompt's end-of-text token, `[K]`. */
  readonly ends: Tensor;
  readonly #rows: readonly PromptRow[];

  readonly #causal: boolean;

  /**
   * Takes each prompt's ids, all padded to one length, and the index of its end-of-text token, for
   * a tower that is causal or not.
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

  /** Tokens of each prompt, its start and end included. */
  get lengths(): number[] {
    return this.#rows.map(({ end }) => end + 1);
  }

  /** How many prompts there are. */
  get count(): number {
    return this.#rows.length;
  }

  /**
   * The same prompts in chunks of at most `size`, the shortest first, so that each chunk is cut to
   * the longest of its prompts; and the number that each prompt has here.
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

  /** Gives both tensors back. */
  release(): void {
    this.ids.release();
    this.ends.release();
  }
}

/** Some of a set of prompts, cut to the longest of them. */
export interface PromptChunk {
  /** The prompts. */
  readonly prompts: Prompts;
  /** Which of the set they are, for what is drawn at random. */
  readonly items: Items;
  /** The same on the host. */
  readonly numbers: readonly number[];
}

/** Gives the tensors of chunks back. */
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
  /** Its blocks, the one nearest to the tokens first. */
  readonly blocks: readonly ResidualBlock[];
  /** What makes features of the pooled token. */
  readonly projection: Linear;
  readonly #config: TextConfig;
  readonly #tokens: Tensor;
  readonly #positions: Tensor;
  readonly #finalNorm: LayerNorm;

  /** A token sees those before it. */
  readonly causal = true;

  /** Takes the weights of the tower; `embedding` is the width of its features. */
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

  /** How many blocks it has. */
  get depth(): number {
    return this.blocks.length;
  }

  /** The most tokens of a prompt. */
  get context(): number {
    return this.#config.context;
  }

  /** How many tokens there are. */
  get vocabulary(): number {
    return this.#config.vocabulary;
  }

  /** Its linear layers. */
  get linears(): readonly NamedLinear[] {
    const projection = { module: "text_projection", linear: this.projection };
    return namedLinears("text_model", this.blocks, projection);
  }

  /**
   * Puts `rows` prompts, their ids row by row as the tokenizer gives them, on the GPU.
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
   * Where a prompt ends, by the model's rule; at 0 where nothing marks it, as Hugging Face's
   * implementation has it.
   */
  #end(ids: Int32Array): number {
    const { endRule, endToken } = this.#config;
    if (endRule === "first-end") return Math.max(0, ids.indexOf(endToken));
    return ids.indexOf(ids.reduce((largest, id) => Math.max(largest, id)));
  }

  /** What enters the first block: token and position embeddings, `[K, T, C]`. */
  embed({ ids }: Prompts, hook?: TowerHook): Tensor {
    return scope(() => {
      const tokens = embedding(this.#tokens, ids);
      const positions = slice(this.#positions, 0, 0, ids.shape[1]);
      const placed = add(hook?.embedded?.(tokens) ?? tokens, positions);
      const changed = hook?.positioned?.(placed);
      // A view, since who asks for it releases it, and the hook may keep the tensor itself.
      return changed ? reshape(changed, changed.shape) : placed;
    });
  }

  /** Normalized: `[…, C] → […, C]`. */
  normalize(hidden: Tensor): Tensor {
    return this.#finalNorm.forward(hidden);
  }

  /**
   * The normalized last token of each prompt, of what left the last block: `[K, T, C] → [K, C]`.
   */
  pool(hidden: Tensor, { ends }: Prompts): Tensor {
    return scope(() => this.normalize(takeToken(hidden, ends)));
  }

  /** Text features, not normalized: `[K, E]`. */
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
