/**
 * All of reverse mode: a list of what was run, walked from last to first.
 *
 * @module
 */

import { pointwise } from "../kernels/pointwise.ts";
import { attribute, currentPart, during } from "../tensor/measure.ts";
import { keep, scope } from "../tensor/scope.ts";
import { sameShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** How the gradient of a loss flows back through an op to some of its inputs. */
export interface Flow {
  /** The inputs that this rule gives gradients of. */
  readonly inputs: readonly Tensor[];
  /** The tensors that `vjp` reads, kept until it has run. */
  readonly saves: readonly Tensor[];
  /**
   * The gradients of `inputs` from `g`, that of the output; an input that does not need one (`needs`) may get null. One
   * for which `found` is asked is the sum with what that gives, if anything: the input's gradient through other ops.
   */
  readonly vjp: (
    g: Tensor,
    needs: readonly boolean[],
    found: (input: number) => Tensor | null,
  ) => readonly (Tensor | null)[];
  /** What the rule's work and saves are attributed to; what the op is by default. */
  readonly part?: string;
}

interface Entry {
  readonly output: Tensor;
  readonly flows: readonly Flow[];
  /** What the op is attributed to, and so its gradient. */
  readonly part: string;
}

/** Follows what depends on the tensors that it tracks. */
interface Follower {
  readonly tracked: Set<Tensor>;
  /** Told of each op that yields a tracked tensor, with those of its rules that concern tracked inputs. */
  readonly note: (output: Tensor, flows: readonly Flow[]) => void;
}

/** What is recorded, and which tensors depend on what is differentiated. */
class Tape implements Follower {
  readonly entries: Entry[] = [];
  readonly tracked: Set<Tensor>;

  constructor(inputs: Iterable<Tensor>) {
    this.tracked = new Set(inputs);
  }

  note = (output: Tensor, flows: readonly Flow[]): void => {
    for (const { saves, part = currentPart() } of flows) {
      attribute(part, () => saves.forEach((saved) => saved.save()));
    }
    this.entries.push({ output, flows, part: currentPart() });
  };
}

/** Those that follow, the innermost last: a function's value may be part of a larger function. */
const followers: Follower[] = [];

/**
 * Gradient with respect to `input`: `vjp` maps the output's gradient to the input's, and may read only `saves`; if it asks
 * `found` for the gradient that came through other ops, it gives the sum.
 */
export function wrt(
  input: Tensor,
  saves: readonly Tensor[],
  vjp: (g: Tensor, found: () => Tensor | null) => Tensor,
): Flow {
  return { inputs: [input], saves, vjp: (g, _, found) => [vjp(g, () => found(0))] };
}

/** Gradients with respect to several inputs that come from one computation: an input without need of one gets null. */
export function wrtAll(
  inputs: readonly Tensor[],
  saves: readonly Tensor[],
  vjp: Flow["vjp"],
): Flow {
  return { inputs, saves, vjp };
}

/** Tells each tape that records how `output` depends on the inputs that need gradients there. */
export function record(output: Tensor, rules: readonly Flow[]): Tensor {
  for (const { tracked, note } of followers) {
    const flows = rules.filter(({ inputs }) => inputs.some((input) => tracked.has(input)));
    if (flows.length === 0) continue;
    note(output, flows);
    tracked.add(output);
  }
  return output;
}

/** Whether gradients will be asked of `x`: an op that does extra work for its gradient may ask first. */
export function needsGradient(x: Tensor): boolean {
  return followers.some(({ tracked }) => tracked.has(x));
}

/**
 * A function's value and gradients: `value` is what `fn` returned, `backward(g)` gives, once, the gradient of
 * `Σ g · value` with respect to each of `inputs` (zeros where nothing depends on it). Until then the tape holds what the
 * gradients need.
 *
 * Within another function under differentiation the value may be used as any tensor; its gradients may be used as
 * constants only, that is through `detach()`.
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
      `Cannot differentiate with respect to f16 [${shape}]: halves only store what is frozen, use f32`,
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
function recordOn(tape: Tape, fn: () => Tensor): Tensor {
  try {
    return valueOf(tape, fn);
  } catch (error) {
    discard(tape.entries);
    throw error;
  }
}

/** Runs `fn` with a follower. A value that is an input becomes a handle of its own, to be released without the input. */
function valueOf(follower: Follower, fn: () => Tensor): Tensor {
  const inputs = new Set(follower.tracked);
  return following(follower, () =>
    scope(() => {
      const y = fn();
      return inputs.has(y) ? record(sameElements(y), [wrt(y, [], (g) => g)]) : y;
    }));
}

function following<T>(follower: Follower, body: () => T): T {
  followers.push(follower);
  try {
    return body();
  } finally {
    followers.splice(followers.indexOf(follower), 1);
  }
}

/** Runs `body`, of which nobody is told. */
function unfollowed<T>(body: () => T): T {
  const outside = followers.splice(0);
  try {
    return body();
  } finally {
    followers.push(...outside);
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

/**
 * What `fn` gives, without keeping what its gradients need: they are found by running it again when they are asked for
 * (gradient checkpointing; Chen et al., arXiv 1604.06174). That costs a forward pass more, and holds the activations of
 * `fn` only while its own gradients are computed. `fn` must do the same each time; `inputs` are the tensors it reads
 * that may be released before.
 */
export function recompute(inputs: readonly Tensor[], fn: () => Tensor): Tensor {
  const probe = new Probe();
  const value = unfollowed(() => valueOf(probe, fn));
  const used = [...probe.used];
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
 * A scalar loss whose gradients are computed at once, so that nothing else of what they need is kept; the backward pass
 * only scales them. A loss that is a sum of such parts holds the activations of one part at a time, and costs no more
 * FLOPs (gradient accumulation).
 *
 * @throws {RangeError} If the loss is not a scalar.
 */
export function gradientsNow(loss: () => Tensor): Tensor {
  return scope(() => {
    const probe = new Probe();
    const tape = new Tape(probe.known);
    const { value, used, grads } = unfollowed(() => {
      const value = following(probe, () => recordOn(tape, () => scalar(loss())));
      const used = [...probe.used];
      const one = pointwise("1.0", {}, value.shape);
      return { value, used, grads: during("backward", () => walk(tape, value, one, used)) };
    });
    return record(value, [
      wrtAll(used, grads, (g) => grads.map((x) => pointwise("g * x", { g, x }, x.shape))),
    ]);
  });
}

/** Finds out which of the tensors that are followed now something depends on. */
class Probe implements Follower {
  readonly known: ReadonlySet<Tensor> = new Set(followers.flatMap(({ tracked }) => [...tracked]));
  readonly tracked: Set<Tensor> = new Set(this.known);
  readonly used = new Set<Tensor>();

  note = (_: Tensor, flows: readonly Flow[]): void => {
    for (const { inputs } of flows) {
      for (const input of inputs) if (this.known.has(input)) this.used.add(input);
    }
  };
}

function scalar(y: Tensor): Tensor {
  if (y.size === 1) return y;
  throw new RangeError(
    `Cannot differentiate a loss of shape [${y.shape}]: it must be a scalar, take its sum() or mean()`,
  );
}

/** Another handle on the same elements. */
function sameElements(x: Tensor): Tensor {
  return x.view(x.shape, x.strides, x.offset);
}

function discard(entries: readonly Pick<Entry, "flows">[]): void {
  for (const { flows } of entries) {
    for (const { saves } of flows) saves.forEach((saved) => saved.unsave());
  }
}

function walk(
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
      const { output, flows, part } = entries.pop()!;
      const g = grads.get(output);
      try {
        if (g) {
          for (const flow of flows) {
            attribute(flow.part ?? part, () => flowBack(flow, g, grads, tracked, wanted));
          }
        }
      } finally {
        discard([{ flows }]);
      }
      grads.delete(output);
      g?.drop();
    }
    return inputs.map((input) => {
      const grad = grads.get(input);
      return grad ? sameElements(grad) : pointwise("0.0", {}, input.shape);
    });
  };
  let found: Tensor[];
  try {
    // What a rule runs is not recorded on the tapes outside.
    found = unfollowed(back);
  } finally {
    discard(entries);
    for (const grad of grads.values()) grad.drop();
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
  wanted: ReadonlySet<Tensor>,
): void {
  const needs = inputs.map((input) => tracked.has(input));
  /** The inputs whose earlier gradients are in what the rule gives, each once. */
  const summed = new Set<number>();
  const found = (i: number) => {
    const before = grads.get(inputs[i]);
    const again = inputs.some((input, j) => input === inputs[i] && summed.has(j));
    if (!before || again) return null;
    summed.add(i);
    return before;
  };
  const made = scope(() =>
    vjp(g, needs, found).map((flow, i) => {
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
  // An input may be there twice: its sum first, then what is still to be added.
  const order = [...made.keys()].sort((a, b) => Number(summed.has(b)) - Number(summed.has(a)));
  for (const i of order) {
    const flow = made[i];
    if (!flow) continue;
    const before = grads.get(inputs[i]);
    const adds = before && !summed.has(i);
    const sum = adds ? pointwise("a + b", { a: before, b: flow }, flow.shape) : flow;
    grads.set(inputs[i], keep(sum));
    if (wanted.has(inputs[i])) sum.markGradient();
    before?.drop();
    if (adds) flow.release();
  }
}
