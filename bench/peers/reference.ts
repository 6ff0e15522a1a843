/**
 * The compared programs in float64, as plain loops.
 *
 * @module
 */

type Numbers = Float64Array | Float32Array;

/** Softmax of one row. */
export function softmax(x: Float64Array): Float64Array {
  const largest = x.reduce((a, b) => Math.max(a, b));
  const e = x.map((value) => Math.exp(value - largest));
  const sum = e.reduce((a, b) => a + b);
  return e.map((value) => value / sum);
}

/** Layer normalization of one row. */
export function layerNorm(x: Numbers, weight: Numbers, bias: Numbers): Float64Array {
  const row = Float64Array.from(x);
  const mean = row.reduce((a, b) => a + b) / row.length;
  const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
  return row.map((value, i) => (value - mean) / Math.sqrt(variance + 1e-5) * weight[i] + bias[i]);
}

/** `x · sigmoid(1.702 x)`. */
export const quickGelu = (x: number): number => x / (1 + Math.exp(-1.702 * x));

/** `x Wᵀ + b`, with `x` `[rows, in]` and `W` `[out, in]`. */
export function linear(x: Numbers, weight: Numbers, bias: Numbers): Float64Array {
  const [out, inner] = [bias.length, weight.length / bias.length];
  const rows = x.length / inner;
  const y = new Float64Array(rows * out);
  for (let r = 0; r < rows; r++) {
    for (let o = 0; o < out; o++) {
      let sum = bias[o];
      for (let i = 0; i < inner; i++) sum += x[r * inner + i] * weight[o * inner + i];
      y[r * out + o] = sum;
    }
  }
  return y;
}

/** Weights of a transformer block: matrices `[out, in]`, weights of norms, and biases. */
export type BlockWeights = Readonly<
  Record<
    | "norm1"
    | "norm1Bias"
    | "q"
    | "qBias"
    | "k"
    | "kBias"
    | "v"
    | "vBias"
    | "o"
    | "oBias"
    | "norm2"
    | "norm2Bias"
    | "fc1"
    | "fc1Bias"
    | "fc2"
    | "fc2Bias",
    Numbers
  >
>;

/** Sizes of a block's input `[batch, tokens, width]`, and its heads. */
export interface BlockSizes {
  /** Sequences. */
  readonly batch: number;
  /** Tokens of each. */
  readonly tokens: number;
  /** Width of a token. */
  readonly width: number;
  /** Heads of the attention. */
  readonly heads: number;
}

/** A transformer block; a norm comes before the attention and before the MLP. */
export function block(x: Numbers, w: BlockWeights, sizes: BlockSizes): Float64Array {
  const { batch, tokens, width, heads } = sizes;
  const norm = (x: Numbers, weight: Numbers, bias: Numbers) => {
    const y = new Float64Array(x.length);
    for (let at = 0; at < x.length; at += width) {
      y.set(layerNorm(x.subarray(at, at + width), weight, bias), at);
    }
    return y;
  };
  const normed = norm(x, w.norm1, w.norm1Bias);
  const q = linear(normed, w.q, w.qBias);
  const k = linear(normed, w.k, w.kBias);
  const v = linear(normed, w.v, w.vBias);
  const mixed = new Float64Array(x.length);
  const size = width / heads;
  for (let b = 0; b < batch; b++) {
    for (let start = 0; start < width; start += size) {
      const at = (token: number) => (b * tokens + token) * width + start;
      for (let t = 0; t < tokens; t++) {
        const scores = Float64Array.from({ length: tokens }, (_, s) => {
          let sum = 0;
          for (let d = 0; d < size; d++) sum += q[at(t) + d] * k[at(s) + d];
          return sum / Math.sqrt(size);
        });
        softmax(scores).forEach((weight, s) => {
          for (let d = 0; d < size; d++) mixed[at(t) + d] += weight * v[at(s) + d];
        });
      }
    }
  }
  const attended = linear(mixed, w.o, w.oBias).map((value, i) => value + x[i]);
  const hidden = linear(norm(attended, w.norm2, w.norm2Bias), w.fc1, w.fc1Bias).map(quickGelu);
  return linear(hidden, w.fc2, w.fc2Bias).map((value, i) => value + attended[i]);
}

/** Learning rate of {@linkcode mlpStep}. */
export const RATE = 1e-3;

/**
 * The losses of an MLP with ReLU before and after one Adam step. `y` holds drawn numbers, which
 * {@linkcode labelOf} makes labels.
 */
export function mlpStep(inputs: Readonly<Record<string, Float32Array>>): number[] {
  const { x, w1, b1, w2, b2 } = inputs;
  const y = Array.from(inputs.y, labelOf);
  const weights = [w1, b1, w2, b2].map((values) => Float64Array.from(values));
  const rows = y.length;
  const run = () => {
    const [w1, b1, w2, b2] = weights;
    const hidden = linear(x, w1, b1).map((value) => Math.max(value, 0));
    const logits = linear(hidden, w2, b2);
    const [outs, inner, ins] = [b2.length, b1.length, w1.length / b1.length];
    const grads = weights.map(({ length }) => new Float64Array(length));
    let loss = 0;
    for (let r = 0; r < rows; r++) {
      const p = softmax(logits.slice(r * outs, (r + 1) * outs));
      loss -= Math.log(p[y[r]]) / rows;
      p[y[r]] -= 1;
      const back = new Float64Array(inner);
      for (let o = 0; o < outs; o++) {
        const g = p[o] / rows;
        grads[3][o] += g;
        for (let i = 0; i < inner; i++) {
          grads[2][o * inner + i] += g * hidden[r * inner + i];
          back[i] += g * w2[o * inner + i];
        }
      }
      for (let i = 0; i < inner; i++) {
        if (hidden[r * inner + i] === 0) continue;
        grads[1][i] += back[i];
        for (let j = 0; j < ins; j++) grads[0][i * ins + j] += back[i] * x[r * ins + j];
      }
    }
    return { loss, grads };
  };
  const first = run();
  // In Adam's first step the mean and the mean square, corrected for their bias, are the gradient
  // and its square.
  for (const [i, grad] of first.grads.entries()) {
    grad.forEach((g, j) => weights[i][j] -= RATE * g / (Math.abs(g) + 1e-8));
  }
  return [first.loss, run().loss];
}

/** The class of a row, from the number that was drawn for it. */
export const labelOf = (drawn: number): number => Math.abs(Math.floor(drawn * 1e3)) % 10;
