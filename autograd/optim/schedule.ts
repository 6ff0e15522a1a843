/**
 * Learning rates that change from step to step.
 *
 * @module
 */

/** A learning rate: one for all steps, or a function of the step, counted from 0. */
export type LearningRate = number | ((step: number) => number);

/**
 * A rate that falls from `base` to `minimum` along half a cosine in `total` steps, and past them
 * rises again: `minimum + (base - minimum) (1 + cos(π step / total)) / 2`. Agrees with
 * `torch.optim.lr_scheduler.CosineAnnealingLR` (Loshchilov and Hutter, arXiv 1608.03983, equation
 * 5).
 *
 * @example
 * ```ts
 * import { cosineAnnealing } from "../../mod.ts";
 * const rate = cosineAnnealing(2e-4, 1e-6, 500);
 * console.log(rate(0), rate(500)); // 0.0002 0.000001
 * ```
 *
 * @throws {RangeError} If `total` is not above 0.
 */
export function cosineAnnealing(
  base: number,
  minimum: number,
  total: number,
): (step: number) => number {
  if (!(total > 0)) {
    throw new RangeError(`Cannot anneal over ${total} steps: the number must be above 0`);
  }
  return (step) => minimum + (base - minimum) * (1 + Math.cos(Math.PI * step / total)) / 2;
}
