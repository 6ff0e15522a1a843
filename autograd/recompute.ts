/**
 * Less memory for the same gradients: checkpointing, and gradients that are computed at once.
 *
 * @module
 */

import { pointwise } from "../kernels/pointwise.ts";
import { during } from "../tensor/measure.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import {
  type GradientRule,
  record,
  recordOn,
  scalar,
  Tape,
  type Tracer,
  tracers,
  tracing,
  untraced,
  valueOf,
  vjp,
  walk,
  wrtAll,
} from "./tape.ts";

/**
 * What `fn` gives, without keeping what its gradients need: it runs again when they are asked for
 * (gradient checkpointing; Chen et al., arXiv 1604.06174). That costs a forward pass more, and
 * holds the activations of `fn` only while its gradients are computed. `fn` must do the same each
 * time; `inputs` are the tensors it reads that may be released before.
 */
export function recompute(inputs: readonly Tensor[], fn: () => Tensor): Tensor {
  const tracer = new DependencyTracer();
  const value = untraced(() => valueOf(tracer, fn));
  const used = [...tracer.used];
  const again = (g: Tensor, needs: readonly boolean[]) =>
    scope(() => {
      const { value, backward } = vjp(fn, used.filter((_, i) => needs[i]));
      value.release();
      const grads = backward(g);
      return needs.map((need) => need ? grads.shift()! : null);
    });
  return record(value, [wrtAll(used, [...new Set([...inputs, ...used])], again)]);
}

/**
 * A scalar loss whose gradients are computed at once, so that nothing else of what they need is
 * held; the backward pass only scales them. A loss that is a sum of several such holds the
 * activations of one at a time, and costs no more FLOPs (gradient accumulation).
 *
 * @throws {RangeError} If the loss is not a scalar.
 */
export function gradientsNow(loss: () => Tensor): Tensor {
  return scope(() => {
    const tracer = new DependencyTracer();
    const tape = new Tape(tracer.known);
    const { value, used, grads } = untraced(() => {
      const value = tracing(tracer, () => recordOn(tape, () => scalar(loss())));
      const used = [...tracer.used];
      const one = pointwise("1.0", {}, value.shape);
      return { value, used, grads: during("backward", () => walk(tape, value, one, used)) };
    });
    return record(value, [
      wrtAll(used, grads, (g) => grads.map((x) => pointwise("g * x", { g, x }, x.shape))),
    ]);
  });
}

/** Only finds out which of the tensors that are tracked outside something depends on. */
class DependencyTracer implements Tracer {
  readonly known: ReadonlySet<Tensor> = new Set(tracers().flatMap(({ tracked }) => [...tracked]));
  readonly tracked: Set<Tensor> = new Set(this.known);
  readonly used = new Set<Tensor>();

  note = (_: Tensor, rules: readonly GradientRule[]): void => {
    for (const { inputs } of rules) {
      for (const input of inputs) if (this.known.has(input)) this.used.add(input);
    }
  };
}
