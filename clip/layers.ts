/**
 * The layers of a transformer block, over frozen weights that adapters may change.
 *
 * @module
 */

import { layerNorm } from "../autograd/ops/layer_norm.ts";
import { linear, type LinearOptions } from "../autograd/ops/linear.ts";
import { type Elementwise, gelu, geluTanh, quickGelu } from "../autograd/ops/pointwise.ts";
import { attention } from "../autograd/ops/attention.ts";
import { permute, reshape } from "../autograd/ops/view.ts";
import { recompute } from "../autograd/recompute.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Activation, TowerConfig } from "./config.ts";
import type { Weights } from "./weights.ts";

/** A trainable change to a frozen linear layer: it makes the layer's output in its place. */
export interface Adapter {
  /**
   * What the changed layer gives, `[…, in] → […, out]`, and what else is to be done in the same
   * pass, as {@linkcode linear} does it.
   */
  forward(x: Tensor, layer: FrozenLinear, pass?: Pass, options?: LinearOptions): Tensor;
}

/** What an adapter is told of the layer that it sits in. */
export interface FrozenLinear {
  /** The weight, `[out, in]`. */
  readonly weight: Tensor;
  /** The bias, `[out]`. */
  readonly bias: Tensor | null;
}

/** How a training step runs a tower; without one the tower only infers, and adapters drop nothing. */
export interface Pass {
  /** Seed of the step's dropout masks. */
  readonly seed: number;
  /** Which items of the step these are, where a tower is run on a part of them; all by default. */
  readonly items?: Items;
  /** What adapters have computed once for the whole step. */
  readonly shared?: ReadonlyMap<Adapter, Tensor>;
  /** Whether a block keeps only its input and runs again in the backward pass; false by default. */
  readonly recompute?: boolean;
}

/** Items of a batch that is worked on in parts: what is drawn at random for one does not depend on the parts. */
export interface Items {
  /** The number of each in the whole batch, u32 `[B]`. */
  readonly numbers: Tensor;
  /** How many tokens an item has in the whole batch. */
  readonly tokens: number;
}

/** Affine layer `y = x Wᵀ + b`, with `weight` `[out, in]` as in PyTorch's checkpoints. */
export class Linear implements FrozenLinear {
  /** The weight, `[out, in]`. */
  weight: Tensor;
  /** The bias, `[out]`. */
  readonly bias: Tensor | null;
  /** What makes its output in its place, if anything does. */
  adapter: Adapter | null = null;

  /** Takes the weight, and the bias if the layer has one. */
  constructor(weight: Tensor, bias: Tensor | null = null) {
    this.weight = weight;
    this.bias = bias;
  }

  /** `[…, in] → […, out]`, and what else is to be done in the same pass. */
  forward(x: Tensor, pass?: Pass, options: LinearOptions = {}): Tensor {
    const { weight, bias, adapter } = this;
    return adapter ? adapter.forward(x, this, pass, options) : linear(x, weight, bias, options);
  }
}

/** Layer normalization over the last axis. */
export class LayerNorm {
  readonly #weight: Tensor;
  readonly #bias: Tensor;
  readonly #epsilon: number;

  /** Takes scale and shift, both `[C]`. */
  constructor(weight: Tensor, bias: Tensor, epsilon: number) {
    this.#weight = weight;
    this.#bias = bias;
    this.#epsilon = epsilon;
  }

  /** `[…, C] → […, C]`. */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.#weight, this.#bias, this.#epsilon);
  }
}

const ACTIVATIONS: Record<Activation, Elementwise> = {
  quick_gelu: quickGelu,
  gelu,
  gelu_new: geluTanh,
};

/** The linear layers of a block, by the names that adapters call them. */
export const PROJECTIONS = {
  q: "self_attn.q_proj",
  k: "self_attn.k_proj",
  v: "self_attn.v_proj",
  o: "self_attn.out_proj",
  fc1: "mlp.fc1",
  fc2: "mlp.fc2",
} as const;

