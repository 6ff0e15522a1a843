/**
 * Ops that work element by element. One entry defines one op, by its forward expression and its
 * derivative.
 *
 * @module
 */

import { pointwise } from "../../kernels/pointwise.ts";
import { MAX_BINDINGS } from "../../tensor/device.ts";
import { scope } from "../../tensor/scope.ts";
import { broadcast, sameShape, type Shape } from "../../tensor/shape.ts";
import { checkReadable, type Tensor } from "../../tensor/tensor.ts";
import { record, wrt, wrtAll } from "../tape.ts";
import { sumTo } from "./reduce.ts";

/** An op of one operand: `[…] → […]`. */
export type Unary = (x: Tensor) => Tensor;
/** An op of one operand that a layer can apply in the pass that computes its product. */
export interface Elementwise extends Unary {
  /** WGSL of the op's value, in terms of `x`. */
  readonly forward: string;
  /** WGSL of the input's gradient, in terms of `x` and of `g`, the gradient of the output. */
  readonly gradient: string;
}
/** An op of two operands, broadcast to one shape. */
export type Binary = (a: Tensor, b: Tensor) => Tensor;
/** An op of a tensor and a number. */
export type Scalar = (x: Tensor, value: number) => Tensor;

/**
 * WGSL of an op's value, and of its derivative or its input's gradient. The gradient is given where
 * a condition sets it to 0: a derivative of 0 times an infinite `g` would be NaN.
 */
type Expressions =
  & { readonly forward: string }
  & ({ readonly derivative: string } | { readonly gradient: string });

const gradientOf = (expressions: Expressions): string =>
  "gradient" in expressions ? expressions.gradient : `g * (${expressions.derivative})`;

const names = (expression: string, name: string) => new RegExp(`\\b${name}\\b`).test(expression);

/**
 * An op of one operand. A derivative in terms of `x` saves the input, one in terms of `y` the
 * output.
 */
function unary(op: string, expressions: Expressions): Elementwise {
  const { forward } = expressions;
  return Object.assign((x: Tensor) => apply(op, x, expressions, {}), {
    forward,
    gradient: gradientOf(expressions).replace(/\by\b/g, `(${forward})`),
  });
}

/** An op of a tensor and a number `c`. */
function scalar(op: string, expressions: Expressions): Scalar {
  return (x, c) => apply(op, x, expressions, { c });
}

function apply(
  op: string,
  x: Tensor,
  expressions: Expressions,
  scalars: Record<string, number>,
): Tensor {
  checkReadable(op, x);
  const { forward } = expressions;
  const gradient = gradientOf(expressions);
  const used = (expression: string) =>
    Object.fromEntries(Object.entries(scalars).filter(([name]) => names(expression, name)));
  const y = pointwise(forward, { x, ...used(forward) }, x.shape);
  const saved = { ...(names(gradient, "x") && { x }), ...(names(gradient, "y") && { y }) };
  const { shape } = x;
  return record(y, [
    wrt(
      x,
      Object.values(saved),
      (g) => pointwise(gradient, { g, ...saved, ...used(gradient) }, shape),
    ),
  ]);
}

/**
 * An op of two operands. `da` and `db` are WGSL of their gradients, in terms of `g`, `a` and `b`;
 * each saves the operands that it names.
 */
function binary(
  op: string,
  { forward, da, db }: { forward: string; da: string; db: string },
): Binary {
  return (a, b) => {
    checkReadable(op, a, b);
    const shape = broadcast(a.shape, b.shape);
    const rule = (input: Tensor, gradient: string) => {
      const saved = { ...(names(gradient, "a") && { a }), ...(names(gradient, "b") && { b }) };
      const { shape: needed } = input;
      return wrt(
        input,
        Object.values(saved),
        (g) =>
          gradient === "g"
            ? sumTo(g, needed)
            : scope(() => sumTo(pointwise(gradient, { g, ...saved }, shape), needed)),
      );
    };
    return record(pointwise(forward, { a, b }, shape), [rule(a, da), rule(b, db)]);
  };
}

/** `a + b`. */
export const add: Binary = binary("add", { forward: "a + b", da: "g", db: "g" });

/** The most operands of one kernel: the result takes one binding. */
const MAX_TERMS = MAX_BINDINGS - 1;

