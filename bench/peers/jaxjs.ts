/**
 * The compared programs in jax-js on WebGPU, each under `jit`.
 *
 * @module
 */

import {
  type Array as JaxArray,
  blockUntilReady,
  defaultDevice,
  grad,
  init,
  jit,
  nn,
  numpy as np,
  valueAndGrad,
} from "@jax-js/jax";
import { arraysOf, BLOCK_WEIGHTS, type Case, ofLayer } from "./cases.ts";
import type { Engine } from "./engine.ts";
import { labelOf, RATE } from "./reference.ts";

type Arrays = Record<string, JaxArray>;

// An operation consumes its arguments; `.ref` makes one more reference to pass on.
const quickGelu = (x: JaxArray) => x.ref.mul(nn.sigmoid(x.mul(1.702)));

const layerNorm = (x: JaxArray, weight: JaxArray, bias: JaxArray) =>
  nn.standardize(x, -1, { epsilon: 1e-5 }).mul(weight).add(bias);

/** Attention of `[B, H, T, D]`, as in the other engines; that of jax-js is of `[B, T, H, D]`. */
function attention(q: JaxArray, k: JaxArray, v: JaxArray, causal = false): JaxArray {
  const scores = np.matmul(q, np.matrixTranspose(k)).mul(1 / Math.sqrt(q.shape.at(-1)!));
  const tokens = q.shape.at(-2)!;
  const seen = causal
    ? np.where(np.tri(tokens, tokens, 0, { dtype: np.bool }), scores, -1e30)
    : scores;
  return np.matmul(nn.softmax(seen, -1), v);
}

function block(t: Arrays, heads: number): JaxArray {
  const [batch, tokens, width] = t.x.shape;
  const linear = (x: JaxArray, name: string) =>
    np.matmul(x, np.matrixTranspose(t[name])).add(t[`${name}Bias`]);
  const split = (x: JaxArray) =>
    x.reshape([batch, tokens, heads, width / heads]).transpose([0, 2, 1, 3]);
  const normed = layerNorm(t.x.ref, t.norm1, t.norm1Bias);
  const q = split(linear(normed.ref, "q"));
  const k = split(linear(normed.ref, "k"));
  const v = split(linear(normed, "v"));
  const mixed = attention(q, k, v).transpose([0, 2, 1, 3]).reshape([batch, tokens, width]);
  const attended = t.x.add(linear(mixed, "o"));
  const hidden = quickGelu(linear(layerNorm(attended.ref, t.norm2, t.norm2Bias), "fc1"));
  return attended.add(linear(hidden, "fc2"));
}

function tower(t: Arrays, heads: number, layers: number): JaxArray {
  const [batch, channels, size] = t.x.shape;
  const [width, , patch] = t.patch.shape;
  const side = size / patch;
  const patches = t.x.reshape([batch, channels, side, patch, side, patch])
    .transpose([0, 2, 4, 1, 3, 5])
    .reshape([batch, side * side, channels * patch * patch]);
  const kernel = t.patch.reshape([width, channels * patch * patch]);
  const embedded = np.matmul(patches, np.matrixTranspose(kernel));
  const token = np.broadcastTo(t.token.reshape([1, 1, width]), [batch, 1, width]);
  let x = layerNorm(
    np.concatenate([token, embedded], 1).add(t.positions),
    t.preNorm,
    t.preNormBias,
  );
  for (let layer = 0; layer < layers; layer++) x = block({ ...ofLayer(t, layer), x }, heads);
  const first = x.slice([], 0);
  return np.matmul(layerNorm(first, t.postNorm, t.postNormBias), np.matrixTranspose(t.projection));
}

const refs = (t: Arrays): Arrays =>
  Object.fromEntries(Object.entries(t).map(([name, x]) => [name, x.ref]));

