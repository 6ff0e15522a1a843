/**
 * LoRA and Block-LoRA: low-rank changes to a frozen linear layer.
 *
 * @module
 */

import { dropout, type DropoutKey } from "../../autograd/ops/dropout.ts";
import { linear } from "../../autograd/ops/linear.ts";
import { lowRankLinear } from "../../autograd/ops/low_rank.ts";
import { matmul } from "../../autograd/ops/matmul.ts";
import { add, addAll, mulScalar } from "../../autograd/ops/pointwise.ts";
import type { LinearOptions } from "../../autograd/ops/linear.ts";
import type { Adapter, FrozenLinear, Pass } from "../../clip/layers.ts";
import { scope } from "../../tensor/scope.ts";
import { attribute } from "../../tensor/measure.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** What every adapter takes besides its matrices. */
export interface LowRankOptions {
  /** The factor of the change, `alpha / √r` or `alpha / r`. */
  readonly scale: number;
  /** Probability of dropping an element of the adapter's input while training; 0 by default. */
  readonly dropout?: number;
  /** Which of a seed's dropout masks is this adapter's: each projection needs one of its own. */
  readonly stream?: number;
}

/**
 * A change `W' = W + s · U · A` of a frozen weight `W` `[out, in]`; where `U` `[out, rank]` comes from, and in which
 * order the products are taken, says the kind of adapter.
 */
export abstract class LowRank implements Adapter {
  /** The down-projection A, `[rank, in]`. */
  readonly down: Tensor;
  /** The up-projections, `[out, rank]` each. */
  readonly ups: readonly Tensor[];
  /** The factor of the change. */
  readonly scale: number;
  readonly #dropout: number;
  readonly #stream: number;

  /**
   * Takes the matrices, which stay the caller's.
   *
   * @throws {RangeError} If the inner sizes of the matrices differ.
   */
  constructor(
    down: Tensor,
    ups: readonly Tensor[],
    { scale, dropout = 0, stream = 0 }: LowRankOptions,
  ) {
    for (const up of ups) {
      if (up.shape[1] === down.shape[0]) continue;
      throw new RangeError(
        `Cannot adapt with down [${down.shape}] and up [${up.shape}]: inner sizes are ${
          down.shape[0]
        } and ${up.shape[1]}`,
      );
    }
    this.down = down;
    this.ups = ups;
    this.scale = scale;
    this.#dropout = dropout;
    this.#stream = stream;
  }

  /** What every call of a step needs, computed from the trainable matrices alone. */
  abstract share(): Tensor;

  abstract forward(
    x: Tensor,
    layer: FrozenLinear,
    pass?: Pass,
    options?: LinearOptions,
  ): Tensor;

  /** The up-projection U that the change is made with, `[out, rank]`. */
  protected up(): Tensor {
    return this.ups[0];
  }

  /** What the steps of one pass have in common, computed once. */
  protected shared(pass?: Pass): Tensor {
    return pass?.shared?.get(this) ?? this.share();
  }

  /** What falls of the input in a pass of training; nothing otherwise. */
  protected dropped(x: Tensor, pass?: Pass): { p: number; key: DropoutKey } | undefined {
    if (!pass) return undefined;
    const { seed, items } = pass;
    const rows = items && { numbers: items.numbers, size: items.tokens * x.shape.at(-1)! };
    return { p: this.#dropout, key: { seed, stream: this.#stream, rows } };
  }

  /** The change of the weight, `s · U A`, `[out, in]`. */
  weightDelta(): Tensor {
    return scope(() => mulScalar(matmul(this.up(), this.down), this.scale));
  }

  /** The trainable matrices, A first. */
  get parameters(): Tensor[] {
    return [this.down, ...this.ups];
  }
}

/**
 * LoRA in two thin products: `s · (x Aᵀ) Bᵀ`, A `[r, in]`, B `[out, r]` (Hu et al., arXiv 2106.09685, equation 3). With
 * `r/n` in r's place it is also Block-LoRA whose equal blocks are collapsed into the one sum that they make.
 */
export class Lora extends LowRank {
  /** U, which is B. */
  override share(): Tensor {
    return this.up();
  }

  override forward(
    x: Tensor,
    { weight, bias }: FrozenLinear,
    pass?: Pass,
    options?: LinearOptions,
  ): Tensor {
    return scope(() => {
      const change = {
        down: this.down,
        up: attribute("adapter", () => this.shared(pass)),
        scale: this.scale,
        dropout: this.dropped(x, pass),
        part: "adapter",
      };
      return lowRankLinear(x, weight, bias, change, options);
    });
  }
}

/**
 * LoRA as CLIP-LoRA computes it when dropout is on: `x · (s · B A)ᵀ`, with the dense product `B A` `[out, in]` (method
 * `forward_lora` of `loralib/layers.py` in github.com/MaxZanella/CLIP-LoRA). The same function as {@linkcode Lora}.
 */
export class DenseLora extends LowRank {
  /** The dense change of the weight, `[out, in]`. */
  override share(): Tensor {
    return this.weightDelta();
  }

  /** One dense product more, which is added to that of the layer. */
  override forward(
    x: Tensor,
    { weight, bias }: FrozenLinear,
    pass?: Pass,
    options: LinearOptions = {},
  ): Tensor {
    return scope(() => {
      const delta = attribute("adapter", () => {
        const drop = this.dropped(x, pass);
        return linear(drop ? dropout(x, drop.p, drop.key) : x, this.shared(pass));
      });
      const { activation, residual } = options;
      const y = linear(x, weight, bias, activation ? {} : options);
      const changed = attribute("adapter", () => add(y, delta));
      if (!activation) return changed;
      return residual ? add(activation(changed), residual) : activation(changed);
    });
  }
}

/**
 * Block-LoRA: `W' = W + s · (B₁ + … + Bₙ) A`, A `[r/n, in]`, Bᵢ `[out, r/n]` (arXiv 2501.16720). LoRA's B is cut by
 * columns and its A by rows into n blocks, `B A = Σ Bᵢ Aᵢ`; the Aᵢ are then made one, so that n products become n sums.
 */
export class BlockLora extends Lora {
  /** `Σ Bᵢ`. */
  protected override up(): Tensor {
    return addAll(this.ups);
  }
}
