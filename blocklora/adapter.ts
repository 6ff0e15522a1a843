/**
 * LoRA and Block-LoRA: low-rank changes to a frozen linear layer.
 *
 * @module
 */

import { dropout } from "../autograd/ops/dropout.ts";
import { linear, matmul } from "../autograd/ops/matmul.ts";
import { add, mulScalar } from "../autograd/ops/pointwise.ts";
import type { Adapter } from "../clip/layers.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** What every adapter takes besides its matrices. */
export interface LowRankOptions {
  /** The factor of the change, `alpha / √r` or `alpha / r`. */
  readonly scale: number;
  /** Probability of dropping an element of the adapter's input while training; 0 by default. */
  readonly dropout?: number;
  /** Which of a seed's dropout masks is this adapter's: each projection needs one of its own. */
  readonly stream?: number;
}

/** A change `W' = W + s · U · A` of a frozen weight `W` `[out, in]`; how `U` `[out, …]` is made says the kind of adapter. */
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

  /** The up-projection that the change is made with, `[out, rank]`. */
  protected abstract up(): Tensor;

  /** `s · U A dropout(x)`: `[…, in] → […, out]`. Dropout needs a `seed`. */
  delta(x: Tensor, seed?: number): Tensor {
    return scope(() => {
      const input = seed === undefined
        ? x
        : dropout(x, this.#dropout, { seed, stream: this.#stream });
      // Scaled where it is smallest, at [.., rank].
      return linear(mulScalar(linear(input, this.down), this.scale), this.up());
    });
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

/** LoRA: `W' = W + s · B A`, A `[r, in]`, B `[out, r]` (Hu et al., arXiv 2106.09685, equation 3). */
export class Lora extends LowRank {
  /** B itself. */
  protected override up(): Tensor {
    return this.ups[0];
  }
}

/**
 * Block-LoRA: `W' = W + s · (B₁ + … + Bₙ) A`, A `[r/n, in]`, Bᵢ `[out, r/n]` (arXiv 2501.16720). LoRA's B is cut by
 * columns and its A by rows into n blocks, `B A = Σ Bᵢ Aᵢ`; the Aᵢ are then made one, so that n products become n sums.
 */
export class BlockLora extends LowRank {
  /** `Σ Bᵢ`. */
  protected override up(): Tensor {
    return scope(() => this.ups.reduce((total, up) => add(total, up)));
  }
}
