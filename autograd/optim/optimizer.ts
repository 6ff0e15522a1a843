/**
 * What all optimizers share: parameters in groups, a count of steps, state that is saved and
 * restored.
 *
 * @module
 */

import type { Constants, Declaration, Sizes } from "../../kernels/declaration.ts";
import { ManyKernel } from "../../kernels/many.ts";
import { pointwiseInto } from "../../kernels/pointwise.ts";
import { during } from "../../tensor/measure.ts";
import { inCategory } from "../../tensor/memory.ts";
import { keep, scope } from "../../tensor/scope.ts";
import { contiguousStrides, sameShape } from "../../tensor/shape.ts";
import { StepCount } from "../../tensor/step_count.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { ones } from "../ops/create.ts";
import { contiguous } from "../ops/view.ts";
import type { LearningRate } from "./schedule.ts";

/** The options that every optimizer has. */
export interface OptimizerOptions {
  /** The learning rate, or its schedule; 1e-3 by default. */
  readonly learningRate?: LearningRate;
  /** How strongly parameters are pulled towards 0. */
  readonly weightDecay?: number;
}

/** Parameters that share options. An option that is not given here is that of the optimizer. */
export type ParameterGroup<O> = Partial<O> & { readonly parameters: readonly Tensor[] };

/** Parameters, or groups of them. */
export type ParameterList<O> = readonly Tensor[] | readonly ParameterGroup<O>[];

/** An update rule: all that distinguishes one optimizer from another. */
export interface Rule<O> {
  /** What errors call the optimizer. */
  readonly name: string;
  /** The kernel of the update, made by {@linkcode optimizerKernel}. */
  readonly kernel: ManyKernel;
  /** The default of each option. */
  readonly defaults: Required<O>;
  /** The options to check, by name: the value of each, and the range that it must be in. */
  readonly ranges: (options: Required<O>) => Readonly<Record<string, OptionRange>>;
  /** The state tensors of a parameter by name, and whether `options` need them. */
  readonly state: (options: Required<O>) => Readonly<Record<string, boolean>>;
  /** The kernel's constants. */
  readonly constants: (options: Required<O>) => Constants;
  /** The kernel's sizes at `step`, counted from 0, whose learning rate is `rate`. */
  readonly sizes: (options: Required<O>, rate: number, step: number) => Sizes;
}

/** The value of an option, whether it is legal, and the legal values in words. */
export type OptionRange = readonly [value: unknown, legal: boolean, wanted: string];

/** Steps taken, and tensors by name: `"0.mean"` is the `mean` of the first parameter. */
export interface OptimizerState {
  /** How many steps were taken. */
  readonly steps: number;
  /** The state tensors, such as the running mean of gradients. */
  readonly tensors: Readonly<Record<string, Tensor>>;
}

interface Member {
  readonly parameter: Tensor;
  readonly group: number;
  /** Index of the parameter's first element within each kind of state. */
  readonly start: number;
}

/**
 * A kernel that updates many parameters in one dispatch, with `flops` operations for each element.
 * In its WGSL, `x` is a parameter's gradient and `y` the parameter. `state` holds one kind of state
 * after another, each of `total` elements; the elements of a parameter begin at its `start` within
 * each kind. The kernel multiplies gradients with `factor[0]`.
 */
export function optimizerKernel(
  name: string,
  wgsl: string,
  numbers: readonly string[],
  constants: Declaration["constants"],
  flops: number,
): ManyKernel {
  return new ManyKernel(name, wgsl, {
    writes: true,
    inputs: { factor: "f32" },
    outputs: { state: "f32" },
    memberSizes: { start: "u32" },
    sizes: {
      total: "u32",
      ...Object.fromEntries(numbers.map((number) => [number, "f32" as const])),
    },
    constants,
    elements: 256,
    // Gradient, parameter and state are read; parameter and state are written.
    work: {
      flops: ({ count }) => flops * count,
      reads: ({ count, kinds }) => 4 * count * (2 + kinds),
      writes: ({ count, kinds }) => 4 * count * (1 + kinds),
    },
  });
}

/** The range of an option that is a finite number from 0 on. */
export function atLeastZero(value: unknown): OptionRange {
  return [value, typeof value === "number" && value >= 0 && value < Infinity, "a number from 0 on"];
}