/** A linear layer of a block: `q`, `k`, `v`, `o`, `fc1` or `fc2`. */
export type Projection = keyof typeof PROJECTIONS;

/** Makes the {@linkcode LayerNorm} whose weights have names that begin with `name`. */
export function layerNormOf(weights: Weights, name: string, epsilon: number): LayerNorm {
  return new LayerNorm(weights.get(`${name}.weight`), weights.get(`${name}.bias`), epsilon);
}

/**
 * One transformer block, its norms before its parts: `x + attention(norm(x))`, then `x + mlp(norm(x))` (class
 * `ResidualAttentionBlock` of openai/CLIP's `clip/model.py`).
 */
export class ResidualBlock {
  /** The linear layers, by name. */
  readonly projections: Readonly<Record<Projection, Linear>>;
  readonly #norm1: LayerNorm;
  readonly #norm2: LayerNorm;
  readonly #heads: number;
  readonly #causal: boolean;
  readonly #activation: Elementwise;

  /** Takes the weights whose names begin with `name`. */
  constructor(weights: Weights, name: string, config: TowerConfig, causal: boolean) {
    const of = (part: string) =>
      new Linear(weights.get(`${name}.${part}.weight`), weights.get(`${name}.${part}.bias`));
    const entries = Object.entries(PROJECTIONS).map(([short, part]) => [short, of(part)]);
    this.projections = Object.fromEntries(entries);
    this.#norm1 = layerNormOf(weights, `${name}.layer_norm1`, config.layerNormEps);
    this.#norm2 = layerNormOf(weights, `${name}.layer_norm2`, config.layerNormEps);
    this.#heads = config.heads;
    this.#causal = causal;
    this.#activation = ACTIVATIONS[config.activation];
  }

  /** `[B, T, C] → [B, T, C]`. Its scope releases every activation that no gradient needs. */
  forward(x: Tensor, pass?: Pass): Tensor {
    return scope(() => {
      const attended = scope(() => this.#attend(x, pass));
      return scope(() => this.#transform(attended, pass));
    });
  }

  #attend(x: Tensor, pass?: Pass): Tensor {
    const [batch, tokens, width] = x.shape;
    const { q, k, v, o } = this.projections;
    const normal = this.#norm1.forward(x);
    const heads = (layer: Linear) => { // [B, T, C] → [B, H, T, D]
      const split = reshape(layer.forward(normal, pass), [batch, tokens, this.#heads, -1]);
      return permute(split, [0, 2, 1, 3]);
    };
    const mixed = attention(heads(q), heads(k), heads(v), { causal: this.#causal });
    const joined = reshape(permute(mixed, [0, 2, 1, 3]), [batch, tokens, width]);
    return o.forward(joined, pass, { residual: x });
  }

  #transform(x: Tensor, pass?: Pass): Tensor {
    const { fc1, fc2 } = this.projections;
    const hidden = fc1.forward(this.#norm2.forward(x), pass, { activation: this.#activation });
    return fc2.forward(hidden, pass, { residual: x });
  }
}

/** What leaves the last of some blocks, of an `x` that is released: `[B, T, C] → [B, T, C]`. */
export function runBlocks(blocks: readonly ResidualBlock[], x: Tensor, pass?: Pass): Tensor {
  return blocks.reduce((x, block) => {
    const run = () => block.forward(x, pass);
    const y = pass?.recompute ? recompute([x], run) : run();
    // Now, not when the tower's scope ends: a dozen of them would be alive until then.
    x.release();
    return y;
  }, x);
}

/** The blocks of a tower, whose weights' names begin with `name`. */
export function blocksOf(
  weights: Weights,
  name: string,
  config: TowerConfig,
  causal: boolean,
): ResidualBlock[] {
  return Array.from(
    { length: config.layers },
    (_, layer) => new ResidualBlock(weights, `${name}.encoder.layers.${layer}`, config, causal),
  );
}
