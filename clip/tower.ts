/**
 * The interface of a tower, and the names of its linear layers.
 *
 * @module
 */

import type { Tensor } from "../tensor/tensor.ts";
import {
  type Linear,
  type Pass,
  type Projection,
  PROJECTIONS,
  type ResidualBlock,
} from "./layers.ts";

/** A linear layer of a tower, with the name that checkpoints give it. */
export interface NamedLinear {
  /** Its name without `.weight`, such as `vision_model.encoder.layers.0.self_attn.q_proj`. */
  readonly module: string;
  /** What it does: a projection of a block, or `proj`, which makes the features. */
  readonly role: Projection | "proj";
  /** The index of its block, or null if it is in none. */
  readonly block: number | null;
  /** The layer. */
  readonly linear: Linear;
}

/** Turns pixels or tokens into features. */
export interface Tower<Input> {
  /** The linear layers, which adapters may change. */
  readonly linears: readonly NamedLinear[];
  /** Number of blocks. */
  readonly depth: number;
  /**
   * Whether a token attends only to itself and to those before it. The tokens after the last one
   * that counts may then be cut off.
   */
  readonly causal: boolean;
  /** Features, not L2-normalized: `[B, E]`. */
  forward(input: Input, pass?: Pass): Tensor;
}

/**
 * The linear layers of transformer blocks, then the projection that turns their output into
 * features.
 */
export function namedLinears(
  tower: string,
  blocks: readonly ResidualBlock[],
  projection: { readonly module: string; readonly linear: Linear },
): NamedLinear[] {
  return [
    ...blocks.flatMap(({ projections }, block) =>
      (Object.keys(PROJECTIONS) as Projection[]).map((role) => ({
        module: `${tower}.encoder.layers.${block}.${PROJECTIONS[role]}`,
        role,
        block,
        linear: projections[role],
      }))
    ),
    { ...projection, role: "proj", block: null },
  ];
}
