/**
 * Infinities, NaN, the ends of float32 and terms that are switched off give what PyTorch gives, in
 * every kernel variant. A mistake here would be a wrong number without an error.
 */

import { assert, assertEquals, fail } from "@std/assert";
import { crossEntropy, type CrossEntropyOptions } from "../autograd/ops/cross_entropy.ts";
import { cumsum } from "../autograd/ops/cumsum.ts";
import { layerNorm } from "../autograd/ops/layer_norm.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import { l2Normalize } from "../autograd/ops/normalize.ts";
import * as pointwise from "../autograd/ops/pointwise.ts";
import { mul } from "../autograd/ops/pointwise.ts";
import { max, mean, min, norm, type ReduceOptions, sum, variance } from "../autograd/ops/reduce.ts";
import { attention } from "../autograd/ops/attention.ts";
import { logSoftmax, softmax } from "../autograd/ops/softmax.ts";
import { argmax, argmin, topK } from "../autograd/ops/top_k.ts";
import { Adam, AdamW } from "../autograd/optim/adam.ts";
import { clipByNorm } from "../autograd/optim/clip_norm.ts";
import { Sgd } from "../autograd/optim/sgd.ts";
import { vjp } from "../autograd/tape.ts";
import { full } from "../autograd/ops/create.ts";
import { tensor } from "../tensor/create.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";
import { readJson } from "./reference.ts";
import { EACH_VARIANT, withVariant } from "./variants.ts";

/** A number, or a word where JSON has no number. */
type Value = number | "inf" | "-inf" | "nan";

interface OpCase {
  readonly op: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly upstream: Value;
  readonly inputs: readonly {
    readonly shape: Shape;
    readonly dtype: "f32" | "i32";
    readonly values: readonly Value[];
  }[];
  readonly output: readonly Value[];
  readonly shape: Shape;
  readonly grads: readonly (readonly Value[] | null)[];
}

interface TrajectoryCase {
  readonly op: "Sgd" | "Adam" | "AdamW";
  readonly options: Readonly<Record<string, number | boolean>>;
  readonly maxNorm: number | null;
  readonly parameters: readonly Value[];
  readonly gradients: readonly (readonly Value[])[];
  readonly steps: readonly (readonly Value[])[];
}

const WORDS = { inf: Infinity, "-inf": -Infinity, nan: NaN } as const;
const numberOf = (value: unknown) =>
  typeof value === "string" ? WORDS[value as keyof typeof WORDS] : value as number;
const floats = (values: readonly Value[]) => Float32Array.from(values, numberOf);

type Op = (inputs: readonly Tensor[], options: OpCase["options"]) => Tensor;

const unary = (op: pointwise.Unary): Op => ([x]) => op(x);
const binary = (op: pointwise.Binary): Op => ([a, b]) => op(a, b);
const reduction = (op: (x: Tensor, options: ReduceOptions) => Tensor): Op => ([x], { axis }) =>
  op(x, { axis: axis as number });
const weighted = (op: (x: Tensor) => Tensor): Op => ([x], { weight }) =>
  scope(() => mul(op(x), tensor(weight as number[])));

