/**
 * All of reverse mode: a list of what was run, walked from last to first.
 *
 * @module
 */

import { pointwise } from "../kernels/pointwise.ts";
import { perEngine } from "../tensor/engine.ts";
import { attribute, currentLabel, during } from "../tensor/measure.ts";
import { keep, scope } from "../tensor/scope.ts";
import { sameShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** How the gradient of an op's output becomes that of some of its inputs. */
export interface GradientRule {
  /** The inputs that this rule gives gradients of. */
  readonly inputs: readonly Tensor[];
  /** The tensors that `vjp` reads, held until it has run. */
  readonly saves: readonly Tensor[];
  /**
   * The gradients of `inputs` from `g`, that of the output; an input that does not need one
   * (`needs`) may get null. Of an input that the rule {@linkcode accumulates} it is the sum with
   * `accumulated`, if that is not null.
   */
  readonly vjp: (
    g: Tensor,
    needs: readonly boolean[],
    accumulated: readonly (Tensor | null)[],
  ) => readonly (Tensor | null)[];
  /**
   * For which of `inputs` the rule adds its gradient to `accumulated`, the input's gradient through
   * other ops so far, in the same pass; for none by default.
   */
  readonly accumulates?: readonly boolean[];
  /** What the rule's work and saves are attributed to; what the op is by default. */
  readonly label?: string;
}

interface Entry {
  readonly output: Tensor;
  readonly rules: readonly GradientRule[];
  /** What the op is attributed to, and so its gradient. */
  readonly label: string;
}

/** Traces what depends on the tensors that it tracks. */
export interface Tracer {
  readonly tracked: Set<Tensor>;
  /** Told of each op that yields a tracked tensor, with its rules for tracked inputs. */
  readonly note: (output: Tensor, rules: readonly GradientRule[]) => void;
}

/** What is recorded, and which tensors depend on what is differentiated. */
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

/** Those that trace now, the innermost last: a function's value may belong to a larger function. */
export const tracers: () => Tracer[] = perEngine(() => []);

/**
 * Gradient with respect to `input`: `vjp` maps that of the output to it, and may read only `saves`.
 */
export function wrt(
  input: Tensor,
  saves: readonly Tensor[],
  vjp: (g: Tensor) => Tensor,
): GradientRule {
  return { inputs: [input], saves, vjp: (g) => [vjp(g)] };
}

/**
 * The same of a rule that adds to the gradient that came through other ops, if one did, in one
 * pass.
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
 * Gradients with respect to several inputs that come from one computation: an input without need of
 * one gets null.
 */
export function wrtAll(
  inputs: readonly Tensor[],
  saves: readonly Tensor[],
  vjp: GradientRule["vjp"],
): GradientRule {
  return { inputs, saves, vjp };
}

/** Tells each tracer how `output` depends on the inputs that need gradients there. */
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
 * Whether gradients will be asked of `x`: an op that does extra work for its gradient may ask
 * first.
 */
export function needsGradient(x: Tensor): boolean {
  return tracers().some(({ tracked }) => tracked.has(x));
}

/**
 * A function's value and gradients: `value` is what `fn` returned, `backward(g)` gives, once, the
 * gradient of `Σ g · value` with respect to each of `inputs` (zeros where nothing depends on it).
 * Until then the tape holds what the gradients need.
 *
 * Within another function under differentiation the value may be used as any tensor; its gradients
 * may be used as constants only, that is through `detach()`.
 *
 * @throws {TypeError} If an input is f16, which only stores what is frozen.
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

/** Runs `fn` under a tape. */
export function recordOn(tape: Tape, fn: () => Tensor): Tensor {
  try {
    return valueOf(tape, fn);
  } catch (error) {
    discard(tape.entries);
    throw error;
  }
}

/**
 * Runs `fn` with a tracer. A value that is an input becomes a new handle, to be released
 * without the input.
 */
export function valueOf(tracer: Tracer, fn: () => Tensor): Tensor {
  const inputs = new Set(tracer.tracked);
  return tracing(tracer, () =>
    scope(() => {
      const y = fn();
      return inputs.has(y) ? record(sameElements(y), [wrt(y, [], (g) => g)]) : y;
    }));
}

/** Runs `body` with a tracer. */
export function tracing<T>(tracer: Tracer, body: () => T): T {
  const all = tracers();
  all.push(tracer);
  try {
    return body();
  } finally {
    all.splice(all.indexOf(tracer), 1);
  }
}

/** Runs `body`, of which no tracer is told. */
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

/** Checks that a loss has one element. */
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

/** Walks a tape from its end: the gradient of `Σ g · value` with respect to each of `inputs`. */
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
    // What a rule runs is not recorded on the tapes outside.
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

/** Runs one rule, and adds what it gives to the gradients that there are. */
function applyRule(
  { inputs, vjp, accumulates = [] }: GradientRule,
  g: Tensor,
  grads: Map<Tensor, Tensor>,
  tracked: ReadonlySet<Tensor>,
  wanted: ReadonlySet<Tensor>,
): void {
  const needs = inputs.map((input) => tracked.has(input));
  // An input may be there twice: its gradient so far is handed over once.
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
      // A rule may hand on g or what it saved: each gradient is a new handle, released by
      // itself.
      return sameElements(grad);
    })
  );
  // What was accumulated is in the sum already; it comes first, before what is still to be added.
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
