/**
 * Finds how a step can save enough memory to fit a limit. Candidates are counted, not run.
 *
 * @module
 */

import type { ModelDefinition } from "../../clip/model.ts";
import type { Precision } from "../../clip/weights.ts";
import { type DryGpu, onDryEngine } from "../../tensor/device.ts";
import { emptyModel } from "./models.ts";
import { countStep, type PrepareStep, type StepCost, type StepSizes } from "./step_cost.ts";

/**
 * How a step saves memory. Each option costs time; none changes the gradients. All are off by
 * default.
 */
export interface MemoryPlan {
  /**
   * Whether each block saves only its input and runs again in the backward pass. This costs one
   * more forward pass.
   */
  readonly recompute?: boolean;
  /**
   * How many prompts the text tower encodes at once; 0 for all. With chunks, the tower first runs
   * without a tape. When the gradients of its features are known, it runs again, chunk by chunk
   * (Gao et al., arXiv 2101.06983). This costs one more forward pass of the text tower, but chunks
   * of short prompts are padded to a shorter length.
   */
  readonly textChunk?: number;
  /**
   * How many images the image tower encodes at once; 0 for all. The gradients of each chunk are
   * computed before the next chunk runs.
   */
  readonly microBatch?: number;
}

/** What to find a memory plan for. */
export interface PlanRequest<Sizes extends StepSizes = StepSizes> {
  /** The model. */
  readonly definition: ModelDefinition;
  /**
   * The precisions in which the frozen matrices may be stored. The first one with which the step
   * fits is used.
   */
  readonly precisions: readonly Precision[];
  /** The step. Options that its memory plan sets are not changed. */
  readonly step: Sizes;
  /** How many bytes the step may hold. */
  readonly limit: number;
  /** The GPU that the step will run on. */
  readonly gpu?: DryGpu;
}

/** A memory plan that fits. */
export interface Planned {
  /** How the step saves memory. */
  readonly memory: Required<MemoryPlan>;
  /** How the frozen matrices are stored. */
  readonly precision: Precision;
  /** The cost of the step. */
  readonly cost: StepCost;
}

/**
 * The cost of starting a kernel, in FLOPs, when memory plans are compared. It stands for about
 * 10 µs on a GPU or about 30 µs with a software driver, whichever is more FLOPs.
 */
const DISPATCH_FLOPS = 5e7;

/**
 * The fastest memory plan that fits the limit, estimated by FLOPs and dispatches. Steps are counted
 * on dry engines; the current engine is not used.
 *
 * @throws {RangeError} If no memory plan fits. The message says how many bytes would suffice.
 */
export function planMemory<Sizes extends StepSizes>(
  prepare: PrepareStep<Sizes>,
  request: PlanRequest<Sizes>,
): Planned {
  const { precisions, limit, gpu = {} } = request;
  let least = Infinity;
  for (const precision of precisions) {
    const { planned, needed } = onDryEngine(gpu, () => planWith(prepare, precision, request));
    if (planned) return planned;
    least = Math.min(least, needed);
  }
  const inMegabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  throw new RangeError(
    `Cannot take a step in ${inMegabytes(limit)}: ` +
      (least < Infinity
        ? `the least that any way needs is ${
          inMegabytes(least)
        }, use a smaller batch or fewer adapters`
        : "every way has a tensor that the GPU cannot bind, use a smaller batch"),
  );
}

/** The memory plan for one precision, and the fewest bytes that any tried memory plan needs. */
function planWith<Sizes extends StepSizes>(
  prepare: PrepareStep<Sizes>,
  precision: Precision,
  { definition, step, limit }: PlanRequest<Sizes>,
): { planned?: Planned; needed: number } {
  const model = emptyModel(definition, precision);
  const count = (memory: Required<MemoryPlan>, more?: Partial<StepSizes>): StepCost | null => {
    try {
      return countStep(prepare, model, { ...step, memory, warm: false, ...more });
    } catch (error) {
      // A tensor is too large for a binding of the device. This memory plan cannot run.
      if (error instanceof RangeError) return null;
      throw error;
    }
  };
  const texts = sizesOf(step.memory?.textChunk, step.promptTokens.length, 4);
  const images = sizesOf(step.memory?.microBatch, step.batch, 5);
  // The size of the image chunks does not change the FLOPs, so the other options are ranked first.
  const first = (way: Omit<Required<MemoryPlan>, "microBatch">) => {
    for (const microBatch of images) {
      const cost = count({ ...way, microBatch });
      if (cost) return cost;
    }
    return null;
  };
  const ways = (step.memory?.recompute === undefined ? [false, true] : [step.memory.recompute])
    .flatMap((recompute) => texts.map((textChunk) => ({ recompute, textChunk })))
    .map((way) => ({ way, cost: first(way) }))
    .filter(({ cost }) => cost !== null)
    .sort((a, b) => weigh(a.cost!) - weigh(b.cost!));
  let needed = Infinity;
  for (const { way } of ways) {
    for (const microBatch of images) {
      const memory = { ...way, microBatch };
      const cost = count(memory);
      needed = Math.min(needed, cost?.peakGpuBytes ?? Infinity);
      if (!cost || cost.peakGpuBytes > limit) continue;
      const held = count(memory, { warm: true, memoryLimit: limit })!;
      if (held.peakHeldBytes <= limit) {
        return { planned: { memory, precision, cost: held }, needed };
      }
    }
  }
  return { needed };
}

const weigh = ({ flops, dispatches }: StepCost) => flops.total + DISPATCH_FLOPS * dispatches;

/**
 * Chunk sizes to try: only `chosen` if it is set; else 0 (all at once), followed by `all` halved up
 * to `times` times.
 */
function sizesOf(chosen: number | undefined, all: number, times: number): number[] {
  if (chosen !== undefined) return [chosen];
  const halves = Array.from({ length: times }, (_, i) => Math.ceil(all / 2 ** (i + 1)));
  return [0, ...new Set(halves.filter((size) => size < all))];
}

/**
 * Parses a number of bytes such as `4GB`, `512 MiB` or `1.5e9`.
 *
 * @throws {RangeError} If `text` is not a number of bytes.
 */
export function parseBytes(text: string): number {
  const [, number, prefix = "", binary] =
    /^\s*([\d.]+(?:e\d+)?)\s*(?:([kmgt])?(i)?b)?\s*$/i.exec(text) ?? [];
  const power = " kmgt".indexOf(prefix.toLowerCase() || " ");
  const bytes = Number(number) * (binary ? 1024 : 1000) ** power;
  if (bytes > 0) return Math.floor(bytes);
  throw new RangeError(`"${text}" is no number of bytes, write 4GB or 512MiB`);
}