function programOf({ program }: Case, t: Arrays): () => JaxArray[] {
  switch (program.op) {
    case "matmul": {
      const { transpose: which } = program;
      const turn = (x: JaxArray, name: string) => which === name ? np.matrixTranspose(x) : x;
      const run = jit((a: JaxArray, b: JaxArray) => np.matmul(turn(a, "a"), turn(b, "b")));
      return () => [run(t.a.ref, t.b.ref)];
    }
    case "softmax": {
      const run = jit((x: JaxArray) => nn.softmax(x, -1));
      return () => [run(t.x.ref)];
    }
    case "layer_norm": {
      const run = jit(layerNorm);
      return () => [run(t.x.ref, t.weight.ref, t.bias.ref)];
    }
    case "quick_gelu": {
      const run = jit(quickGelu);
      return () => [run(t.x.ref)];
    }
    case "attention": {
      const run = jit((q: JaxArray, k: JaxArray, v: JaxArray) =>
        attention(q, k, v, program.causal)
      );
      return () => [run(t.q.ref, t.k.ref, t.v.ref)];
    }
    case "block": {
      const run = jit((t: Arrays) => block(t, program.heads));
      return () => [run(refs(t))];
    }
    case "block_gradients": {
      const { x, g, ...weights } = t;
      const run = jit(
        grad((weights: Arrays, x: JaxArray, g: JaxArray) =>
          block({ ...weights, x }, program.heads).mul(g).sum()
        ),
      );
      return () => {
        const grads = run(refs(weights), x.ref, g.ref) as Arrays;
        return BLOCK_WEIGHTS.map((name) => grads[name]);
      };
    }
    case "tower": {
      // The tower uses the weights of each layer, `q0` and so on, not the `q` with the same values.
      const used = Object.fromEntries(
        Object.entries(t).filter(([name]) => !(BLOCK_WEIGHTS as readonly string[]).includes(name)),
      );
      const run = jit((t: Arrays) => tower(t, program.heads, program.layers));
      return () => [run(refs(used))];
    }
    case "train_step":
      throw new RangeError("There is no such step in jax-js");
    case "mlp_step": {
      const { x, labels } = t;
      const loss = ({ w1, b1, w2, b2 }: Arrays, x: JaxArray, labels: JaxArray) => {
        const hidden = nn.relu(np.matmul(x, np.matrixTranspose(w1)).add(b1));
        const logits = np.matmul(hidden, np.matrixTranspose(w2)).add(b2);
        return nn.logSoftmax(logits, -1).mul(labels).sum().mul(-1 / 128);
      };
      // Adam. Its two bias corrections are arguments, since they change at each step.
      const update = jit((
        parameters: Arrays,
        mean: Arrays,
        square: Arrays,
        rates: JaxArray,
        x: JaxArray,
        labels: JaxArray,
      ) => {
        const [value, grads] = valueAndGrad(loss)(refs(parameters), x, labels);
        const next: Record<"parameters" | "mean" | "square", Arrays> = {
          parameters: {},
          mean: {},
          square: {},
        };
        const [rate, correction] = [rates.ref.slice(0), rates.slice(1)];
        for (const [name, g] of Object.entries(grads as Arrays)) {
          const m = mean[name].mul(0.9).add(g.ref.mul(0.1));
          const v = square[name].mul(0.999).add(g.ref.mul(g).mul(0.001));
          const root = np.sqrt(v.ref).mul(correction.ref).add(1e-8);
          next.parameters[name] = parameters[name].sub(m.ref.mul(rate.ref).div(root));
          next.mean[name] = m;
          next.square[name] = v;
        }
        rate.dispose();
        correction.dispose();
        return { value, ...next };
      });
      let parameters: Arrays = { w1: t.w1, b1: t.b1, w2: t.w2, b2: t.b2 };
      const zeros = () =>
        Object.fromEntries(
          Object.entries(parameters).map(([name, { shape }]) => [name, np.zeros(shape)]),
        );
      let [mean, square, step] = [zeros(), zeros(), 0];
      return () => {
        step++;
        const rates = np.array([RATE / (1 - 0.9 ** step), 1 / Math.sqrt(1 - 0.999 ** step)]);
        const made = update(parameters, mean, square, rates, x.ref, labels.ref);
        ({ parameters, mean, square } = made);
        return [made.value];
      };
    }
  }
}

/** jax-js. */
export const engine: Engine = {
  title: "jax-js 0.1.25",
  async start() {
    await init("webgpu");
    defaultDevice("webgpu");
    return "";
  },
  prepare(of, inputs) {
    const arrays = arraysOf(of, inputs, (values, shape) => np.array(values, { shape }));
    if (of.program.op === "mlp_step") {
      const labels = new Float32Array(1280);
      inputs.y.forEach((drawn, row) => labels[10 * row + labelOf(drawn)] = 1);
      arrays.labels = np.array(labels, { shape: [128, 10] });
    }
    const program = programOf(of, arrays);
    return {
      run: program,
      read: (result: JaxArray[]) =>
        Promise.all(result.map(async (y) => await y.ref.data() as Float32Array)),
      // jax-js runs only what is asked for. So every result is waited for, and the last is read.
      wait: (results: JaxArray[][]) =>
        Promise.all([
          blockUntilReady(results.slice(0, -1).map((result) => result.at(-1)!)),
          results.at(-1)!.at(-1)!.ref.data(),
        ]),
      free: (result: JaxArray[]) => result.forEach((y) => y.dispose()),
    };
  },
};
