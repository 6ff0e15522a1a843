/**
 * All of reverse mode: a list of what was run, walked from last to first.
 *
 * @module
 */

import { pointwise } from "../kernels/pointwise.ts";
import { adopt, keep, scope } from "../tensor/scope.ts";
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

let tape: Tape | null = null;

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

/** Notes on the tape, if one is recording, how `output` depends on the inputs that need gradients. */
export function record(output: Tensor, rules: readonly Flow[]): Tensor {
  if (!tape) return output;
  const { entries, tracked } = tape;
  const flows = rules.filter(({ inputs }) => inputs.some((input) => tracked.has(input)));
  if (flows.length > 0) {
    for (const { saves } of flows) saves.forEach((saved) => saved.retain());
    entries.push({ output, flows });
    tracked.add(output);
  }
  return output;
}

/** Whether gradients will be asked of `x`: an op that does extra work for its gradient may ask first. */
export function needsGradient(x: Tensor): boolean {
  return tape?.tracked.has(x) ?? false;
}

/**
 * A function's value and gradients: `value` is what `fn` returned, `backward(g)` gives, once, the gradient of
 * `Σ g · value` with respect to each of `inputs` (zeros where nothing depends on it).
 */
export function vjp(
  fn: () => Tensor,
  inputs: readonly Tensor[],
): { value: Tensor; backward: (g: Tensor) => Tensor[] } {
  const outer = tape;
  const recording: Tape = { entries: [], tracked: new Set(inputs) };
  tape = recording;
  let value: Tensor;
  try {
    value = scope(fn);
  } catch (error) {
    discard(recording.entries);
    throw error;
  } finally {
    tape = outer;
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

/** Evaluates `loss`, a scalar, and its gradient with respect to each of `parameters`. */
export function valueAndGrad(
  loss: () => Tensor,
  parameters: readonly Tensor[],
): { value: Tensor; grads: Tensor[] } {
  const { value, backward } = vjp(loss, parameters);
  const one = keep(pointwise("1.0", {}, value.shape));
  try {
    return { value, grads: backward(one) };
  } finally {
    one.drop();
  }
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
  const outer = tape;
  // What a vjp runs is not recorded on a tape outside: only the value is differentiated there.
  tape = null;
  const grads = new Map<Tensor, Tensor>([[value, g.retain()]]);
  try {
    while (entries.length > 0) {
      const { output, flows } = entries.pop()!;
      const g = grads.get(output);
      try {
        if (g) { for (const flow of flows) flowBack(flow, g, grads, tracked); }
      } finally {
        discard([{ output, flows }]);
      }
      if (g && !inputs.includes(output)) {
        grads.delete(output);
        g.drop();
      }
    }
    return inputs.map((input, i) => {
      // An input given twice has one gradient; each caller's copy is a handle of its own.
      const grad = grads.get(input);
      if (!grad) return pointwise("0.0", {}, input.shape);
      return inputs.indexOf(input) === i
        ? adopt(grad.retain())
        : grad.view(grad.shape, grad.strides, grad.offset);
    });
  } finally {
    discard(entries);
    for (const grad of grads.values()) grad.drop();
    tape = outer;
  }
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
      // A rule that passes g on returns a handle of its own, since g is released on its own account.
      return flow === g ? g.view(g.shape, g.strides, g.offset) : flow;
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
