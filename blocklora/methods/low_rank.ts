/**
 * What LoRA and its kin have in common: a product of thin matrices that changes a frozen weight.
 *
 * @module
 */

import type { DropoutKey } from "../../autograd/ops/dropout.ts";
import type { LinearOptions } from "../../autograd/ops/linear.ts";
import { matmul } from "../../autograd/ops/matmul.ts";
import { add, mulScalar } from "../../autograd/ops/pointwise.ts";
import type { FrozenLinear, Pass } from "../../clip/layers.ts";
import { scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { LayerAdapter } from "./adapters.ts";

/** What every adapter takes besides its matrices. */
export interface LowRankOptions {
  /** The factor of the change, `alpha / √r` or `alpha / r`. */
  readonly scale: number;
  /** Probability of dropping an element of the adapter's input while training; 0 by default. */
  readonly dropout?: number;
  /** Which of a seed's dropout masks is this adapter's: each projection needs another. */
  readonly stream?: number;
}

/**
 * A change `W' = W + s · U · A` of a frozen weight `W` `[out, in]`; where `U` `[out, rank]` comes
 * from, and in which order the products are taken, says the kind of adapter.
 */
export abstract class LowRank implements LayerAdapter {
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

  /** What every call of a step needs, computed once of what trains. */
  abstract share(): Tensor;

  abstract forward(x: Tensor, layer: FrozenLinear, pass?: Pass, options?: LinearOptions): Tensor;

  /** The up-projection U that the change is made with, `[out, rank]`. */
  protected up(): Tensor {
    return this.ups[0];
  }

  /** What the calls of one step have in common. */
  protected shared(pass?: Pass): Tensor {
    return pass?.shared?.get(this) ?? this.share();
  }

  /** What is dropped of the input in a pass of training; nothing otherwise. */
  protected dropped(x: Tensor, pass?: Pass): { p: number; key: DropoutKey } | undefined {
    if (pass?.seed === undefined) return undefined;
    const { seed, items } = pass;
    const rows = items && { numbers: items.numbers, size: items.tokens * x.shape.at(-1)! };
    return { p: this.#dropout, key: { seed, stream: this.#stream, rows } };
  }

  /** The change of the weight, `s · U A`, `[out, in]`. */
  weightDelta(): Tensor {
    return scope(() => mulScalar(matmul(this.up(), this.down), this.scale));
  }

  /** `W + s · U A`. */
  mergedWeight(weight: Tensor): Tensor {
    return scope(() => add(weight, this.weightDelta()));
  }

  /** Whether each up-projection has a number in files, rather than PEFT's name. */
  protected readonly numbered: boolean = false;

  /** What trains, A first. */
  get tensors(): Readonly<Record<string, Tensor>> {
    const names = partNames(this.numbered ? this.ups.length : null);
    return Object.fromEntries([this.down, ...this.ups].map((matrix, i) => [names[i], matrix]));
  }
}

/** What files call A and the up-projections: so many, with numbers; or PEFT's one. */
export function partNames(blocks: number | null): string[] {
  const ups = blocks === null
    ? ["lora_B.weight"]
    : Array.from({ length: blocks }, (_, i) => `lora_B.${i}.weight`);
  return ["lora_A.weight", ...ups];
}
