/**
 * What towers and models are to everything else.
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

/** A linear layer of a tower, by the name that checkpoints give it. */
export interface NamedLinear {
  /** Without `.weight`: `vision_model.encoder.layers.0.self_attn.q_proj`. */
  readonly module: string;
  /** What it does: a projection of a block, or `proj`, which makes the features. */
  readonly role: Projection | "proj";
  /** The number of its block; null of a layer that is in none. */
  readonly block: number | null;
  /** The layer. */
  readonly linear: Linear;
}

/** From pixels or tokens to features. */
export interface Tower<Input> {
  /** Its linear layers, which adapters may change. */
  readonly linears: readonly NamedLinear[];
  /** How many blocks it has. */
  readonly depth: number;
  /**
   * Whether a token sees only those before it: what comes after the last that counts may be cut.
   */
  readonly causal: boolean;
  /** Features, not normalized: `[B, E]`. */
  forward(input: Input, pass?: Pass): Tensor;
}

/** The linear layers of transformer blocks, and of what makes features of their result. */
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
