/**
 * Every case of the `autograd` fixtures: the output and gradients of each op, compared with PyTorch
 * in 64 bits.
 */

import { assert, assertEquals, fail } from "@std/assert";
import { conv2d, patchEmbedding } from "../autograd/ops/conv.ts";
import { full, ones, zeros } from "../autograd/ops/create.ts";
import { crossEntropy, type CrossEntropyOptions } from "../autograd/ops/cross_entropy.ts";
import { cumsum } from "../autograd/ops/cumsum.ts";
import { maskedDropout } from "../autograd/ops/dropout.ts";
import { embedding, gather, indexSelect, takeToken } from "../autograd/ops/embedding.ts";
import { layerNorm } from "../autograd/ops/layer_norm.ts";
import { linear } from "../autograd/ops/linear.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import { l2Normalize } from "../autograd/ops/normalize.ts";
import * as pointwise from "../autograd/ops/pointwise.ts";
import { add, mul, mulScalar, neg } from "../autograd/ops/pointwise.ts";
import { max, mean, min, norm, type ReduceOptions, sum, variance } from "../autograd/ops/reduce.ts";
import { attention } from "../autograd/ops/attention.ts";
import { logSoftmax, softmax } from "../autograd/ops/softmax.ts";
import { argmax, argmin, topK } from "../autograd/ops/top_k.ts";
import * as view from "../autograd/ops/view.ts";
import { permute, reshape, slice, transpose, unsqueeze } from "../autograd/ops/view.ts";
import { valueAndGrad, vjp } from "../autograd/tape.ts";
import { tensor } from "../tensor/create.ts";
import { lanes } from "../tensor/device.ts";
import type { SafetensorsFile } from "../tensor/safetensors.ts";
import { keep, scope } from "../tensor/scope.ts";
import { numel, type Shape } from "../tensor/shape.ts";
import type { Data, Tensor } from "../tensor/tensor.ts";
import { fixtures, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";
import { openSafetensors, readJson, type Tolerance } from "./reference.ts";
import { EACH_TILE, EACH_VARIANT, type PinnedKernels, withVariant } from "./variants.ts";

type Step = readonly [kind: string, ...parameters: unknown[]];

interface Input {
  readonly key: string;
  readonly shape: Shape;
  readonly dtype: string;
  readonly requires_grad: boolean;
  readonly view?: readonly Step[];
  readonly view_shape?: Shape;
}

interface Output extends Tolerance {
  readonly key: string;
  readonly shape: Shape;
  readonly dtype: string;
  readonly upstream_grad?: string;
}

interface Case {
  readonly id: string;
  readonly attrs: Readonly<Record<string, unknown>>;
  readonly inputs: Readonly<Record<string, Input>>;
  readonly outputs: Readonly<Record<string, Output>>;
  readonly grads: Readonly<Record<string, Tolerance & { key: string; shape: Shape }>>;
}

/** Named values. Each must be used: an attribute that an op does not know fails the test. */
class Named<T> {
  readonly #values: ReadonlyMap<string, T>;
  readonly #unused: Set<string>;

  constructor(values: Readonly<Record<string, T>>) {
    this.#values = new Map(Object.entries(values));
    this.#unused = new Set(this.#values.keys());
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  get<U extends T = T>(name: string): U {
    assert(this.has(name), `"${name}" is missing`);
    this.#unused.delete(name);
    return this.#values.get(name) as U;
  }

  /** The values named `prefix` and a number from 0 on. */
  listed(prefix: string): T[] {
    const found: T[] = [];
    while (this.has(`${prefix}${found.length}`)) found.push(this.get(`${prefix}${found.length}`));
    return found;
  }

  done(what: string): void {
    assertEquals([...this.#unused], [], `${what} of no known meaning`);
  }
}

type Attributes = Named<unknown>;
type Op = (x: Named<Tensor>, attrs: Attributes) => Tensor | readonly Tensor[];

const unary = (op: pointwise.Unary): Op => (x) => op(x.get("x"));

/** An op of two operands, of one with a number on either side, or of one with itself. */
const binary = (op: pointwise.Binary): Op => (x, attrs) => {
  const a = x.get("a");
  if (attrs.has("scalar")) {
    const number = full([], attrs.get<number>("scalar"));
    const side = attrs.get("side");
    assert(side === "left" || side === "right");
    return side === "left" ? op(number, a) : op(a, number);
  }
  if (attrs.has("same")) return op(a, attrs.get("same") ? a : x.get("b"));
  if (attrs.has("same_transposed")) {
    return op(a, attrs.get("same_transposed") ? transpose(a) : x.get("b"));
  }
  return op(a, x.get("b"));
};

function reduceOptions(attrs: Attributes): ReduceOptions {
  const axis = attrs.get<number | number[] | null>("dim");
  return { ...(axis !== null && { axis }), keepAxes: attrs.get<boolean>("keepdim") };
}

const reduction = (op: (x: Tensor, options: ReduceOptions) => Tensor): Op => (x, attrs) =>
  op(x.get("x"), reduceOptions(attrs));

/** `[B, T, C]` to `[B, heads, T, C / heads]`. */
function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch, tokens, width] = x.shape;
  return permute(reshape(x, [batch, tokens, heads, width / heads]), [0, 2, 1, 3]);
}

const GRAPHS: Readonly<Record<string, (x: Named<Tensor>) => Tensor | readonly Tensor[]>> = {
  diamond(inputs) {
    const x = inputs.get("x");
    return mul(add(mul(x, x), pointwise.exp(x)), x);
  },
  detach(inputs) {
    const x = inputs.get("x");
    return add(mul(x, view.detach(x)), view.detach(sum(x)));
  },
  reused_weight(inputs) {
    const w = inputs.get("w");
    return matmul(pointwise.tanh(matmul(pointwise.tanh(matmul(inputs.get("x"), w)), w)), w);
  },
  broadcast_reuse(inputs) {
    const b = inputs.get("b");
    return pointwise.sub(mul(add(inputs.get("x"), b), b), mean(b));
  },
  view_overlap(inputs) {
    const x = inputs.get("x");
    return mul(slice(x, 0, 1), slice(x, 0, 0, -1));
  },
  unused_input(inputs) {
    return add(mulScalar(inputs.get("x"), 2), mulScalar(sum(inputs.get("z")), 0));
  },
  two_outputs(inputs) {
    const x = inputs.get("x");
    return [softmax(x), sum(pointwise.square(x), { axis: -1 })];
  },
  clip_loss(inputs) {
    const [images, texts] = ["i", "t"].map((name) => l2Normalize(inputs.get(name)));
    const logits = mul(pointwise.exp(inputs.get("s")), matmul(images, transpose(texts)));
    const labels = tensor(Uint32Array.from({ length: images.shape[0] }, (_, row) => row));
    const losses = [logits, transpose(logits)].map((rows) => crossEntropy(rows, labels));
    return mulScalar(add(losses[0], losses[1]), 0.5);
  },
  mlp_block(inputs) {
    const x = inputs.get("x");
    const normal = layerNorm(x, inputs.get("g"), inputs.get("h"));
    const inner = pointwise.quickGelu(linear(normal, inputs.get("w1"), inputs.get("b1")));
    return add(x, linear(inner, inputs.get("w2"), inputs.get("b2")));
  },
};

const OPS: Readonly<Record<string, Op>> = {
  neg: unary(neg),
  exp: unary(pointwise.exp),
  log: unary(pointwise.log),
  sqrt: unary(pointwise.sqrt),
  rsqrt: unary(pointwise.rsqrt),
  abs: unary(pointwise.abs),
  square: unary(pointwise.square),
  reciprocal: unary(pointwise.reciprocal),
  sin: unary(pointwise.sin),
  cos: unary(pointwise.cos),
  tanh: unary(pointwise.tanh),
  sigmoid: unary(pointwise.sigmoid),
  relu: unary(pointwise.relu),
  quick_gelu: unary(pointwise.quickGelu),
  gelu(x, attrs) {
    const approximate = attrs.get("approximate");
    assert(approximate === "none" || approximate === "tanh");
    return (approximate === "none" ? pointwise.gelu : pointwise.geluTanh)(x.get("x"));
  },
  clamp: (x, attrs) => pointwise.clamp(x.get("x"), attrs.get("min"), attrs.get("max")),
  pow(x, attrs) {
    const exponent = attrs.get<number | "tensor">("exponent");
    return pointwise.pow(x.get("x"), exponent === "tensor" ? x.get("e") : exponent);
  },
  add: binary(add),
  sub: binary(pointwise.sub),
  mul: binary(mul),
  div: binary(pointwise.div),
  maximum: binary(pointwise.maximum),
  minimum: binary(pointwise.minimum),
  matmul: (x) => matmul(x.get("a"), x.get("b")),
  linear: (x) => linear(x.get("x"), x.get("w"), x.has("b") ? x.get("b") : null),
  conv2d(x, attrs) {
    const [images, weight, bias] = [x.get("x"), x.get("w"), x.has("b") ? x.get("b") : null];
    const [stride, padding, dilation] = ["stride", "padding", "dilation"]
      .map((name) => attrs.get<[number, number]>(name));
    const groups = attrs.get<number>("groups");
    const y = conv2d(images, weight, bias, { stride, padding, dilation, groups });
    const patches = `${stride}` === `${weight.shape.slice(2)}` && stride[0] === stride[1] &&
      `${padding}` === "0,0" && `${dilation}` === "1,1" && groups === 1;
    if (!patches) return y;
    // Both ways to say it have to agree.
    const rows = patchEmbedding(images, weight);
    const other = transpose(bias ? add(rows, bias) : rows);
    return mulScalar(add(y, reshape(other, y.shape)), 0.5);
  },
  sum: reduction(sum),
  mean: reduction(mean),
  max: reduction(max),
  min: reduction(min),
  l2_norm: reduction(norm),
  var: (x, attrs) =>
    variance(x.get("x"), { ...reduceOptions(attrs), unbiased: attrs.get<boolean>("unbiased") }),
  softmax(x, attrs) {
    const masked = attrs.has("masked") && attrs.get("masked");
    const scores = masked ? pointwise.maskedFill(x.get("x"), x.get("m"), -1e30) : x.get("x");
    return softmax(scores, attrs.get("dim"));
  },
  log_softmax: (x, attrs) => logSoftmax(x.get("x"), attrs.get("dim")),
  layer_norm(x, attrs) {
    const input = x.get("x");
    const sizes = input.shape.slice(-attrs.get<number>("normalized_dims"));
    const weight = x.has("w") ? x.get("w") : ones(sizes);
    return layerNorm(input, weight, x.has("b") ? x.get("b") : zeros(sizes), attrs.get("eps"));
  },
  cross_entropy: (x, attrs) =>
    crossEntropy(x.get("x"), x.get("t"), {
      labelSmoothing: attrs.get<number>("label_smoothing"),
      reduction: attrs.get("reduction") as CrossEntropyOptions["reduction"],
      ...(attrs.has("ignore_index") && { ignoreIndex: attrs.get<number>("ignore_index") }),
    }),
  cumsum: (x, attrs) => cumsum(x.get("x"), attrs.get("dim")),
  embedding: (x) => embedding(x.get("w"), x.get("i")),
  index_select: (x, attrs) => indexSelect(x.get("x"), attrs.get("dim"), x.get("i")),
  gather: (x, attrs) => gather(x.get("x"), attrs.get("dim"), x.get("i")),
  take_token: (x) => takeToken(x.get("x"), x.get("i")),
  reshape: (x, attrs) => reshape(x.get("x"), attrs.get("shape")),
  transpose: (x, attrs) => transpose(x.get("x"), attrs.get("dim0"), attrs.get("dim1")),
  permute: (x, attrs) => permute(x.get("x"), attrs.get("dims")),
  slice(x, attrs) {
    const [dim, start, stop, step] = ["dim", "start", "stop", "step"]
      .map((name) => attrs.get<number>(name));
    return slice(x.get("x"), dim, start, stop, step);
  },
  concat: (x, attrs) => view.concat(x.listed("x"), attrs.get("dim")),
  stack: (x, attrs) => view.stack(x.listed("x"), attrs.get("dim")),
  expand: (x, attrs) => view.expand(x.get("x"), attrs.get("shape")),
  pad: (x, attrs) => view.pad(x.get("x"), attrs.get<[number, number][]>("pad"), attrs.get("value")),
  squeeze: (x, attrs) => view.squeeze(x.get("x"), attrs.get("dim")),
  unsqueeze: (x, attrs) => unsqueeze(x.get("x"), attrs.get("dim")),
  masked_fill: (x, attrs) => pointwise.maskedFill(x.get("x"), x.get("m"), attrs.get("value")),
  where: (x) => pointwise.where(x.get("c"), x.get("a"), x.get("b")),
  dropout: (x, attrs) => maskedDropout(x.get("x"), x.get("m"), attrs.get("p")),
  l2_normalize: (x, attrs) =>
    l2Normalize(x.get("x"), attrs.get("dim"), attrs.get<number | null>("eps") ?? 0),
  sdpa(x, attrs) {
    const [q, k, v] = ["q", "k", "v"].map((name) => x.get(name));
    if (attrs.has("mask")) assertEquals(attrs.get("mask"), "m = 1 attends");
    const mask = x.has("m") ? x.get("m") : undefined;
    return attention(q, k, v, { causal: attrs.get("causal"), scale: attrs.get("scale"), mask });
  },
  multi_head_attention(x, attrs) {
    const heads = attrs.get<number>("heads");
    const all = linear(x.get("x"), x.get("w_in"), x.get("b_in"));
    const width = all.shape[2] / 3;
    const [q, k, v] = [0, 1, 2]
      .map((third) => splitHeads(slice(all, 2, third * width, (third + 1) * width), heads));
    const seen = permute(attention(q, k, v, { causal: attrs.get("causal") }), [0, 2, 1, 3]);
    const joined = reshape(seen, [...all.shape.slice(0, 2), width]);
    return linear(joined, x.get("w_out"), x.get("b_out"));
  },
  argmax: (x, attrs) => argmax(x.get("x"), attrs.get("dim")),
  argmin: (x, attrs) => argmin(x.get("x"), attrs.get("dim")),
  topk(x, attrs) {
    const [k, dim] = [attrs.get<number>("k"), attrs.get<number>("dim")];
    attrs.get("sorted"); // They always are.
    const input = x.get("x");
    if (attrs.get("largest")) return Object.values(topK(input, k, dim));
    const { values, indices } = topK(neg(input), k, dim);
    return [neg(values), indices];
  },
  graph(x, attrs) {
    const name = attrs.get<string>("name");
    attrs.get("program");
    assert(name in GRAPHS, `graph "${name}" is unknown`);
    return GRAPHS[name](x);
  },
};

/** Cases that passed, by the variant of kernels. */
const passed = new Map<string, number>();
let variant = "";

function pass(): void {
  passed.set(variant, (passed.get(variant) ?? 0) + 1);
}

const DTYPES: Readonly<Record<string, (file: SafetensorsFile, key: string) => Promise<Data>>> = {
  F32: (file, key) => file.floats(key),
  I32: (file, key) => file.integers(key),
  "BOOL(U8)": async (file, key) => Uint32Array.from(await file.bytes(key)),
};

function load(file: SafetensorsFile, { key, dtype }: { key: string; dtype: string }) {
  assert(dtype in DTYPES, `dtype ${dtype} is unknown`);
  return DTYPES[dtype](file, key);
}

function applyView(x: Tensor, [kind, ...parameters]: Step): Tensor {
  switch (kind) {
    case "permute":
      return permute(x, parameters[0] as number[]);
    case "slice":
      return slice(x, ...parameters as [number, number, number, number]);
    case "expand":
      return view.expand(x, parameters[0] as number[]);
    case "reshape":
      return reshape(x, parameters[0] as number[]);
    default:
      fail(`view "${kind}" is unknown`);
  }
}

/** A tensor and what it must be. */
interface Expectation extends Tolerance {
  readonly what: string;
  readonly actual: Tensor;
  readonly expected: Data;
  readonly shape: Shape;
}

/** Compares and releases tensors. It reads all at once, because one read takes as long as all. */
async function compare(expectations: readonly Expectation[]): Promise<void> {
  const found = await Promise.all(expectations.map(({ actual }) => actual.data()));
  const wrong: string[] = [];
  for (const [i, { what, actual, expected, shape, rtol, atol }] of expectations.entries()) {
    actual.release();
    assertEquals([...actual.shape], [...shape], `${what} has another shape`);
    assertEquals(found[i].length, expected.length, `${what} has another size`);
    const at = found[i].findIndex((value, k) =>
      !(Math.abs(value - expected[k]) <= atol + rtol * Math.abs(expected[k]))
    );
    if (at >= 0) wrong.push(`${what}[${at}] is ${found[i][at]}, not ${expected[at]}`);
  }
  if (wrong.length > 0) fail(`${wrong.length} tensors are wrong\n${wrong.join("\n")}`);
}

/** Runs one case, and gives what is to be compared. The caller owns the tensors. */
async function run(op: string, file: SafetensorsFile, test: Case): Promise<Expectation[]> {
  const names = Object.keys(test.inputs);
  const bases = await Promise.all(names.map(async (name) => {
    const input = test.inputs[name];
    return keep(tensor(await load(file, input), input.shape));
  }));
  const evaluate = (): readonly Tensor[] => {
    const operands = names.map((name, i) => {
      const { view = [], view_shape, shape } = test.inputs[name];
      const operand = view.reduce(applyView, bases[i]);
      assertEquals([...operand.shape], [...view_shape ?? shape]);
      return [name, operand];
    });
    const inputs = new Named<Tensor>(Object.fromEntries(operands));
    const attrs = new Named<unknown>(test.attrs);
    const made = OPS[op](inputs, attrs);
    inputs.done("inputs");
    attrs.done("attributes");
    return [made].flat() as Tensor[];
  };

  const wrt = names.flatMap((name, i) => test.inputs[name].requires_grad ? [i] : []);
  assertEquals(wrt.map((i) => names[i]).toSorted(), Object.keys(test.grads).toSorted());
  const outputs = Object.entries(test.outputs);
  const upstream = await Promise.all(
    outputs.flatMap(([, { upstream_grad }]) => upstream_grad ? [file.floats(upstream_grad)] : []),
  );
  const { values, grads } = scope(() => {
    if (wrt.length === 0) return { values: evaluate(), grads: [] };
    assertEquals(upstream.length, outputs.length);
    const inputs = wrt.map((i) => bases[i]);
    const start = upstream.map((g, k) => tensor(g, outputs[k][1].shape));
    if (outputs.length === 1) {
      const { value, backward } = vjp(() => evaluate()[0], inputs);
      return { values: [value], grads: backward(start[0]) };
    }
    // Several outputs start together as the sum of their products with their gradients.
    const total = () => evaluate().map((y, k) => sum(mul(y, start[k]))).reduce(add);
    return { values: evaluate(), grads: valueAndGrad(total, inputs).grads };
  });
  const compared = await Promise.all([
    ...outputs.map(async ([name, output], k) => ({
      ...output,
      what: `${test.id}, output ${name},`,
      actual: values[k],
      expected: await load(file, output),
    })),
    ...wrt.map(async (i, k) => ({
      ...test.grads[names[i]],
      what: `${test.id}, gradient of ${names[i]},`,
      actual: grads[k],
      expected: await file.floats(test.grads[names[i]].key),
    })),
  ]);
  for (const base of bases) base.release();
  assertEquals(values.length, outputs.length);
  // Integers are exact.
  return compared.map((each) => each.rtol === undefined ? { ...each, rtol: 0, atol: 0 } : each);
}

async function runOp(directory: URL, op: string, manifest: string): Promise<void> {
  const { file: tensors, cases } = await readJson(new URL(manifest, directory)) as {
    file: string;
    cases: readonly Case[];
  };
  const file = await openSafetensors(new URL(tensors, directory));
  const compared: Expectation[] = [];
  for (const test of cases) {
    assert(op in OPS, `op "${op}" is unknown`);
    compared.push(...await run(op, file, test));
    pass();
  }
  await compare(compared);
}

interface Formula {
  readonly shape: Shape;
  readonly add: number;
}

interface LargeCase extends Tolerance {
  readonly id: string;
  readonly op: string;
  readonly input?: Formula;
  readonly input2?: Formula;
  readonly ids?: { readonly count: number; readonly rule: string };
  readonly expect: { readonly size: number; readonly indices: number[]; readonly values: number[] };
}

const LARGE: Readonly<Record<string, (x: Tensor, second: Tensor) => Tensor>> = {
  "exp(x)": (x) => pointwise.exp(x),
  "sum(x + 0.5)": (x) => sum(pointwise.addScalar(x, 0.5)),
  "sum(x, axis 1)": (x) => sum(x, { axis: 1 }),
  "sum(x + 0.5, axis 0)": (x) => sum(pointwise.addScalar(x, 0.5), { axis: 0 }),
  "x + row": add,
  "contiguous(transpose(x))": (x) => view.contiguous(transpose(x)),
  "softmax(4 x, axis 1)": (x) => softmax(mulScalar(x, 4), 1),
  "x @ w": matmul,
};

/** The gradient of a table whose rows are looked up by a rule. */
function tableGradient(op: string, { count, rule }: NonNullable<LargeCase["ids"]>): Tensor {
  const shape =
    /^gradient of sum\(embedding\(W, ids\)\) with respect to W of shape \[(\d+), (\d+)\]$/
      .exec(op)?.slice(1).map(Number);
  const numbers = /^ids\[i\] = \(i \* (\d+) \+ (\d+)\) mod (\d+)$/.exec(rule)?.slice(1).map(Number);
  assert(shape && numbers, `${op}, ${rule} is unknown`);
  const [factor, offset, modulus] = numbers;
  const ids = Uint32Array.from({ length: count }, (_, i) => (i * factor + offset) % modulus);
  const table = zeros(shape);
  return valueAndGrad(() => sum(embedding(table, tensor(ids))), [table]).grads[0];
}

async function runLarge(url: URL): Promise<void> {
  const { mul: factor, cases } = await readJson(url) as { mul: number; cases: LargeCase[] };
  const values = ({ shape, add }: Formula) => {
    const made = new Float32Array(numel(shape));
    // In steps of integers: the product of an index and the factor is beyond 2⁵³.
    const step = factor % 2 ** 24;
    for (let i = 0, at = add % 2 ** 24; i < made.length; i++, at = (at + step) & 0xffffff) {
      made[i] = at / 2 ** 24 - 0.5;
    }
    return tensor(made, shape);
  };
  for (const { id, op, input, input2, ids, expect, rtol, atol } of cases) {
    const y = scope(() => {
      if (ids) return tableGradient(op, ids);
      assert(op in LARGE && input, `op "${op}" is unknown`);
      const x = values(input);
      return LARGE[op](x, input2 ? values(input2) : x);
    });
    const data = await y.data();
    y.release();
    assertEquals(data.length, expect.size);
    for (const [k, i] of expect.indices.entries()) {
      const wanted = expect.values[k];
      if (!(Math.abs(data[i] - wanted) <= atol + rtol * Math.abs(wanted))) {
        fail(`${id}[${i}] is ${data[i]}, not ${wanted}`);
      }
    }
    pass();
  }
}

/** Ops that are made of products, and have more variants than other ops. */
const PRODUCTS = ["matmul", "linear", "conv2d", "sdpa", "multi_head_attention", "graph"];

const directory = fixtures("autograd");
if (!directory) {
  skip("autograd fixtures");
} else {
  const { ops } = await readJson(new URL("index.json", directory)) as {
    ops: Record<string, { cases: number; manifest: string }>;
  };
  const large = new URL("large.json", directory);
  const hasLarge = await Deno.stat(large).then(() => true, () => false);
  const inVariant = (name: string, of: PinnedKernels, body: () => Promise<void>) =>
    gpuTest(`${name}, ${of.name}`, () =>
      withVariant(of, () => {
        variant = of.name;
        return body();
      }));
  const all = (names: readonly string[]) => names.reduce((total, op) => total + ops[op].cases, 0);
  for (const forced of EACH_VARIANT) {
    for (const [op, { manifest }] of Object.entries(ops)) {
      inVariant(`autograd fixtures: ${op}`, forced, () => runOp(directory, op, manifest));
    }
    if (hasLarge) inVariant("autograd fixtures: large", forced, () => runLarge(large));
  }
  const products = PRODUCTS.filter((op) => op in ops);
  for (const tile of EACH_TILE) {
    for (const op of products) {
      inVariant(`autograd fixtures: ${op}`, tile, () => runOp(directory, op, ops[op].manifest));
    }
  }
  Deno.test("autograd fixtures: every case was run in every variant of kernels", () => {
    for (
      const [variants, wanted] of [[EACH_VARIANT, Object.keys(ops)], [EACH_TILE, products]] as const
    ) {
      for (const { name, kernels } of variants) {
        if (kernels.variant === "subgroup" && lanes() === 0) continue;
        console.log(`autograd fixtures, ${name}: ${passed.get(name) ?? 0} cases passed`);
        assert((passed.get(name) ?? 0) >= all(wanted), `${all(wanted)} are listed`);
      }
    }
  });
}
