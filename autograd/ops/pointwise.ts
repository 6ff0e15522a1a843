/**
 * Ops that work element by element. One entry defines one op: its forward expression, its derivative.
 *
 * @module
 */

import { pointwise } from "../../kernels/pointwise.ts";
import { scope } from "../../tensor/scope.ts";
import { broadcast } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { record, wrt } from "../tape.ts";
import { sumTo } from "./reduce.ts";

/** An op of one operand: `[…] → […]`. */
export type Unary = (x: Tensor) => Tensor;
/** An op of two operands, broadcast to one shape. */
export type Binary = (a: Tensor, b: Tensor) => Tensor;
/** An op of a tensor and a number. */
export type Scalar = (x: Tensor, value: number) => Tensor;

const names = (expression: string, name: string) => new RegExp(`\\b${name}\\b`).test(expression);

/** An op of one operand. A derivative written in `x` keeps the input, one written in `y` the output. */
function unary({ forward, derivative }: { forward: string; derivative: string }): Unary {
  return (x) => apply(x, forward, derivative, {});
}

/** An op of a tensor and a number `c`. */
function scalar({ forward, derivative }: { forward: string; derivative: string }): Scalar {
  return (x, c) => apply(x, forward, derivative, { c });
}

function apply(
  x: Tensor,
  forward: string,
  derivative: string,
  scalars: Record<string, number>,
): Tensor {
  const used = (expression: string) =>
    Object.fromEntries(Object.entries(scalars).filter(([name]) => names(expression, name)));
  const y = pointwise(forward, { x, ...used(forward) }, x.shape);
  const saved = { ...(names(derivative, "x") && { x }), ...(names(derivative, "y") && { y }) };
  const { shape } = x;
  return record(y, [
    wrt(
      x,
      Object.values(saved),
      (g) => pointwise(`g * (${derivative})`, { g, ...saved, ...used(derivative) }, shape),
    ),
  ]);
}

/** An op of two operands; `da` and `db` are the derivatives, each keeping the operands that it names. */
function binary({ forward, da, db }: { forward: string; da: string; db: string }): Binary {
  return (a, b) => {
    const shape = broadcast(a.shape, b.shape);
    const rule = (input: Tensor, derivative: string) => {
      const saved = { ...(names(derivative, "a") && { a }), ...(names(derivative, "b") && { b }) };
      const { shape: own } = input;
      return wrt(
        input,
        Object.values(saved),
        (g) =>
          derivative === "1.0"
            ? sumTo(g, own)
            : scope(() => sumTo(pointwise(`g * (${derivative})`, { g, ...saved }, shape), own)),
      );
    };
    return record(pointwise(forward, { a, b }, shape), [rule(a, da), rule(b, db)]);
  };
}

/** `a + b`. */
export const add: Binary = binary({ forward: "a + b", da: "1.0", db: "1.0" });

/** `a - b`. */
export const sub: Binary = binary({ forward: "a - b", da: "1.0", db: "-1.0" });

/** `a · b`, element by element. */
export const mul: Binary = binary({ forward: "a * b", da: "b", db: "a" });

/** `a / b`. */
export const div: Binary = binary({ forward: "a / b", da: "1.0 / b", db: "-a / (b * b)" });

/** The larger of `a` and `b`; equal ones share the gradient. */
export const maximum: Binary = binary({
  forward: "max(a, b)",
  da: "0.5 * (1.0 + sign(a - b))",
  db: "0.5 * (1.0 - sign(a - b))",
});

/** The smaller of `a` and `b`; equal ones share the gradient. */
export const minimum: Binary = binary({
  forward: "min(a, b)",
  da: "0.5 * (1.0 - sign(a - b))",
  db: "0.5 * (1.0 + sign(a - b))",
});

/** `x + c`. */
export const addScalar: Scalar = scalar({ forward: "x + c", derivative: "1.0" });

/** `c · x`. */
export const mulScalar: Scalar = scalar({ forward: "c * x", derivative: "c" });

/** `xᶜ`; for negative `x`, whole powers only. */
export const pow: Scalar = scalar({ forward: "pow_(x, c)", derivative: "c * pow_(x, c - 1.0)" });