const OPS: Readonly<Record<string, Op>> = {
  ...Object.fromEntries(
    ([
      ...["neg", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal", "abs", "sin", "cos"],
      ...["tanh", "sigmoid", "relu", "gelu", "geluTanh", "quickGelu"],
    ] as "neg"[]).map((name) => [name, unary(pointwise[name])]),
  ),
  ...Object.fromEntries(
    (["add", "sub", "mul", "div", "maximum", "minimum"] as "add"[])
      .map((name) => [name, binary(pointwise[name])]),
  ),
  pow: ([a, b]) => pointwise.pow(a, b),
  powScalar: ([x], { power }) => pointwise.pow(x, numberOf(power)),
  mulScalar: ([x], { c }) => pointwise.mulScalar(x, numberOf(c)),
  addScalar: ([x], { c }) => pointwise.addScalar(x, numberOf(c)),
  clamp: ([x], { low, high }) => pointwise.clamp(x, numberOf(low), numberOf(high)),
  maskedFill: ([x, mask], { value }) => pointwise.maskedFill(x, mask, numberOf(value)),
  where: ([c, a, b]) => pointwise.where(c, a, b),
  softmax: weighted(softmax),
  logSoftmax: weighted(logSoftmax),
  crossEntropy: ([x, labels], options) =>
    crossEntropy(x, labels, { reduction: "none", ...options } as CrossEntropyOptions),
  max: reduction(max),
  min: reduction(min),
  sum: reduction(sum),
  mean: reduction(mean),
  norm: reduction(norm),
  variance: reduction(variance),
  argmax: ([x]) => argmax(x),
  argmin: ([x]) => argmin(x),
  topK: ([x], { k }) => scope(() => topK(x, k as number).values),
  cumsum: ([x]) => cumsum(x),
  l2Normalize: ([x], { epsilon }) => l2Normalize(x, -1, epsilon as number),
  layerNorm: ([x, weight, bias]) => layerNorm(x, weight, bias),
  matmul: ([a, b]) => matmul(a, b),
  attention: ([q, k, v], { causal }) => attention(q, k, v, { causal: causal as boolean }),
};

/**
 * How far float32's rounding takes apart two ways to compute one value. Values that are not finite
 * must be the same.
 */
const TOLERANCE = 2e-5;

/**
 * What is expected for an input `x` instead of PyTorch's `want`: the limit, where its formula
 * multiplies 0 with infinity; and NaN for everything on which a variance with an infinity depends.
 */
const OTHERWISE: readonly (readonly [what: RegExp, value: (x: number, want: number) => number])[] =
  [
    [/^gradient 0 of geluTanh .* upstream 1,/, (x, want) => Math.abs(x) > 1e19 ? +(x > 0) : want],
    [/^gradient 0 of variance/, (_, want) => want === -Infinity ? NaN : want],
  ];

/** Where numbers of about 1 cancel, their rounding remains. */
const CANCELS = ["softmax", "logSoftmax", "crossEntropy", "layerNorm", "l2Normalize", "attention"];
const CANCELLED = 1e-6;

function assertSame(
  what: string,
  actual: ArrayLike<number>,
  expected: readonly Value[],
  inputs: readonly Value[] = [],
): void {
  assertEquals(actual.length, expected.length, what);
  const other = OTHERWISE.find(([title]) => title.test(what))?.[1];
  for (const [i, value] of expected.entries()) {
    const want = other?.(numberOf(inputs[i]), numberOf(value)) ?? numberOf(value);
    // A GPU may take 0 for intermediate numbers below 1.2e-38, where PyTorch does not.
    const subnormal = Math.abs(want) < 1e-36;
    const near = Math.abs(actual[i] - want) <= TOLERANCE * Math.abs(want) + (CANCELS.some((op) =>
            what.includes(op)
          )
          ? CANCELLED
          : 0);
    if (Object.is(actual[i], want) || near || (subnormal && Math.abs(actual[i]) < 1e-36)) {
      continue;
    }
    fail(`${what}[${i}] is ${actual[i]}, not ${want}`);
  }
}

async function checkOp({ op, options, upstream, inputs, output, shape, grads }: OpCase) {
  const given = inputs.map(({ shape, dtype, values }) =>
    keep(tensor(dtype === "i32" ? Int32Array.from(values, numberOf) : floats(values), shape))
  );
  const wanted = given.filter((_, i) => grads[i] != null);
  const made = scope(() => {
    const run = () => OPS[op](given, options);
    if (wanted.length === 0) return [run()];
    const { value, backward } = vjp(run, wanted);
    return [value, ...backward(full(value.shape, numberOf(upstream)))];
  });
  const [y, ...found] = await Promise.all(made.map((each) => each.data()));
  assertEquals([...made[0].shape], [...shape]);
  for (const each of [...given, ...made]) each.release();
  const title = `${op} ${JSON.stringify(options)}`;
  assertSame(title, y, output);
  for (const [i, values] of grads.filter((values) => values != null).entries()) {
    const what = `gradient ${i} of ${title}, upstream ${upstream},`;
    assertSame(what, found[i], values!, inputs[i].values);
  }
}

const OPTIMIZERS = { Sgd, Adam, AdamW };

async function checkTrajectory(trajectory: TrajectoryCase) {
  const { op, options, maxNorm, parameters, gradients, steps } = trajectory;
  const p = tensor(floats(parameters));
  const optimizer = new OPTIMIZERS[op]([p], options);
  for (const [i, gradient] of gradients.entries()) {
    scope(() => {
      const g = tensor(floats(gradient));
      optimizer.step(maxNorm === null ? [g] : clipByNorm([g], maxNorm).grads);
    });
    const what = `${op} ${JSON.stringify(options)}, norm ${maxNorm}, step ${i}`;
    assertSame(what, await p.data(), steps[i]);
  }
  optimizer.release();
  p.release();
}

const { torch, cases } = await readJson(
  new URL("./fixtures/special/special.json", import.meta.url),
);
const byOp = Map.groupBy(cases as (OpCase | TrajectoryCase)[], ({ op }) => op);
let checked = 0;

for (const variant of EACH_VARIANT) {
  for (const [op, casesOfOp] of byOp) {
    gpuTest(
      `${op} does as PyTorch ${torch} at infinities, NaN and the ends, ${variant.name}`,
      () =>
        withVariant(variant, async () => {
          for (const one of casesOfOp) {
            if ("steps" in one) await checkTrajectory(one);
            else await checkOp(one);
            checked++;
          }
        }),
    );
  }
}

gpuTest("every special case was run in every variant", () => {
  console.log(`special values: ${checked} cases passed`);
  assert(checked >= 2 * cases.length && checked % cases.length === 0);
});
