/**
 * Affine layers.
 *
 * @module
 */

import { type Epilogue, multiply, multiplyThen } from "../../kernels/matmul.ts";
import { pointwise } from "../../kernels/pointwise.ts";
import { replaced } from "../../kernels/template.ts";
import { scope } from "../../tensor/scope.ts";
import { numel, sameShape, type Shape } from "../../tensor/shape.ts";
import { checkFloats, checkReadable, type Tensor } from "../../tensor/tensor.ts";
import { type GradientRule, needsGradient, record, wrt, wrtAccumulating } from "../tape.ts";
import type { Elementwise } from "./pointwise.ts";
import { sumTo } from "./reduce.ts";
import { contiguous, detach, reshape, transpose } from "./view.ts";

/** What a layer does to its product, in the pass that computes the product. */
export interface LinearOptions {
  /** The op applied to each element of the product plus bias; none by default. */
  readonly activation?: Elementwise;
  /** A tensor of the result's shape, added last; none by default. */
  readonly residual?: Tensor;
}

/**
 * Affine layer `x Wᵀ + b`: `[…, in] → […, out]`, with `weight` `[out, in]` as in PyTorch's
 * checkpoints. With options it is `activation(x Wᵀ + b) + residual`.
 *
 * @throws {RangeError} If the inner sizes differ, or the residual is not of the result's shape.
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: LinearOptions = {},
): Tensor {
  const { shape } = x;
  return affine(x, weight, bias, options, () => ({
    inputs: [],
    rulesOf: () => [
      wrtAccumulating(
        x,
        [weight],
        (g, accumulated) => inputGradient(flatten(g), weight, shape, accumulated),
      ),
    ],
  }));
}

/** What an op adds to a layer's product in the same pass, and the gradient rules for it. */
export interface Addition {
  /** The tensors that it reads besides those of the layer. */
  readonly inputs: readonly Tensor[];
  /** The low-rank product that is added; none by default. */
  readonly lowRank?: Epilogue["lowRank"];
  /**
   * The gradient rules of the layer's input and of {@linkcode inputs}. They save the layer's input
   * as `source`.
   */
  readonly rulesOf: (source: Tensor) => readonly GradientRule[];
}

/**
 * An affine layer with something added to its product:
 * `activation(x Wᵀ + addition + b) + residual`. `add` is given the layer's input as rows `[R, in]`.
 * Throws as {@linkcode linear} does.
 */
export function affine(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  { activation, residual }: LinearOptions,
  add: (rows: Tensor) => Addition,
): Tensor {
  const vectors = bias ? { bias } : {};
  checkFloats("linear", x, ...Object.values(vectors), ...(residual ? [residual] : []));
  checkReadable("linear", weight);
  const shape = [...x.shape.slice(0, -1), weight.shape[0]];
  if (residual && !sameShape(residual.shape, shape)) {
    throw new RangeError(`Cannot add a residual of [${residual.shape}] to a layer's [${shape}]`);
  }
  return scope(() => {
    // The rules are recorded for x itself, not for `rows`: layers that share an input then
    // accumulate into one gradient.
    const rows = flatten(x);
    const { inputs, lowRank, rulesOf } = add(rows);
    const trains = [x, weight, ...Object.values(vectors), ...inputs].some(needsGradient);
    const keeps = activation !== undefined && trains;
    const sum = bias ? "x + bias" : "x";
    const value = activation ? replaced(activation.forward, /\bx\b/, `(${sum})`) : sum;
    const [made, saved] = multiplyThen(rows, transpose(weight), {
      expression: residual ? `${value} + residual` : value,
      ...(keeps && { saved: sum }),
      vectors: bias ? { bias: contiguous(bias) } : {},
      matrices: residual ? { residual: flatten(residual) } : {},
      ...(lowRank && { lowRank }),
    });
    const y = made.view(shape);
    // A contiguous x is saved itself: a view of it would hold as much memory. Else `rows` is a copy
    // that was made anyway, and is saved, so that the backward pass makes none.
    const source = x.contiguous ? x : rows;
    const rules = [
      ...rulesOf(source),
      wrt(weight, [source], (g) => scope(() => multiply(transpose(flatten(g)), flatten(source)))),
      ...(bias ? [wrt(bias, [], (g) => sumTo(g, bias.shape))] : []),
    ];
    // With an activation, the layer's rules belong to the pre-activation, and `y` has the
    // activation's rule.
    const before = saved?.view(shape);
    if (before) record(before, rules);
    const inner = activation ? before ? [gate(before, activation)] : [] : rules;
    return record(y, residual ? [...inner, wrt(residual, [], (g) => g)] : inner);
  });
}

/** `[…, C]` as rows `[R, C]`, detached from the tape. */
export function flatten(x: Tensor): Tensor {
  return reshape(detach(x), [numel(x.shape.slice(0, -1)), x.shape.at(-1) ?? 0]);
}

/**
 * The gradient of a layer's input, of its `shape`, in one pass: `g W`, plus the product in `more`,
 * plus the gradient `accumulated` so far.
 */
export function inputGradient(
  g: Tensor,
  weight: Tensor,
  shape: Shape,
  accumulated: Tensor | null,
  more: Epilogue = {},
): Tensor {
  return scope(() => {
    const sum = accumulated && {
      expression: "x + accumulated",
      matrices: { accumulated: flatten(accumulated) },
    };
    return multiplyThen(g, weight, { ...more, ...sum })[0].view(shape);
  });
}

function gate(x: Tensor, { gradient }: Elementwise): GradientRule {
  return wrt(x, [x], (g) => pointwise(gradient, { g, x }, x.shape));
}
