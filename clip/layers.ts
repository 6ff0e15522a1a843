/**
 * The layers of a transformer block. Their weights are frozen; adapters may change what they
 * compute.
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
import type { WeightSource } from "./weights.ts";

/** A trainable change to a frozen linear layer. It computes the layer's output. */
export interface Adapter {
  /**
   * Computes the output of the changed layer, `[…, in] → […, out]`. It applies `options` in the
   * same pass, as {@linkcode linear} does.
   */
  forward(x: Tensor, layer: FrozenLinear, pass?: Pass, options?: LinearOptions): Tensor;
}

/** What an adapter sees of the layer that it changes. */
export interface FrozenLinear {
  /** The weight, `[out, in]`. */
  readonly weight: Tensor;
  /** The bias, `[out]`. */
  readonly bias: Tensor | null;
}

/**
 * How a training step runs a tower. Without a pass, the tower runs for inference only, and adapters
 * apply no dropout.
 */
export interface Pass {
  /** Seed of the step's dropout masks. Without it, nothing is dropped. */
  readonly seed?: number;
  /** Which items of the step the tower runs on; all by default. */
  readonly items?: Items;
  /** Tensors that adapters compute only once per step. */
  readonly shared?: ReadonlyMap<Adapter, Tensor>;
  /** Hooks through which a method acts inside the towers. */
  readonly hooks?: { readonly vision?: TowerHook; readonly text?: TowerHook };
  /**
   * Whether each block saves only its input and runs again in the backward pass; false by default.
   */
  readonly recompute?: boolean;
}

/**
 * Items of a batch that is processed in chunks. They make the random numbers of an item independent
 * of how the batch was split.
 */
export interface Items {
  /** The index of each item in the batch, u32 `[B]`. */
  readonly numbers: Tensor;
  /** Number of tokens of an item in the full batch. */
  readonly tokens: number;
}

/** Affine layer `y = x Wᵀ + b`, with `weight` `[out, in]` as in PyTorch's checkpoints. */
export class Linear implements FrozenLinear {
  /** The weight, `[out, in]`. */
  weight: Tensor;
  /** The bias, `[out]`. */
  readonly bias: Tensor | null;
  /** The adapter that computes the output instead, if there is one. */
  adapter: Adapter | null = null;

  /** Makes a layer from its weight, and its bias if it has one. */
  constructor(weight: Tensor, bias: Tensor | null = null) {
    this.weight = weight;
    this.bias = bias;
  }

  /** Computes `[…, in] → […, out]` and applies `options` in the same pass. */
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

  /** Makes a layer from its scale and shift, both `[C]`. */
  constructor(weight: Tensor, bias: Tensor, epsilon: number) {
    this.#weight = weight;
    this.#bias = bias;
    this.#epsilon = epsilon;
  }

  /** Normalizes the last axis: `[…, C] → […, C]`. */
  forward(x: Tensor): Tensor {
    return layerNorm(x, this.#weight, this.#bias, this.#epsilon);
  }
}

const ACTIVATIONS: Record<Activation, Elementwise> = {
  quick_gelu: quickGelu,
  gelu,
  gelu_new: geluTanh,
};

/**
 * The linear layers of a block. Keys are the names that adapters use, values are those in
 * checkpoints.
 */
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

/** Makes a {@linkcode LayerNorm} of `width` from the weights called `name`. */
export function layerNormOf(
  weights: WeightSource,
  name: string,
  width: number,
  epsilon: number,
): LayerNorm {
  const layer = weights.at(name);
  return new LayerNorm(layer.get("weight", [width]), layer.get("bias", [width]), epsilon);
}

/**
 * One transformer block with the norms first: `x + attention(norm(x))`, then `x + mlp(norm(x))`
 * (class `ResidualAttentionBlock` of openai/CLIP's `clip/model.py`).
 */
export class ResidualBlock {
  /** The linear layers, by name. */
  readonly projections: Readonly<Record<Projection, Linear>>;
  readonly #norm1: LayerNorm;
  readonly #norm2: LayerNorm;
  readonly #heads: number;
  readonly #causal: boolean;
  readonly #activation: Elementwise;

  /** Builds the block on its weights. */
  constructor(weights: WeightSource, config: TowerConfig, causal: boolean) {
    const { width, mlpWidth, layerNormEps } = config;
    this.#norm1 = layerNormOf(weights, "layer_norm1", width, layerNormEps);
    this.#norm2 = layerNormOf(weights, "layer_norm2", width, layerNormEps);
    const linear = (name: Projection, outputs: number, inputs: number) => {
      const layer = weights.at(PROJECTIONS[name]);
      return new Linear(layer.get("weight", [outputs, inputs]), layer.get("bias", [outputs]));
    };
    this.projections = {
      q: linear("q", width, width),
      k: linear("k", width, width),
      v: linear("v", width, width),
      o: linear("o", width, width),
      fc1: linear("fc1", mlpWidth, width),
      fc2: linear("fc2", width, mlpWidth),
    };
    this.#heads = config.heads;
    this.#causal = causal;
    this.#activation = ACTIVATIONS[config.activation];
  }

  /**
   * Runs the block: `[B, T, C] → [B, T, C]`. Its scope releases every activation that no gradient
   * needs.
   */
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

/**
 * Functions through which a method acts inside a tower; each is optional. A hook may return a
 * tensor that it holds on to: the tower releases only what was made while it ran.
 */
export interface TowerHook {
  /** Changes the token embeddings before positions are added: `[B, T, C] → [B, T, C]`. */
  embedded?(tokens: Tensor): Tensor;
  /** Changes the tokens after positions are added, before any norm: `[B, T, C] → [B, T', C]`. */
  positioned?(tokens: Tensor): Tensor;
  /** Changes the input of the block with this index: `[B, T, C] → [B, T', C]`. */
  entering?(tokens: Tensor, block: number): Tensor;
  /** Changes the features that leave the tower: `[B, E] → [B, E]`. */
  features?(features: Tensor): Tensor;
}

/** Runs blocks one after another, and releases their input `x`: `[B, T, C] → [B, T, C]`. */
export function runBlocks(
  blocks: readonly ResidualBlock[],
  x: Tensor,
  pass?: Pass,
  hook?: TowerHook,
): Tensor {
  return blocks.reduce((left, block, i) => {
    // The scope releases what the hook makes here, but not a tensor that it holds for the next
    // step.
    const y = scope(() => {
      const x = hook?.entering?.(left, i) ?? left;
      const run = () => block.forward(x, pass);
      return pass?.recompute ? recompute([x], run) : run();
    });
    // Release it now. Until the tower's scope ends, a dozen of them would stay alive.
    left.release();
    return y;
  }, x);
}

/** Builds the blocks of a tower. */
export function blocksOf(
  weights: WeightSource,
  config: TowerConfig,
  causal: boolean,
): ResidualBlock[] {
  return Array.from(
    { length: config.layers },
    (_, layer) => new ResidualBlock(weights.at(`encoder.layers.${layer}`), config, causal),
  );
}
