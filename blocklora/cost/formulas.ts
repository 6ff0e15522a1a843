/**
 * The cost of adapters in closed form, for comparison with what the engine counts.
 *
 * Block-LoRA's paper (arXiv 2501.16720) partitions LoRA's B by columns and its A by rows. We read
 * this as a partition of the rank. Only then are there `r · out + (r/n) · in` parameters, and
 * "eight arms", the blocks Bᵢ `[out, r/n]`, on "one head", A `[r/n, in]`.
 *
 * @module
 */

/** An adapted layer in one step. */
export interface AdaptedSite {
  /** The number of input features of the layer. */
  readonly inputs: number;
  /** The number of output features of the layer. */
  readonly outputs: number;
  /** Rows of the layer's input: the tokens of all images, or of all prompts. */
  readonly rows: number;
  /**
   * Whether the layer's input has a gradient. It has none in the first block of a tower, because
   * nothing before it trains.
   */
  readonly tracked: boolean;
  /**
   * Whether the backward pass has already reached another adapter with the same input. The gradient
   * of the input is then added to that adapter's.
   */
  readonly adds: boolean;
}

/** The cost of all adapters in one step. */
export interface MethodCost {
  /** Number of trainable parameters. */
  readonly parameters: number;
  /** Bytes of AdamW's two moments, 4 for each value. */
  readonly optimizerBytes: number;
  /** Arithmetic operations of the forward pass. */
  readonly forward: number;
  /** Arithmetic operations of the backward pass. */
  readonly backward: number;
  /** Bytes that the tape saves for the backward pass. */
  readonly savedBytes: number;
}

/** The sizes of the thin matrices of an adapter. */
export interface ThinShape {
  /** The number of rows of A, r/n. */
  readonly inner: number;
  /** The number of up-projections. Their sum is applied to the layer. */
  readonly ups: number;
}

/** The cost of one adapter. */
export interface SiteCost {
  /** Number of trainable parameters. */
  readonly parameters: number;
  /** Arithmetic operations of the forward pass. */
  readonly forward: number;
  /** Arithmetic operations of the backward pass. */
  readonly backward: number;
  /** How many values the tape saves for the backward pass. */
  readonly saved: number;
}

/**
 * Operations per element of a dropout: the hash of the index, the comparison, the selection and the
 * product.
 */
export const DROPOUT = 4;

/** The sum of the costs of all adapters. */
export function totalCost(
  sites: readonly AdaptedSite[],
  costOf: (site: AdaptedSite) => SiteCost,
): MethodCost {
  const costs = sites.map(costOf);
  const total = (of: keyof SiteCost) => costs.reduce((sum, cost) => sum + cost[of], 0);
  return {
    parameters: total("parameters"),
    optimizerBytes: 2 * 4 * total("parameters"),
    forward: total("forward"),
    backward: total("backward"),
    savedBytes: 4 * total("saved"),
  };
}

/**
 * The cost of adapters as a thin product, which is added to the product of the layer in the same
 * pass. Dropout is on.
 */
export function thinCost({ inner, ups }: ThinShape, sites: readonly AdaptedSite[]): MethodCost {
  return totalCost(sites, ({ inputs, outputs, rows, tracked, adds }) => {
    const [down, up] = [2 * rows * inputs * inner, 2 * rows * inner * outputs];
    const scale = rows * inner;
    const drop = DROPOUT * rows * inputs;
    const share = (ups - 1) * outputs * inner; // Σ Bᵢ, once per step
    return {
      parameters: inner * inputs + ups * inner * outputs,
      forward: share + drop + down + scale + up,
      // The dropout mask is computed again each time the dropped input is read.
      backward: 2 * up + scale + down + drop + (tracked ? down + drop : 0),
      // The input, which is saved once for all adapters that share it; the thin product; and Σ Bᵢ,
      // which is not itself a parameter.
      saved: (adds ? 0 : rows * inputs) + rows * inner + (ups > 1 ? outputs * inner : 0),
    };
  });
}

/**
 * The cost of adapters as a dense product `x · (s · B A)ᵀ`, which is added to the product of the
 * layer. Dropout is on.
 */
export function denseCost({ inner }: ThinShape, sites: readonly AdaptedSite[]): MethodCost {
  return totalCost(sites, ({ inputs, outputs, rows, tracked }) => {
    const product = 2 * rows * inputs * outputs;
    const share = 2 * outputs * inner * inputs + outputs * inputs; // s · B A, once per step
    const drop = DROPOUT * rows * inputs;
    return {
      parameters: inner * (inputs + outputs),
      forward: share + drop + product + rows * outputs,
      // For each operand that has a gradient, the gradient of a product costs as much as the
      // product. In s · B A, the factors s, A and B have gradients. The gradient of the input is
      // added to that of the layer.
      backward: product + outputs * inputs + 2 * 2 * outputs * inner * inputs +
        (tracked ? product + rows * inputs + drop : 0),
      // The dropped input, and the dense update s · B A.
      saved: rows * inputs + (tracked ? outputs * inputs : 0),
    };
  });
}

/**
 * The adapted sites of a step: q, k and v in every layer of the given towers. The backward pass
 * reaches v first, then k, then q.
 */
export function qkvSites(
  towers: readonly { readonly width: number; readonly layers: number; readonly rows: number }[],
): AdaptedSite[] {
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
 * The ratio of two adapters' bounds on the generalization error, for the same data, loss and bits
 * per parameter. These bounds grow with the square root of the number of trained parameters:
 * `√(2 σ² q ln 2 · parameters / N)`, with q bits per parameter and N samples, for LoRA in Zhu et
 * al., arXiv 2402.16842, section 4.2, from Xu and Raginsky, arXiv 1705.07809. Block-LoRA's paper
 * claims a tighter bound than LoRA's. By this formula, it is tighter by this ratio.
 */
export function boundRatio(parameters: number, ofOther: number): number {
  return Math.sqrt(parameters / ofOther);
}
