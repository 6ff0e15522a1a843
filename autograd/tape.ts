/**
 * Reverse-mode differentiation: ops are recorded on a tape, which is walked from its last entry to
 * its first.
 *
 * @module
 */

import { pointwise } from "../kernels/pointwise.ts";
import { perEngine } from "../tensor/engine.ts";
import { attribute, currentLabel, during } from "../tensor/measure.ts";
import { keep, scope } from "../tensor/scope.ts";
import { sameShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/**
 * The gradient rule of some of an op's inputs: it maps the gradient of the op's output to theirs.
 */
export interface GradientRule {
  /** The inputs that this rule gives gradients of. */
  readonly inputs: readonly Tensor[];
  /** The tensors that `vjp` reads, held until it has run. */
  readonly saves: readonly Tensor[];
  /**
   * The gradients of `inputs`, in their order, computed from `g`, the gradient of the output. Null
   * is allowed for an input whose entry in `needs` is false. Where the rule {@linkcode accumulates}
   * and the input's entry in `accumulated` is not null, the result for this input is the sum of
   * both.
   */
  readonly vjp: (
    g: Tensor,
    needs: readonly boolean[],
    accumulated: readonly (Tensor | null)[],
  ) => readonly (Tensor | null)[];
  /**
   * For each of `inputs`, whether the rule adds its gradient to the one in `accumulated` in the
   * same pass. `accumulated` holds the input's gradient through other ops so far. By default the
   * rule does so for none of them.
   */
  readonly accumulates?: readonly boolean[];
  /** The label that the rule's work and saved tensors count under; the op's label by default. */
  readonly label?: string;
}

interface Entry {
  readonly output: Tensor;
  readonly rules: readonly GradientRule[];
  /** The label of the op. The work of its gradient counts under it too. */
  readonly label: string;
}

/** Watches the ops that run, and finds the tensors that depend on those it tracks. */
export interface Tracer {
  readonly tracked: Set<Tensor>;
  /**
   * Called for each op with tracked inputs: with the op's output, and its rules for those inputs.
   */
  readonly note: (output: Tensor, rules: readonly GradientRule[]) => void;
}

/**
 * The tape: the ops recorded so far, and the tensors that depend on the inputs to differentiate.
 */
export class Tape implements Tracer {
  readonly entries: Entry[] = [];
  readonly tracked: Set<Tensor>;

  constructor(inputs: Iterable<Tensor>) {
    this.tracked = new Set(inputs);
  }

  note = (output: Tensor, rules: readonly GradientRule[]): void => {
    for (const { saves, label = currentLabel() } of rules) {
      attribute(label, () => saves.forEach((saved) => saved.save()));
    }
    this.entries.push({ output, rules, label: currentLabel() });
  };
}

/** The active tracers, the innermost last. A differentiated function may run within another one. */
export const tracers: () => Tracer[] = perEngine(() => []);

/**
 * The gradient rule of one `input`: `vjp` maps the gradient of the output to that of the input.
 * Besides its argument, `vjp` may read only the tensors in `saves`.
 */
export function wrt(
  input: Tensor,
  saves: readonly Tensor[],
  vjp: (g: Tensor) => Tensor,
): GradientRule {
  return { inputs: [input], saves, vjp: (g) => [vjp(g)] };
}

/**
 * The gradient rule of one `input`, like that of {@linkcode wrt}, whose `vjp` also adds the
 * gradient that reached the input through other ops, in the same pass. `accumulated` is null if
 * none did.
 */
export function wrtAccumulating(
  input: Tensor,
  saves: readonly Tensor[],
  vjp: (g: Tensor, accumulated: Tensor | null) => Tensor,
): GradientRule {
  return {
    inputs: [input],
    saves,
    vjp: (g, _, [accumulated]) => [vjp(g, accumulated)],
    accumulates: [true],
  };
}

/**
 * The gradient rule of several inputs whose gradients come from one computation. `vjp` gives them
 * in the order of `inputs`; an input that needs no gradient may get null.
 */
export function wrtAll(
  inputs: readonly Tensor[],
  saves: readonly Tensor[],
  vjp: GradientRule["vjp"],
): GradientRule {
  return { inputs, saves, vjp };
}

/** Gives `output` back, and tells each active tracer how it depends on the inputs tracked there. */
export function record(output: Tensor, rules: readonly GradientRule[]): Tensor {
  for (const { tracked, note } of tracers()) {
    const relevant = rules.filter(({ inputs }) => inputs.some((input) => tracked.has(input)));
    if (relevant.length === 0) continue;
    note(output, relevant);
    tracked.add(output);
  }
  return output;
}

/**
 * Whether a gradient with respect to `x` is needed, that is, whether an active tracer tracks `x`.
 * An op asks before it does extra work that only its gradient uses.
 */
export function needsGradient(x: Tensor): boolean {
  return tracers().some(({ tracked }) => tracked.has(x));
}

/**
 * A function's value, and its gradients on demand. `value` is what `fn` returned. `backward(g)`
 * gives the gradient of `Σ g · value` with respect to each of `inputs`: zeros for an input that
 * `value` does not depend on. It can be called once; until then the tape holds the saved tensors.
 *
 * Within another differentiated function, `value` may be used like any tensor. Its gradients may be
 * used only as constants there, through `detach()`.
 *
 * @throws {TypeError} If an input is f16, which only stores frozen weights.
 */
export function vjp(
  fn: () => Tensor,
  inputs: readonly Tensor[],
): { value: Tensor; backward: (g: Tensor) => Tensor[] } {
  for (const { dtype, shape } of inputs) {
    if (dtype !== "f16") continue;
    throw new TypeError(
      `Cannot differentiate with respect to f16 [${shape}]: ` +
        "halves only store what is frozen, use f32",
    );
  }
  const tape = new Tape(inputs);
  const value = recordOn(tape, fn);
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
      return during("backward", () => walk(tape, value, g, inputs));
    },
  };
}

