/**
 * The loss of a classifier.
 *
 * @module
 */

import wgsl from "../../kernels/cross_entropy.wgsl" with { type: "text" };
import { MAX_STEPS } from "../../kernels/kernel.ts";
import { pointwise } from "../../kernels/pointwise.ts";
import { RowsKernel } from "../../kernels/rows.ts";
import { scope } from "../../tensor/scope.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { div } from "./pointwise.ts";
import { mean, sum } from "./reduce.ts";
import { contiguous } from "./view.ts";

const forward = new RowsKernel("cross_entropy.wgsl", wgsl, {
  inputs: { x: "E", logits: "f32", labels: "u32" },
  outputs: { loss: "f32", stats: "vec2f" },
  sizes: { rows: "u32", cols: "u32", smoothing: "f32" },
  // Maximum, difference, exponential, two sums.
  flops: ({ rows, cols }) => 5 * rows * cols,
}, { writes: false });

/**
 * The gradient of a logit: `g` times the logit's softmax less its share of the target; 0 in a row
 * whose label is no class. `top` and `above` are the row's statistics from cross_entropy.wgsl.
 */
const GRADIENT =
  "select(0.0, g * (exp_(x - top - above) - select(even, sure, i % cols == u32(label))), " +
  "u32(label) < cols)";

/** How {@linkcode crossEntropy} reads the labels, and how it reduces the losses of the rows. */
export interface CrossEntropyOptions {
  /** Share of the target spread evenly over all classes, from 0 to 1; 0 by default. */
  readonly labelSmoothing?: number;
  /** The mean (default) or sum of the rows' losses, or each of them. */
  readonly reduction?: "mean" | "sum" | "none";
  /**
   * A label whose rows have no loss and no gradient, and do not count in the mean; none by default.
   */
  readonly ignoreIndex?: number;
}

/**
 * Cross-entropy of `logits` `[B, K]` against `labels` `[B]` (integers, each below K), in nats: a
 * scalar, or `[B]` if not reduced. Agrees with `torch.nn.functional.cross_entropy`, whose mean is
 * over the batch. A row whose label is no class has loss 0 and no gradient, but counts in the mean.
 * It is not refused: that would take a readback.
 *
 * @throws {RangeError} If the batch sizes differ, there are no classes or more than 30,000, or the
 * smoothing is not from 0 to 1.
 * @throws {TypeError} If the labels are not integers.
 */
export function crossEntropy(
  logits: Tensor,
  labels: Tensor,
  { labelSmoothing: smoothing = 0, reduction = "mean", ignoreIndex }: CrossEntropyOptions = {},
): Tensor {
  const [rows, cols] = logits.shape;
  if (
    logits.shape.length !== 2 || cols === 0 || labels.shape.length !== 1 || labels.shape[0] !== rows
  ) {
    throw new RangeError(
      `Cannot take the crossEntropy of [${logits.shape}] against labels [${labels.shape}]`,
    );
  }
  if (labels.dtype === "f32" || labels.dtype === "f16") {
    throw new TypeError(`Cannot take ${labels.dtype} labels: give u32 or i32`);
  }
  if (!(smoothing >= 0 && smoothing <= 1)) {
    throw new RangeError(`Cannot smooth labels by ${smoothing}: it must be from 0 to 1`);
  }
  if (cols > MAX_STEPS / 2) {
    throw new RangeError(
      `Cannot take the crossEntropy of [${logits.shape}]: at most ${
        MAX_STEPS / 2
      } classes are possible`,
    );
  }
  if (ignoreIndex !== undefined) {
    if (!Number.isInteger(ignoreIndex) || ignoreIndex < -(2 ** 31) || ignoreIndex >= 2 ** 32) {
      throw new RangeError(
        `Cannot ignore label ${ignoreIndex}: it must be an integer from -2³¹ to 2³² - 1`,
      );
    }
    return scope(() => {
      const operands = { labels, ignored: BigInt(ignoreIndex >>> 0) };
      const isIgnored = "u32(labels) == ignored";
      // Ignored labels become the largest u32, which is no class.
      const known = pointwise(
        `select(u32(labels), 4294967295u, ${isIgnored})`,
        operands,
        [rows],
        "u32",
      );
      const each = crossEntropy(logits, known, { labelSmoothing: smoothing, reduction: "none" });
      if (reduction !== "mean") return reduction === "sum" ? sum(each) : each;
      const counted = pointwise(`select(1.0, 0.0, ${isIgnored})`, operands, [rows]);
      return div(sum(each), sum(counted));
    });
  }
  return scope(() => {
    const [x, target] = [contiguous(logits), contiguous(labels)];
    const loss = Tensor.empty([rows]);
    const stats = Tensor.empty([rows, 2]);
    forward.run([x, x, target], [loss, stats], { rows, cols, smoothing });
    record(loss, [
      wrt(logits, [x, target, stats], (g) =>
        scope(() => {
          const column = (of: Tensor, at = of.offset) => of.view([rows, 1], [of.strides[0], 0], at);
          const even = smoothing / cols;
          return pointwise(GRADIENT, {
            x,
            top: column(stats, 0),
            above: column(stats, 1),
            label: column(target),
            g: column(g),
            cols: BigInt(cols),
            even,
            sure: 1 - smoothing + even,
          }, [rows, cols]);
        })),
    ]);
    return reduction === "none" ? loss : reduction === "sum" ? sum(loss) : mean(loss);
  });
}
