/**
 * The same gradients with less memory: by checkpointing, or by computing them right after the loss.
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
 * The value of `fn`. What the ops in `fn` need for their gradients is not saved: `fn` runs again
 * when its gradients are computed (gradient checkpointing; Chen et al., arXiv 1604.06174). This
 * costs one more forward pass, and the activations of `fn` are held only while its gradients are
 * computed. `fn` must compute the same each time. `inputs` are the tensors that `fn` reads and that
 * may be released before the backward pass: the tape holds them until then.
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
 * A scalar loss whose gradients are computed at once. Until the backward pass only these gradients
 * are held; the pass just scales them. A sum of several such losses holds the activations of one at
 * a time, and needs no second forward pass (gradient accumulation).
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

/**
 * A tracer that only finds dependencies: `used` are the tensors that the traced ops read, among
 * those that outer tracers track.
 */
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