/** Runs `fn` and records its ops on `tape`. If `fn` throws, the saved tensors are released. */
export function recordOn(tape: Tape, fn: () => Tensor): Tensor {
  try {
    return valueOf(tape, fn);
  } catch (error) {
    discard(tape.entries);
    throw error;
  }
}

/**
 * Runs `fn` with a tracer. If `fn` returns one of the tracked inputs, the value is a new handle on
 * the same elements: releasing it does not release the input.
 */
export function valueOf(tracer: Tracer, fn: () => Tensor): Tensor {
  const inputs = new Set(tracer.tracked);
  return tracing(tracer, () =>
    scope(() => {
      const y = fn();
      return inputs.has(y) ? record(sameElements(y), [wrt(y, [], (g) => g)]) : y;
    }));
}

/** Runs `body` while `tracer` is active. */
export function tracing<T>(tracer: Tracer, body: () => T): T {
  const all = tracers();
  all.push(tracer);
  try {
    return body();
  } finally {
    all.splice(all.indexOf(tracer), 1);
  }
}

/** Runs `body` while no tracer is active. */
export function untraced<T>(body: () => T): T {
  const all = tracers();
  const outside = all.splice(0);
  try {
    return body();
  } finally {
    all.push(...outside);
  }
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
    const { value, backward } = vjp(() => scalar(loss()), parameters);
    return { value, grads: backward(pointwise("1.0", {}, value.shape)) };
  });
}

/** Gives a loss back, after checking that it has one element. */
export function scalar(y: Tensor): Tensor {
  if (y.size === 1) return y;
  throw new RangeError(
    `Cannot differentiate a loss of shape [${y.shape}]: ` +
      "it must be a scalar, take its sum() or mean()",
  );
}

/** Another handle on the same elements. */
function sameElements(x: Tensor): Tensor {
  return x.view(x.shape, x.strides, x.offset);
}

function discard(entries: readonly Pick<Entry, "rules">[]): void {
  for (const { rules } of entries) {
    for (const { saves } of rules) saves.forEach((saved) => saved.unsave());
  }
}

/**
 * Walks a tape from its last entry to its first: gives the gradient of `Σ g · value` with respect
 * to each of `inputs`.
 */
export function walk(
  { entries, tracked }: Tape,
  value: Tensor,
  g: Tensor,
  inputs: readonly Tensor[],
): Tensor[] {
  const grads = new Map<Tensor, Tensor>();
  const wanted = new Set(inputs);
  const back = () => {
    grads.set(value, keep(sameElements(g)));
    while (entries.length > 0) {
      const { output, rules, label } = entries.pop()!;
      const g = grads.get(output);
      try {
        if (g) {
          for (const rule of rules) {
            attribute(rule.label ?? label, () => applyRule(rule, g, grads, tracked, wanted));
          }
        }
      } finally {
        discard([{ rules }]);
      }
      grads.delete(output);
      g?.drop();
    }
    return inputs.map((input) => {
      const grad = grads.get(input);
      return grad ? sameElements(grad) : pointwise("0.0", {}, input.shape);
    });
  };
  let results: Tensor[];
  try {
    // The ops that gradient rules run are not recorded on outer tapes.
    results = untraced(back);
  } finally {
    discard(entries);
    for (const grad of grads.values()) grad.drop();
  }
  const once = () => {
    throw new Error("Cannot differentiate a gradient: use it as a constant, through detach()");
  };
  return results.map((grad) => record(grad, [wrt(value, [], once)]));
}

/** Runs one rule, and adds the gradients that it gives to those in `grads`. */
function applyRule(
  { inputs, vjp, accumulates = [] }: GradientRule,
  g: Tensor,
  grads: Map<Tensor, Tensor>,
  tracked: ReadonlySet<Tensor>,
  wanted: ReadonlySet<Tensor>,
): void {
  const needs = inputs.map((input) => tracked.has(input));
  // A rule may list one tensor twice: its gradient so far is passed only for the first of them.
  const accumulated = inputs.map((input, i) =>
    needs[i] && accumulates[i] && inputs.indexOf(input) === i ? grads.get(input) ?? null : null
  );
  const made = scope(() =>
    vjp(g, needs, accumulated).map((grad, i) => {
      if (!grad || !needs[i]) return null;
      if (!sameShape(grad.shape, inputs[i].shape)) {
        throw new RangeError(
          `Cannot take a gradient of [${grad.shape}] for an input of [${inputs[i].shape}]`,
        );
      }
      // A rule may give back g or a saved tensor. Each gradient is a new handle, so that it can be
      // released without that tensor.
      return sameElements(grad);
    })
  );
  // A gradient that the rule accumulated contains the sum so far, and replaces it. It comes first;
  // other gradients of the same input are added to it afterwards.
  const order = [...made.keys()]
    .sort((a, b) => Number(accumulated[b] !== null) - Number(accumulated[a] !== null));
  for (const i of order) {
    const grad = made[i];
    if (!grad) continue;
    const before = grads.get(inputs[i]);
    const adds = before && accumulated[i] === null;
    const sum = adds ? pointwise("a + b", { a: before, b: grad }, grad.shape) : grad;
    grads.set(inputs[i], keep(sum));
    if (wanted.has(inputs[i])) sum.markGradient();
    before?.drop();
    if (adds) grad.release();
  }
}
