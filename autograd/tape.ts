/**
 * All of reverse mode: a list of what was run, walked from last to first.
 *
 * @module
 */

import { pointwise } from "../kernels/pointwise.ts";
import { keep, scope } from "../tensor/scope.ts";
import { sameShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** How the gradient of a loss flows back through an op to some of its inputs. */
export interface Flow {
  /** The inputs that this rule gives gradients of. */
  readonly inputs: readonly Tensor[];
  /** The tensors that `vjp` reads, kept until it has run. */
  readonly saves: readonly Tensor[];
  /** The gradients of `inputs` from `g`, that of the output; an input that does not need one (`needs`) may get null. */
  readonly vjp: (g: Tensor, needs: readonly boolean[]) => readonly (Tensor | null)[];
}

interface Entry {
  readonly output: Tensor;
  readonly flows: readonly Flow[];
}

/** What is recorded, and which tensors depend on what is differentiated. */
interface Tape {
  readonly entries: Entry[];
  readonly tracked: Set<Tensor>;
}

/** The tapes that record, the innermost last: a function's value may be part of a larger function. */
const tapes: Tape[] = [];

/** Gradient with respect to `input`: `vjp` maps the output's gradient to the input's, and may read only `saves`. */
export function wrt(input: Tensor, saves: readonly Tensor[], vjp: (g: Tensor) => Tensor): Flow {
  return { inputs: [input], saves, vjp: (g) => [vjp(g)] };
}

/** Gradients with respect to several inputs that come from one computation: an input without need of one gets null. */
export function wrtAll(
  inputs: readonly Tensor[],
  saves: readonly Tensor[],
  vjp: Flow["vjp"],
): Flow {
  return { inputs, saves, vjp };
}

/** Notes on each tape that records how `output` depends on the inputs that need gradients there. */
export function record(output: Tensor, rules: readonly Flow[]): Tensor {
  for (const { entries, tracked } of tapes) {
    const flows = rules.filter(({ inputs }) => inputs.some((input) => tracked.has(input)));
    if (flows.length === 0) continue;
    for (const { saves } of flows) saves.forEach((saved) => saved.retain());
    entries.push({ output, flows });
    tracked.add(output);
  }
  return output;
}

/** Whether gradients will be asked of `x`: an op that does extra work for its gradient may ask first. */
export function needsGradient(x: Tensor): boolean {
  return tapes.some(({ tracked }) => tracked.has(x));
}

/**
 * A function's value and gradients: `value` is what `fn` returned, `backward(g)` gives, once, the gradient of
 * `Σ g · value` with respect to each of `inputs` (zeros where nothing depends on it). Until then the tape holds what the
 * gradients need.
 *
 * Within another function under differentiation the value may be used as any tensor; its gradients may be used as
 * constants only, that is through `detach()`.
 */
export function vjp(
  fn: () => Tensor,
  inputs: readonly Tensor[],
): { value: Tensor; backward: (g: Tensor) => Tensor[] } {
  const recording: Tape = { entries: [], tracked: new Set(inputs) };
  let value: Tensor;
  tapes.push(recording);
  try {
    value = scope(() => {
      const y = fn();
      // A value that is an input becomes a handle of its own, which may be released without the input.
      return inputs.includes(y) ? record(sameElements(y), [wrt(y, [], (g) => g)]) : y;
    });
  } catch (error) {
    discard(recording.entries);
    throw error;
  } finally {
    tapes.splice(tapes.indexOf(recording), 1);
  }
  let walked = false;
  return {
    value,
    backward(g) {
      if (walked) throw new Error("Cannot walk a tape twice: its saved tensors are released");
      if (!sameShape(g.shape, value.shape)) {
        throw new RangeError(
          `Cannot start from a gradient of [${g.shape}]: the value is [${value.shape}]`,
        );
      }
      walked = true;
      return walk(recording, value, g, inputs);
    },
  };
}

/**
 * Evaluates `loss`, a scalar, and its gradient with respect to each of `parameters`.
 *
 * @throws {RangeError} If the loss is not a scalar.
 */
export function valueAndGrad(
  loss: () => Tensor,
  parameters: readonly Tensor[],
): { value: Tensor; grads: Tensor[] } {
  return scope(() => {
    const { value, backward } = vjp(() => {
      const y = loss();
      if (y.size === 1) return y;
      throw new RangeError(
        `Cannot differentiate a loss of shape [${y.shape}]: it must be a scalar, take its sum() or mean()`,
      );
    }, parameters);
    return { value, grads: backward(pointwise("1.0", {}, value.shape)) };
  });
}

/** Another handle on the same elements. */
function sameElements(x: Tensor): Tensor {
  return x.view(x.shape, x.strides, x.offset);
}

function discard(entries: readonly Entry[]): void {
  for (const { flows } of entries) {
    for (const { saves } of flows) saves.forEach((saved) => saved.drop());
  }
}

function walk(
  { entries, tracked }: Tape,
  value: Tensor,
  g: Tensor,
  inputs: readonly Tensor[],
): Tensor[] {
  // What a rule runs is not recorded on the tapes outside.
  const outside = tapes.splice(0);
  const grads = new Map<Tensor, Tensor>();
  let found: Tensor[];
  try {
    grads.set(value, keep(sameElements(g)));
    while (entries.length > 0) {
      const { output, flows } = entries.pop()!;
      const g = grads.get(output);
      try {
        if (g) { for (const flow of flows) flowBack(flow, g, grads, tracked); }
      } finally {
        discard([{ output, flows }]);
      }
      grads.delete(output);
      g?.drop();
    }
    found = inputs.map((input) => {
      const grad = grads.get(input);
      return grad ? sameElements(grad) : pointwise("0.0", {}, input.shape);
    });
  } finally {
    discard(entries);
    for (const grad of grads.values()) grad.drop();
    tapes.push(...outside);
  }
  const once = () => {
    throw new Error("Cannot differentiate a gradient: use it as a constant, through detach()");
  };
  return found.map((grad) => record(grad, [wrt(value, [], once)]));
}

/** Runs one rule and adds what it gives to the gradients found so far. */
function flowBack(
  { inputs, vjp }: Flow,
  g: Tensor,
  grads: Map<Tensor, Tensor>,
  tracked: ReadonlySet<Tensor>,
): void {
  const needs = inputs.map((input) => tracked.has(input));
  const made = scope(() =>
    vjp(g, needs).map((flow, i) => {
      if (!flow || !needs[i]) return null;
      if (!sameShape(flow.shape, inputs[i].shape)) {
        throw new RangeError(
          `Cannot take a gradient of [${flow.shape}] for an input of [${inputs[i].shape}]`,
        );
      }
      // A rule may pass on g or what it saved: each gradient is a handle of its own, released on its own account.
      return sameElements(flow);
    })
  );
  for (const [i, flow] of made.entries()) {
    if (!flow) continue;
    const before = grads.get(inputs[i]);
    if (!before) {
      grads.set(inputs[i], keep(flow));
      continue;
    }
    grads.set(inputs[i], keep(pointwise("a + b", { a: before, b: flow }, inputs[i].shape)));
    before.drop();
    flow.release();
  }
}
