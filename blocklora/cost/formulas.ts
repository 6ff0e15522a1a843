/**
 * What adapters cost, in closed form: for comparison with what the engine counts.
 *
 * Block-LoRA's paper (arXiv 2501.16720) partitions LoRA's B by columns and its A by rows; that this
 * is a partition of the rank is our reading, since only so are the parameters `r · out + (r/n) ·
 * in` and the blocks "eight arms", Bᵢ `[out, r/n]`, on "one head", A `[r/n, in]`.
 *
 * @module
 */

/** An adapted layer in one step. */
export interface AdaptedSite {
  /** The layer's inputs. */
  readonly inputs: number;
  /** The layer's outputs. */
  readonly outputs: number;
  /** Rows of its input: tokens of all images, or of all prompts. */
  readonly rows: number;
  /** Whether its input has a gradient: not in a tower's first block, below which nothing trains. */
  readonly tracked: boolean;
  /**
   * Whether an adapter of the same input comes before it in the backward pass: it adds to that
   * one's gradient.
   */
  readonly adds: boolean;
}

/** What the adapters of a step cost. */
export interface MethodCost {
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

/** The sizes of the thin matrices of an adapter. */
export interface ThinShape {
  /** Rows of A, r/n. */
  readonly inner: number;
  /** How many up-projections there are, whose sum is what changes the layer. */
  readonly ups: number;
}

/** What one adapter costs: parameters, operations, and the numbers that the tape keeps. */
export interface SiteCost {
  /** How many numbers train. */
  readonly parameters: number;
  /** Operations of the forward pass. */
  readonly forward: number;
  /** Operations of the backward pass. */
  readonly backward: number;
  /** How many numbers the tape keeps. */
  readonly saved: number;
}

/**
 * Operations for an element of a dropout: the product, the selection, the hash of its index, the
 * comparison.
 */
export const DROPOUT = 4;

/** Sums what adapters cost. */
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
 * The costs of a thin product, which is summed with that of the layer in one pass; dropout is on.
 */
export function thinCost({ inner, ups }: ThinShape, sites: readonly AdaptedSite[]): MethodCost {
  return totalCost(sites, ({ inputs, outputs, rows, tracked, adds }) => {
    const [down, up] = [2 * rows * inputs * inner, 2 * rows * inner * outputs];
    const scale = rows * inner;
    const drop = DROPOUT * rows * inputs;
    const share = (ups - 1) * outputs * inner; // Σ Bᵢ, once a step
    return {
      parameters: inner * inputs + ups * inner * outputs,
      forward: share + drop + down + scale + up,
      // The mask is drawn again wherever what was dropped is read.
      backward: 2 * up + scale + down + drop + (tracked ? down + drop : 0),
      // The input itself, for all adapters of it together, the thin product, and Σ Bᵢ, which is
      // nobody's parameter.
      saved: (adds ? 0 : rows * inputs) + rows * inner + (ups > 1 ? outputs * inner : 0),
    };
  });
}

/**
 * The costs of a dense product `x · (s · B A)ᵀ`, which is added to that of the layer; dropout is
 * on.
 */
export function denseCost({ inner }: ThinShape, sites: readonly AdaptedSite[]): MethodCost {
  return totalCost(sites, ({ inputs, outputs, rows, tracked }) => {
    const product = 2 * rows * inputs * outputs;
    const share = 2 * outputs * inner * inputs + outputs * inputs; // s · B A, once a step
    const drop = DROPOUT * rows * inputs;
    return {
      parameters: inner * (inputs + outputs),
      forward: share + drop + product + rows * outputs,
      // A product has a gradient of the same cost for each operand that has one. Of s · B A those
      // are s, A and B. The input's gradient is added to that of the layer.
      backward: product + outputs * inputs + 2 * 2 * outputs * inner * inputs +
        (tracked ? product + rows * inputs + drop : 0),
      // The dropped input and the dense change.
      saved: rows * inputs + (tracked ? outputs * inputs : 0),
    };
  });
}

/**
 * The sites of a step: q, k and v of every layer of both towers. The backward pass comes to v
 * first, then k, then q.
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
 * The bound on the generalization error of one adapter over that of another, for the same data,
 * loss and bits a parameter. Such bounds grow with the root of the number of trained parameters:
 * `√(2 σ² q ln 2 · parameters / N)`, with q bits a parameter and N samples, for LoRA in Zhu et al.,
 * arXiv 2402.16842, section 4.2, from Xu and Raginsky, arXiv 1705.07809. Block-LoRA's paper claims
 * a tighter bound than LoRA's; with this formula it is tighter by this much.
 */
export function boundRatio(parameters: number, ofOther: number): number {
  return Math.sqrt(parameters / ofOther);
}
