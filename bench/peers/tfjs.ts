/**
 * The compared programs in TensorFlow.js on its WebGPU backend.
 *
 * @module
 */

// The backend expects WebGPU only in a browser, and takes a global `window` as the sign of one.
Object.assign(globalThis, { window: globalThis });
const tf = await import("@tensorflow/tfjs-core");
// The core's module for Node.js leaves the gradients out; the full package brings them.
await import("@tensorflow/tfjs");
await import("@tensorflow/tfjs-backend-webgpu");
import type { Scalar, Tensor, Tensor1D, Tensor2D, Tensor4D, Variable } from "@tensorflow/tfjs-core";

import { arraysOf, BLOCK_WEIGHTS, type Case, ofLayer } from "./cases.ts";
import type { Engine } from "./engine.ts";
import { labelOf, RATE } from "./reference.ts";

type Tensors = Record<string, Tensor>;

const quickGelu = (x: Tensor) => tf.mul(x, tf.sigmoid(tf.mul(x, 1.702)));

function layerNorm(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const { mean, variance } = tf.moments(x, -1, true);
  const normal = tf.mul(tf.sub(x, mean), tf.rsqrt(tf.add(variance, 1e-5)));
  return tf.add(tf.mul(normal, weight), bias);
}

function attention(q: Tensor, k: Tensor, v: Tensor, causal = false): Tensor {
  const scores = tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(q.shape.at(-1)!));
  if (!causal) return tf.matMul(tf.softmax(scores), v);
  const tokens = q.shape.at(-2)!;
  const seen = tf.linalg.bandPart(tf.ones([tokens, tokens]) as Tensor2D, -1, 0);
  return tf.matMul(tf.softmax(tf.add(scores, tf.mul(tf.sub(seen, 1), 1e9))), v);
}

function block(t: Tensors, heads: number): Tensor {
  const [batch, tokens, width] = t.x.shape;
  const linear = (x: Tensor, name: string) => {
    const y = tf.matMul(tf.reshape(x, [batch * tokens, -1]), t[name] as Tensor2D, false, true);
    return tf.reshape(tf.add(y, t[`${name}Bias`]), [batch, tokens, -1]);
  };
  const split = (x: Tensor) =>
    tf.transpose(tf.reshape(x, [batch, tokens, heads, width / heads]) as Tensor4D, [0, 2, 1, 3]);
  const normed = layerNorm(t.x, t.norm1, t.norm1Bias);
  const [q, k, v] = ["q", "k", "v"].map((name) => split(linear(normed, name)));
  const mixed = tf.reshape(tf.transpose(attention(q, k, v), [0, 2, 1, 3]), [batch, tokens, width]);
  const attended = tf.add(t.x, linear(mixed, "o"));
  const hidden = quickGelu(linear(layerNorm(attended, t.norm2, t.norm2Bias), "fc1"));
  return tf.add(attended, linear(hidden, "fc2"));
}

function tower(t: Tensors, heads: number, layers: number): Tensor {
  const [batch] = t.x.shape;
  const [width, , patch] = t.patch.shape;
  const images = tf.transpose(t.x as Tensor4D, [0, 2, 3, 1]);
  const kernel = tf.transpose(t.patch as Tensor4D, [2, 3, 1, 0]) as Tensor4D;
  const patches = tf.reshape(tf.conv2d(images as Tensor4D, kernel, patch, "valid"), [
    batch,
    -1,
    width,
  ]);
  const token = tf.tile(tf.reshape(t.token, [1, 1, width]), [batch, 1, 1]);
  const embedded = tf.add(tf.concat([token, patches], 1), t.positions);
  let x = layerNorm(embedded, t.preNorm, t.preNormBias);
  for (let layer = 0; layer < layers; layer++) x = block({ ...ofLayer(t, layer), x }, heads);
  const first = tf.reshape(tf.slice(x, [0, 0, 0], [batch, 1, width]), [batch, width]);
  return tf.matMul(
    layerNorm(first, t.postNorm, t.postNormBias) as Tensor2D,
    t.projection as Tensor2D,
    false,
    true,
  );
}

function programOf({ program }: Case, t: Tensors): () => Tensor[] {
  switch (program.op) {
    case "matmul": {
      const { transpose: which } = program;
      return () => [tf.matMul(t.a, t.b, which === "a", which === "b")];
    }
    case "softmax":
      return () => [tf.softmax(t.x)];
    case "layer_norm":
      return () => [layerNorm(t.x, t.weight, t.bias)];
    case "quick_gelu":
      return () => [quickGelu(t.x)];
    case "attention":
      return () => [attention(t.q, t.k, t.v, program.causal)];
    case "block":
      return () => [block(t, program.heads)];
    case "block_gradients": {
      const gradients = tf.grads((...weights: Tensor[]) => {
        const named = Object.fromEntries(BLOCK_WEIGHTS.map((name, i) => [name, weights[i]]));
        return tf.sum(tf.mul(block({ ...t, ...named }, program.heads), t.g));
      });
      return () => gradients(BLOCK_WEIGHTS.map((name) => t[name]));
    }
    case "tower":
      return () => [tower(t, program.heads, program.layers)];
    case "train_step":
      throw new RangeError("There is no such step in TensorFlow.js");
    case "mlp_step": {
      const [w1, b1, w2, b2] = ["w1", "b1", "w2", "b2"].map((name) => tf.variable(t[name]));
      const adam = tf.train.adam(RATE);
      const loss = () => {
        const hidden = tf.relu(
          tf.add(tf.matMul(t.x as Tensor2D, w1 as Variable & Tensor2D, false, true), b1),
        );
        const logits = tf.add(tf.matMul(hidden, w2 as Variable & Tensor2D, false, true), b2);
        return tf.losses.softmaxCrossEntropy(t.labels, logits) as Scalar;
      };
      return () => [adam.minimize(loss, true)!];
    }
  }
}

/** TensorFlow.js. */
export const engine: Engine = {
  title: `tfjs ${tf.version_core}`,
  async start() {
    await tf.setBackend("webgpu");
    await tf.ready();
    return "";
  },
  prepare(of, inputs) {
    const tensors = arraysOf(of, inputs, (values, shape): Tensor => tf.tensor(values, shape));
    if (of.program.op === "mlp_step") {
      tensors.labels = tf.oneHot(Array.from(inputs.y, labelOf) as unknown as Tensor1D, 10);
    }
    const program = programOf(of, tensors);
    return {
      run: () => tf.tidy(program),
      read: (result: Tensor[]) =>
        Promise.all(result.map(async (y) => await y.data() as Float32Array)),
      wait: (results: Tensor[][]) => results.at(-1)!.at(-1)!.data(),
      free: (result: Tensor[]) => tf.dispose(result),
    };
  },
};
