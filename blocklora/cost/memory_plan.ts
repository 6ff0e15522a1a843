/**
 * Which of the ways to need less memory a step should take: found by counting, not by trying.
 *
 * @module
 */

import type { ModelDefinition } from "../../clip/model.ts";
import type { Precision } from "../../clip/weights.ts";
import { type DryGpu, onDryEngine } from "../../tensor/device.ts";
import { emptyModel } from "./models.ts";
import { countStep, type PrepareStep, type StepCost, type StepSizes } from "./step_cost.ts";

/**
 * What a step does to need less memory; each costs time, none changes its gradients. Nothing of it
 * by default.
 */
export interface MemoryPlan {
  /**
   * Whether each block keeps only its input, and runs again in the backward pass: a forward pass
   * more.
   */
  readonly recompute?: boolean;
  /**
   * Prompts that the text tower takes at once: it runs without a tape first, and again, chunk by
   * chunk, when the gradients of its features are there (Gao et al., arXiv 2101.06983). A forward
   * pass of the text tower more, though chunks of short prompts are cut shorter. All at once if 0.
   */
  readonly textChunk?: number;
  /**
   * Images that the image tower takes at once, the gradients of each chunk being computed before
   * the next. All if 0.
   */
  readonly microBatch?: number;
}

/** What is to be planned. */
export interface PlanRequest<Sizes extends StepSizes = StepSizes> {
  /** The model. */
  readonly definition: ModelDefinition;
  /** How its frozen matrices may be stored: the first precision with which a step fits is taken. */
  readonly precisions: readonly Precision[];
  /** The step; what its memory plan says already is not changed. */
  readonly step: Sizes;
  /** Bytes that it may hold. */
  readonly limit: number;
  /** The GPU that it will run on. */
  readonly gpu?: DryGpu;
}

/** A memory plan that fits. */
export interface Planned {
  /** What the step does. */
  readonly memory: Required<MemoryPlan>;
  /** How the frozen matrices are stored. */
  readonly precision: Precision;
  /** What it costs. */
  readonly cost: StepCost;
}

/**
 * What starting a kernel counts as beside its FLOPs when memory plans are compared: some ten
 * microseconds of a GPU, or some thirty of a software driver, whichever has the more FLOPs to
 * spare.
 */
const DISPATCH_FLOPS = 5e7;

/**
 * The fastest memory plan whose bytes stay below the limit, by FLOPs and dispatches: counted on dry
 * engines, beside what the current engine does.
 *
 * @throws {RangeError} If no memory plan fits; it says the least that would.
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

/** The memory plan for one precision, or the least bytes that any of them needs. */
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
      // A tensor that the device has no binding for: that memory plan is none.
      if (error instanceof RangeError) return null;
      throw error;
    }
  };
  const texts = sizesOf(step.memory?.textChunk, step.promptTokens.length, 4);
  const images = sizesOf(step.memory?.microBatch, step.batch, 5);
  // How the images are split changes no FLOPs: the other choices are put in order first.
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
 * Sizes of chunks to try: all at once (0), then halves, `times` times at most; or the one that is
 * chosen already.
 */
function sizesOf(chosen: number | undefined, all: number, times: number): number[] {
  if (chosen !== undefined) return [chosen];
  const halves = Array.from({ length: times }, (_, i) => Math.ceil(all / 2 ** (i + 1)));
  return [0, ...new Set(halves.filter((size) => size < all))];
}

/**
 * A number of bytes as people write it: `4GB`, `512 MiB`, `1.5e9`.
 *
 * @throws {RangeError} If it is none.
 */
export function parseBytes(text: string): number {
  const [, number, prefix = "", binary] =
    /^\s*([\d.]+(?:e\d+)?)\s*(?:([kmgt])?(i)?b)?\s*$/i.exec(text) ?? [];
  const power = " kmgt".indexOf(prefix.toLowerCase() || " ");
  const bytes = Number(number) * (binary ? 1024 : 1000) ** power;
  if (bytes > 0) return Math.floor(bytes);
  throw new RangeError(`"${text}" is no number of bytes, write 4GB or 512MiB`);
}