/** The sum of tensors of one shape. One dispatch adds up to seven tensors. */
export function addAll(tensors: readonly Tensor[]): Tensor {
  if (tensors.length === 0) throw new RangeError("Cannot add no tensors: give at least one");
  const [{ shape }] = tensors;
  for (const other of tensors) {
    checkReadable("add", other);
    if (!sameShape(other.shape, shape)) {
      throw new RangeError(`Cannot add all of [${shape}] and [${other.shape}]: the shapes differ`);
    }
  }
  return scope(() => {
    let terms = tensors;
    while (terms.length > 1) {
      const some = terms.slice(0, MAX_TERMS);
      const names = some.map((_, i) => `x${i}`);
      const operands = Object.fromEntries(some.map((term, i) => [names[i], term]));
      const sum = pointwise(names.join(" + "), operands, shape);
      terms = [
        record(sum, [wrtAll(some, [], (g) => some.map(() => g))]),
        ...terms.slice(MAX_TERMS),
      ];
    }
    return terms[0];
  });
}

/** `a - b`. */
export const sub: Binary = binary("sub", { forward: "a - b", da: "g", db: "-g" });

/** `a · b`, element by element. */
export const mul: Binary = binary("mul", { forward: "a * b", da: "g * b", db: "g * a" });

/** `a / b`. */
export const div: Binary = binary("div", {
  forward: "a / b",
  da: "g / b",
  db: "-g * (a / b / b)",
});

/** The larger of `a` and `b`; equal ones share the gradient. */
export const maximum: Binary = binary("maximum", {
  forward: "maximum_(a, b)",
  da: "select(select(g, 0.0, a < b), 0.5 * g, a == b)",
  db: "select(select(g, 0.0, b < a), 0.5 * g, a == b)",
});

/** The smaller of `a` and `b`; equal ones share the gradient. */
export const minimum: Binary = binary("minimum", {
  forward: "minimum_(a, b)",
  da: "select(select(g, 0.0, a > b), 0.5 * g, a == b)",
  db: "select(select(g, 0.0, b > a), 0.5 * g, a == b)",
});

/** `x + c`. */
export const addScalar: Scalar = scalar("addScalar", { forward: "x + c", derivative: "1.0" });

/** `c · x`. */
export const mulScalar: Scalar = scalar("mulScalar", { forward: "c * x", derivative: "c" });

/** WGSL of the powers of `x` that have a simpler form; PyTorch computes them in the same way. */
const POWERS: Readonly<Record<number, string>> = {
  [-2]: "1.0 / (x * x)",
  [-1]: "1.0 / x",
  [-0.5]: "inverseSqrt(x)",
  0.5: "sqrt(x)",
  1: "x",
  2: "x * x",
  3: "x * x * x",
};

function scalarPow(x: Tensor, power: number): Tensor {
  const forward = POWERS[power] ?? "pow_(x, c)";
  const below = POWERS[power - 1] ?? "pow_(x, c - 1.0)";
  const gradient = power === 0 ? "0.0 * g" : `g * (c * (${below}))`;
  return apply("pow", x, { forward, gradient }, { c: power });
}

const tensorPow = binary("pow", {
  forward: "pow_(a, b)",
  da: "select(g * (b * pow_(a, b - 1.0)), 0.0, b == 0.0)",
  db: "select(g * (pow_(a, b) * log_(a)), 0.0, a == 0.0 && b >= 0.0)",
});

/**
 * `x` to the power of `exponent`, a number or a tensor; NaN for negative `x` and a power that is no
 * integer.
 */
export function pow(x: Tensor, exponent: Tensor | number): Tensor {
  return typeof exponent === "number" ? scalarPow(x, exponent) : tensorPow(x, exponent);
}

/** `-x`. */
export const neg: Elementwise = unary("neg", { forward: "-x", derivative: "-1.0" });

/** `eˣ`. */
export const exp: Elementwise = unary("exp", { forward: "exp_(x)", derivative: "y" });

/** Natural logarithm; NaN below 0. */
export const log: Elementwise = unary("log", { forward: "log_(x)", derivative: "1.0 / x" });

/** Square root; NaN below 0. */
export const sqrt: Elementwise = unary("sqrt", { forward: "sqrt(x)", derivative: "0.5 / y" });

/** `1 / √x`. */
export const rsqrt: Elementwise = unary("rsqrt", {
  forward: "inverseSqrt(x)",
  derivative: "-0.5 * y * y * y",
});

/** `x²`. */
export const square: Elementwise = unary("square", { forward: "x * x", derivative: "2.0 * x" });

/** `1 / x`. */
export const reciprocal: Elementwise = unary("reciprocal", {
  forward: "1.0 / x",
  derivative: "-y * y",
});