/**
 * Updates parameters in place from their gradients. {@linkcode Sgd}, {@linkcode Adam} and
 * {@linkcode AdamW} extend it.
 */
export class Optimizer<O extends OptimizerOptions> {
  readonly #rule: Rule<O>;
  readonly #groups: readonly Required<O>[];
  readonly #members: readonly Member[];
  /** The state tensors by name: views of `#state`. */
  readonly #saved = new Map<string, Tensor>();
  readonly #state: Tensor;
  readonly #total: number;
  /** The scalar 1: the factor of gradients where none is given. */
  readonly #one: Tensor;
  readonly #steps = new StepCount();

  /**
   * Makes an optimizer whose state, on the GPU, is all 0. It owns its state, but not the
   * parameters.
   *
   * @throws {TypeError} If a parameter is not f32.
   * @throws {RangeError} If there are no parameters, if one is not contiguous or given twice, or if
   * an option is out of range.
   */
  constructor(rule: Rule<O>, parameters: ParameterList<O>, options: Partial<O>) {
    const groups = grouped(parameters);
    this.#rule = rule;
    this.#groups = groups.map(({ parameters: _, ...given }) =>
      ({ ...rule.defaults, ...options, ...given }) as Required<O>
    );
    const listed = groups.flatMap((group, g) =>
      group.parameters.map((parameter) => ({ parameter, group: g }))
    );
    checkParameters(rule.name, listed.map(({ parameter }) => parameter));
    for (const group of this.#groups) checkOptions(rule, group);

    let total = 0;
    this.#members = listed.map(({ parameter, group }) => {
      const start = total;
      total += parameter.size;
      return { parameter, group, start };
    });
    this.#total = total;
    // A kind of state that one group needs has room for the parameters of all groups.
    const wanted = this.#groups.map((group) => Object.entries(rule.state(group)));
    const kinds = wanted[0].map(([name]) => name)
      .filter((_, i) => wanted.some((states) => states[i][1]));
    const shape = [kinds.length, total];
    this.#state = inCategory("optimizerState", () => keep(Tensor.empty(shape, "f32", true)));
    pointwiseInto(this.#state, "0.0", {});
    this.#one = keep(ones([]));
    for (const [i, { parameter: { shape }, start, group }] of this.#members.entries()) {
      for (const [kind, name] of kinds.entries()) {
        if (!rule.state(this.#groups[group])[name]) continue;
        const view = this.#state.view(shape, contiguousStrides(shape), kind * total + start);
        this.#saved.set(`${i}.${name}`, keep(view));
      }
    }
  }

  /** How many steps were taken. */
  get steps(): number {
    return this.#steps.value;
  }

  /** The learning rate of each group at `step`, counted from 0; by default at the next step. */
  rates(step: number = this.#steps.value): number[] {
    return this.#groups.map(({ learningRate }) =>
      typeof learningRate === "function" ? learningRate(step) : learningRate as number
    );
  }

  /**
   * Updates each parameter in place by its gradient, many parameters in one dispatch. After the
   * first step nothing is compiled, and no tensor is uploaded. The gradients are in the order of
   * the parameters, those of the first group first; the caller still owns them. If `factor` is
   * given, a scalar tensor such as {@linkcode clipFactor} makes, the gradients are multiplied with
   * it.
   *
   * @throws {RangeError} If gradients and parameters do not match, or a schedule gives no learning
   * rate.
   */
  step(grads: readonly Tensor[], factor: Tensor = this.#one): void {
    const { name, kernel, constants, sizes } = this.#rule;
    this.#checkGradients(grads);
    const rates = this.rates();
    for (const rate of rates) {
      if (atLeastZero(rate)[1]) continue;
      throw new RangeError(
        `Cannot step ${name}: the learning rate of step ${this.steps} is ${rate}, ` +
          "it must be a number from 0 on",
      );
    }
    const update = () => {
      for (const [group, options] of this.#groups.entries()) {
        const members = this.#members.flatMap(({ parameter, start, group: of }, i) =>
          of === group ? [{ x: contiguous(grads[i]), y: parameter, sizes: { start } }] : []
        );
        const numbers = {
          total: this.#total,
          kinds: this.#state.shape[0],
          ...sizes(options, rates[group], this.steps),
        };
        kernel.run(members, [factor], [this.#state], numbers, constants(options));
      }
    };
    during("optimizer", () => scope(update));
    this.#steps.value++;
  }

  /**
   * The state that a checkpoint stores to resume from. The optimizer owns the tensors, and its
   * steps change them.
   */
  state(): OptimizerState {
    return { steps: this.steps, tensors: Object.fromEntries(this.#saved) };
  }

  /**
   * Restores a saved state. Its tensors are copied; the caller still owns them.
   *
   * @throws {RangeError} If the state is that of other parameters or of another kind of optimizer,
   * or if its number of steps is no integer from 0 on.
   */
  restore({ steps, tensors }: OptimizerState): void {
    const names = new Set([...this.#saved.keys(), ...Object.keys(tensors)]);
    for (const name of names) {
      const [held, given] = [this.#saved.get(name), tensors[name]];
      if (held && given && sameShape(held.shape, given.shape)) continue;
      const [here, there] = [held, given].map((found) => found ? `[${found.shape}]` : "absent");
      throw new RangeError(
        `Cannot restore ${this.#rule.name}: "${name}" is ${there} in the given state and ` +
          `${here} here, ` +
          "use the state of the same optimizer on the same parameters",
      );
    }
    if (!Number.isSafeInteger(steps) || steps < 0) {
      throw new RangeError(`Cannot restore ${this.#rule.name}: ${steps} is no number of steps`);
    }
    for (const [name, held] of this.#saved) pointwiseInto(held, "x", { x: tensors[name] });
    this.#steps.value = steps;
  }

  /** Releases the state. The parameters stay. */
  release(): void {
    this.#steps.release();
    for (const tensor of [this.#one, this.#state, ...this.#saved.values()]) tensor.release();
  }

  #checkGradients(grads: readonly Tensor[]): void {
    const { name } = this.#rule;
    if (grads.length !== this.#members.length) {
      throw new RangeError(
        `Cannot step ${name}: it has ${this.#members.length} parameters, ` +
          `got ${grads.length} gradients`,
      );
    }
    for (const [i, { parameter: { shape } }] of this.#members.entries()) {
      const g = grads[i];
      if (g.dtype === "f32" && sameShape(g.shape, shape)) continue;
      throw new RangeError(
        `Cannot step ${name}: parameter ${i} is f32 [${shape}], ` +
          `its gradient ${g.dtype} [${g.shape}]`,
      );
    }
  }
}

function grouped<O>(parameters: ParameterList<O>): readonly ParameterGroup<O>[] {
  const isGroup = (item: object): item is ParameterGroup<O> => "parameters" in item;
  return parameters.every(isGroup)
    ? parameters
    : [{ parameters: parameters as readonly Tensor[] } as ParameterGroup<O>];
}

function checkParameters(name: string, parameters: readonly Tensor[]): void {
  if (parameters.length === 0) {
    throw new RangeError(`Cannot make ${name}: there are no parameters, give at least one`);
  }
  for (const [i, parameter] of parameters.entries()) {
    const what = `Cannot make ${name}: parameter ${i}, [${parameter.shape}],`;
    if (parameter.dtype !== "f32") throw new TypeError(`${what} is ${parameter.dtype}, not f32`);
    if (!parameter.contiguous) {
      throw new RangeError(
        `${what} is a view that cannot be updated where it is, give a contiguous() copy`,
      );
    }
    if (parameters.indexOf(parameter) < i) {
      throw new RangeError(`${what} is given twice, each must be in one group once`);
    }
  }
}

function checkOptions<O extends OptimizerOptions>(rule: Rule<O>, options: Required<O>): void {
  const { learningRate, weightDecay } = options;
  const ranges = {
    ...(typeof learningRate !== "function" && { learningRate: atLeastZero(learningRate) }),
    weightDecay: atLeastZero(weightDecay),
    ...rule.ranges(options),
  };
  for (const [option, [value, legal, wanted]] of Object.entries(ranges)) {
    if (legal) continue;
    throw new RangeError(`Cannot make ${rule.name}: ${option} is ${value}, it must be ${wanted}`);
  }
}
