/**
 * What adapters cost, in closed form: for comparison with what the engine counts.
 *
 * Block-LoRA's paper (arXiv 2501.16720) partitions LoRA's B by columns and its A by rows; that this is a partition of
 * the rank is our reading, since only so are the parameters `r · out + (r/n) · in` and the blocks "eight arms", Bᵢ
 * `[out, r/n]`, on "one head", A `[r/n, in]`.
 *
 * @module
 */

import type { AdapterConfig } from "../methods/attach.ts";

/** An adapted layer in one step. */
export interface Site {
  /** The layer's inputs. */
  readonly inputs: number;
  /** The layer's outputs. */
  readonly outputs: number;
  /** Rows of its input: tokens of all images, or of all prompts. */
  readonly rows: number;
  /** Whether the gradient flows on to its input: not in a tower's first block, below which nothing trains. */
  readonly tracked: boolean;
  /** Whether an adapter of the same input comes before it in the backward pass: it adds to that one's gradient. */
  readonly adds: boolean;
}

/** What the adapters of a step cost. */
export interface AdapterCost {
  /** How many numbers train. */
  readonly parameters: number;
  /** AdamW's two moments, 4 bytes each. */
  readonly optimizerBytes: number;
  /** Arithmetic operations of the forward pass. */
  readonly forward: number;
  /** Arithmetic operations of the backward pass. */
  readonly backward: number;
  /** What the tape keeps for the backward pass. */
  readonly savedBytes: number;
}

/** Operations for an element of a dropout: the product, the choice, the hash of its place, the comparison. */
const DROPOUT = 4;

/** Sums the costs of an adapter of each site; dropout is on. */
export function adapterCost(
  { method, rank, blocks }: Pick<AdapterConfig, "method" | "rank" | "blocks">,
  sites: readonly Site[],
): AdapterCost {
  const inner = rank / blocks; // rows of A, r/n
  const arms = method === "block-lora" ? blocks : 1;
  const dense = method === "lora-dense";
  const costs = sites.map(({ inputs, outputs, rows, tracked, adds }) => {
    const parameters = inner * inputs + arms * inner * outputs;
    // Once a step: Σ Bᵢ, or s · B A.
    const share = dense
      ? 2 * outputs * inner * inputs + outputs * inputs
      : (arms - 1) * outputs * inner;
    const product = 2 * rows * inputs * outputs;
    const [down, up] = [2 * rows * inputs * inner, 2 * rows * inner * outputs];
    const scale = rows * inner;
    const drop = DROPOUT * rows * inputs;
    // A dense delta is added to the layer's output; a thin one is summed with it.
    const forward = share + drop + (dense ? product + rows * outputs : down + scale + up);
    // A product has a gradient of the same cost for each operand that has one. Of s · B A those are s, A and B. Thin
    // products draw the mask again wherever they read what was dropped. A dense delta's input gradient is added to that
    // of the layer, with which a thin one's is summed.
    const weights = dense
      ? product + outputs * inputs + 2 * 2 * outputs * inner * inputs
      : 2 * up + scale + down + drop;
    const input = tracked ? (dense ? product + rows * inputs : down) + drop : 0;
    // The dense way keeps the dropped input and the dense change; the thin one the input itself, for all adapters of it
    // together, the thin product, and Σ Bᵢ, which is nobody's parameter.
    const saved = dense
      ? rows * inputs + (tracked ? outputs * inputs : 0)
      : (adds ? 0 : rows * inputs) + rows * inner + (arms > 1 ? outputs * inner : 0);
    return { parameters, forward, backward: weights + input, savedBytes: 4 * saved };
  });
  const total = (of: keyof typeof costs[number]) => costs.reduce((sum, cost) => sum + cost[of], 0);
  return {
    parameters: total("parameters"),
    optimizerBytes: 2 * 4 * total("parameters"),
    forward: total("forward"),
    backward: total("backward"),
    savedBytes: total("savedBytes"),
  };
}

/**
 * The sites of a step: q, k and v of every layer of both towers. The backward pass comes to v first, then k, then q.
 */
export function qkvSites(
  towers: readonly { readonly width: number; readonly layers: number; readonly rows: number }[],
): Site[] {
  return towers.flatMap(({ width, layers, rows }) =>
    Array.from({ length: layers }, (_, layer) =>
      ["v", "k", "q"].map((projection) => ({
        inputs: width,
        outputs: width,
        rows,
        tracked: layer > 0,
        adds: projection !== "v",
      }))).flat()
  );
}

/**
 * The bound on the generalization error of one adapter over that of another, for the same data, loss and bits a
 * parameter. Such bounds grow with the root of the number of trained parameters: `√(2 σ² q ln 2 · parameters / N)`, with
 * q bits a parameter and N samples, for LoRA in Zhu et al., arXiv 2402.16842, section 4.2, from Xu and Raginsky, arXiv
 * 1705.07809. Block-LoRA's paper claims a tighter bound than LoRA's; with this formula it is tighter by this much.
 */
export function boundRatio(parameters: number, ofOther: number): number {
  return Math.sqrt(parameters / ofOther);
}