/** Absolute value; its gradient at 0 is 0. */
export const abs: Elementwise = unary("abs", { forward: "abs(x)", derivative: "sign(x)" });

/** Sine of an angle in radians. */
export const sin: Elementwise = unary("sin", {
  forward: "sine_(x, 0)",
  derivative: "sine_(x, 1)",
});

/** Cosine of an angle in radians. */
export const cos: Elementwise = unary("cos", {
  forward: "sine_(x, 1)",
  derivative: "-sine_(x, 0)",
});

/** Hyperbolic tangent. */
export const tanh: Elementwise = unary("tanh", { forward: "tanh_(x)", derivative: "1.0 - y * y" });

/** Logistic function, `1 / (1 + e⁻ˣ)`. */
export const sigmoid: Elementwise = unary("sigmoid", {
  forward: "sigmoid_(x)",
  derivative: "y * (1.0 - y)",
});

/** `max(x, 0)`; its gradient at 0 is 0. */
export const relu: Elementwise = unary("relu", {
  forward: "maximum_(x, 0.0)",
  gradient: "select(g, 0.0, x <= 0.0)",
});

/** Gaussian error linear unit, `x · Φ(x)` (Hendrycks and Gimpel, arXiv 1606.08415). */
export const gelu: Elementwise = unary("gelu", {
  forward: "x * normal_(x)",
  derivative: "normal_(x) + x * exp(-0.5 * x * x) * 0.3989422804014327",
});

/**
 * GELU by its tanh approximation: `gelu_new` in Hugging Face's configurations (arXiv 1606.08415,
 * section 2).
 */
export const geluTanh: Elementwise = unary("geluTanh", {
  // ½ (1 + tanh u) is sigmoid(2 u), which stays precise where it is near 0.
  forward: "x * sigmoid_(1.5957691216057308 * (x + 0.044715 * x * x * x))",
  derivative: "gelu_tanh_derivative_(x)",
});

/** CLIP's activation, `x · sigmoid(1.702 x)`. */
export const quickGelu: Elementwise = unary("quickGelu", {
  forward: "x * sigmoid_(1.702 * x)",
  // In this order no factor overflows where another is 0: their product would be NaN.
  derivative:
    "sigmoid_(1.702 * x) + x * sigmoid_(1.702 * x) * (1.702 - 1.702 * sigmoid_(1.702 * x))",
});

/**
 * `x` held between `least` and `most`; beyond them its gradient is 0.
 *
 * @throws {RangeError} If `least` is above `most`.
 */
export function clamp(x: Tensor, least: number, most: number): Tensor {
  if (!(least <= most)) throw new RangeError(`Cannot clamp between ${least} and ${most}`);
  const forward = "nan_or_(x, clamp(x, least, most))";
  const gradient = "select(0.0, g, x >= least && x <= most)";
  return apply("clamp", x, { forward, gradient }, { least, most });
}

/**
 * `x` where `mask` (broadcast to its shape) is 0, else `value`.
 *
 * @throws {RangeError} If the mask does not broadcast to the shape of `x`.
 */
export function maskedFill(x: Tensor, mask: Tensor, value: number): Tensor {
  const { shape } = x;
  checkReadable("maskedFill", x);
  checkMask("maskedFill", shape, mask.shape);
  return record(pointwise("select(x, value, bool(m))", { x, m: mask, value }, shape), [
    wrt(x, [mask], (g) => pointwise("select(g, 0.0, bool(m))", { g, m: mask }, shape)),
  ]);
}

function checkMask(op: string, shape: Shape, mask: Shape): void {
  if (sameShape(broadcast(shape, mask), shape)) return;
  throw new RangeError(`Cannot ${op} [${shape}] by a mask of [${mask}]: it has more elements`);
}

/** `a` where `condition` is not 0, else `b`; all three are broadcast to one shape. */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  checkReadable("choose where from", a, b);
  const shape = broadcast(condition.shape, broadcast(a.shape, b.shape));
  const rule = (side: Tensor, chosen: string) => {
    const { shape: to } = side;
    return wrt(
      side,
      [condition],
      (g) => scope(() => sumTo(pointwise(chosen, { g, c: condition }, shape), to)),
    );
  };
  return record(pointwise("select(b, a, bool(c))", { a, b, c: condition }, shape), [
    rule(a, "select(0.0, g, bool(c))"),
    rule(b, "select(g, 0.0, bool(c))"),
  ]);
}
