/**
 * What the LoRA family has in common: a product of thin matrices that changes a frozen weight.
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
  /**
   * The number of this adapter's dropout mask among those of a seed. Each projection needs a
   * different one.
   */
  readonly stream?: number;
}

/**
 * A change `W' = W + s · U · A` of a frozen weight `W` `[out, in]`. Each kind of adapter decides
 * where `U` `[out, rank]` comes from, and in which order the products are taken.
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
   * Takes the matrices, which the caller releases.
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

  /** Computes what every call of a step needs, once a step, from the tensors that train. */
  abstract share(): Tensor;

  abstract forward(x: Tensor, layer: FrozenLinear, pass?: Pass, options?: LinearOptions): Tensor;

  /** The up-projection U that the change is made with, `[out, rank]`. */
  protected up(): Tensor {
    return this.ups[0];
  }

  /**
   * The result of {@linkcode share} in a pass, which is computed now if the pass does not have it.
   */
  protected shared(pass?: Pass): Tensor {
    return pass?.shared?.get(this) ?? this.share();
  }

  /** The dropout of the input in a training pass; undefined in any other. */
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

  /** The tensors that train, A first. */
  get tensors(): Readonly<Record<string, Tensor>> {
    const names = partNames(this.numbered ? this.ups.length : null);
    return Object.fromEntries([this.down, ...this.ups].map((matrix, i) => [names[i], matrix]));
  }
}

/**
 * The names that files have for A and the up-projections: `blocks` numbered ones, or PEFT's single
 * one if `blocks` is null.
 */
export function partNames(blocks: number | null): string[] {
  const ups = blocks === null
    ? ["lora_B.weight"]
    : Array.from({ length: blocks }, (_, i) => `lora_B.${i}.weight`);
  return ["lora_A.weight", ...ups];
}