/** `-x`. */
export const neg: Unary = unary({ forward: "-x", derivative: "-1.0" });

/** `eˣ`. */
export const exp: Unary = unary({ forward: "exp(x)", derivative: "y" });

/** Natural logarithm. */
export const log: Unary = unary({ forward: "log(x)", derivative: "1.0 / x" });

/** Square root. */
export const sqrt: Unary = unary({ forward: "sqrt(x)", derivative: "0.5 / y" });

/** `1 / √x`. */
export const rsqrt: Unary = unary({ forward: "inverseSqrt(x)", derivative: "-0.5 * y * y * y" });

/** `x²`. */
export const square: Unary = unary({ forward: "x * x", derivative: "2.0 * x" });

/** `1 / x`. */
export const reciprocal: Unary = unary({ forward: "1.0 / x", derivative: "-y * y" });

/** Absolute value; its gradient at 0 is 0. */
export const abs: Unary = unary({ forward: "abs(x)", derivative: "sign(x)" });

/** Sine of an angle in radians. */
export const sin: Unary = unary({ forward: "sin(x)", derivative: "cos(x)" });

/** Cosine of an angle in radians. */
export const cos: Unary = unary({ forward: "cos(x)", derivative: "-sin(x)" });

/** Hyperbolic tangent. */
export const tanh: Unary = unary({ forward: "tanh_(x)", derivative: "1.0 - y * y" });

/** Logistic function, `1 / (1 + e⁻ˣ)`. */
export const sigmoid: Unary = unary({ forward: "sigmoid_(x)", derivative: "y * (1.0 - y)" });

/** `max(x, 0)`; its gradient at 0 is 0. */
export const relu: Unary = unary({
  forward: "max(x, 0.0)",
  derivative: "select(0.0, 1.0, x > 0.0)",
});

/** Gaussian error linear unit, `x · Φ(x)` (Hendrycks and Gimpel, arXiv 1606.08415). */
export const gelu: Unary = unary({
  forward: "0.5 * x * (1.0 + erf_(x * 0.7071067811865476))",
  derivative:
    "0.5 * (1.0 + erf_(x * 0.7071067811865476)) + x * exp(-0.5 * min(x * x, 170.0)) * 0.3989422804014327",
});

/** GELU by its tanh approximation: `gelu_new` in Hugging Face's configurations (arXiv 1606.08415, section 2). */
export const geluTanh: Unary = unary({
  forward: "0.5 * x * (1.0 + tanh_(0.7978845608028654 * (x + 0.044715 * x * x * x)))",
  derivative: "gelu_tanh_derivative_(x)",
});

/** CLIP's activation, `x · sigmoid(1.702 x)`. */
export const quickGelu: Unary = unary({
  forward: "x * sigmoid_(1.702 * x)",
  derivative: "sigmoid_(1.702 * x) * (1.0 + 1.702 * x * (1.0 - sigmoid_(1.702 * x)))",
});

/** `x` held between `low` and `high`; beyond them its gradient is 0. */
export function clamp(x: Tensor, low: number, high: number): Tensor {
  return apply(x, "clamp(x, low, high)", "select(0.0, 1.0, x >= low && x <= high)", { low, high });
}

/** `x` where `mask` (u32, broadcast) is 0, else `value`. */
export function maskedFill(x: Tensor, mask: Tensor, value: number): Tensor {
  const { shape } = x;
  return record(pointwise("select(x, value, m != 0u)", { x, m: mask, value }, shape), [
    wrt(x, [mask], (g) => pointwise("select(g, 0.0, m != 0u)", { g, m: mask }, shape)),
  ]);
}

/** `a` where `condition` (u32, broadcast) is not 0, else `b`. */
export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  const shape = broadcast(condition.shape, broadcast(a.shape, b.shape));
  const part = (own: Tensor, chosen: string) => {
    const { shape: to } = own;
    return wrt(
      own,
      [condition],
      (g) => scope(() => sumTo(pointwise(chosen, { g, c: condition }, shape), to)),
    );
  };
  return record(pointwise("select(b, a, c != 0u)", { a, b, c: condition }, shape), [
    part(a, "select(0.0, g, c != 0u)"),
    part(b, "select(g, 0.0, c != 0u)"),
  ]);
}
