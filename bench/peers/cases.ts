/**
 * The cases on which engines are compared: inputs drawn from a seed, and what a float64 reference
 * makes of them.
 *
 * @module
 */

import { Random } from "../../tensor/random.ts";
import { numel, type Shape } from "../../tensor/shape.ts";
import {
  block,
  type BlockWeights,
  layerNorm,
  linear,
  mlpStep,
  quickGelu,
  softmax,
} from "./reference.ts";

/** The program that an engine runs. */
export type Program =
  | { readonly op: "matmul"; readonly transpose?: "a" | "b" }
  | { readonly op: "softmax" | "layer_norm" | "quick_gelu" | "mlp_step" }
  | { readonly op: "attention"; readonly causal: boolean }
  | { readonly op: "block" | "block_gradients"; readonly heads: number }
  | { readonly op: "tower"; readonly heads: number; readonly layers: number }
  | { readonly op: "train_step" };

/** A case: a program, its inputs and its right result. */
export interface Case {
  /** What the table calls it. */
  readonly name: string;
  /** The program. */
  readonly program: Program;
  /** Whether only octograd can run it. */
  readonly alone?: boolean;
  /** How many images a run takes, if images a second are of interest. */
  readonly images?: number;
  /** Shapes of its inputs, by name. */
  readonly shapes: Readonly<Record<string, Shape>>;
  /** How often it runs for the check: twice if a run changes what the next one returns. */
  readonly runs: number;
  /** The digest of the right result, computed in float64. */
  readonly expect: (inputs: Inputs) => number[];
  /** A digest of an engine's outputs: some of their numbers, or sums of them. */
  readonly digest: (outputs: readonly Float32Array[], inputs: Inputs) => number[];
}

/** The values of the inputs, by name. */
export type Inputs = Readonly<Record<string, Float32Array<ArrayBuffer>>>;

/**
 * Draws a case's inputs, which are the same for every engine. Weights are scaled by their number of
 * inputs, so that no sum grows with its length.
 */
export function draw({ shapes }: Case): Inputs {
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const random = new Random(1, name);
      // Matrices are weights of layers; `patch` is the kernel of the patch embedding.
      const fanIn = shape.length === 2 || name === "patch" ? numel(shape.slice(1)) : 1;
      const deviation = 1 / Math.sqrt(fanIn);
      return [name, Float32Array.from({ length: numel(shape) }, () => deviation * random.normal())];
    }),
  );
}

/**
 * An engine's arrays of a case's inputs, by name. Each layer of a tower has separate weights `q0`,
 * `q1` and so on, which all have the same values.
 */
export function arraysOf<T>(
  { shapes, program }: Case,
  inputs: Inputs,
  make: (values: Float32Array<ArrayBuffer>, shape: number[]) => T,
): Record<string, T> {
  const made = (name: string) => make(inputs[name], [...shapes[name]]);
  const layers = program.op === "tower" ? program.layers : 0;
  const ofLayers = Array.from(
    { length: layers },
    (_, layer) => BLOCK_WEIGHTS.map((name) => [`${name}${layer}`, made(name)] as const),
  ).flat();
  return Object.fromEntries([
    ...Object.keys(shapes).map((name) => [name, made(name)] as const),
    ...ofLayers,
  ]);
}

/** The weights of one layer of a tower, under the names of {@linkcode BLOCK_WEIGHTS}. */
export function ofLayer<T>(arrays: Readonly<Record<string, T>>, layer: number): Record<string, T> {
  return Object.fromEntries(BLOCK_WEIGHTS.map((name) => [name, arrays[`${name}${layer}`]]));
}

/** At most `size` random indices below `count`. */
function sample(count: number, size: number): number[] {
  const random = new Random(2, "sample");
  return Array.from({ length: Math.min(size, count) }, () => Math.floor(random.uniform() * count));
}

function matmul(m: number, k: number, n: number, transpose?: "a" | "b"): Case {
  const indices = sample(m * n, 200);
  const x = transpose === "a" ? `[${k},${m}]ᵀ` : `[${m},${k}]`;
  const y = transpose === "b" ? `[${n},${k}]ᵀ` : `[${k},${n}]`;
  return {
    name: `matmul ${x} x ${y}`,
    program: { op: "matmul", transpose },
    runs: 1,
    shapes: {
      a: transpose === "a" ? [k, m] : [m, k],
      b: transpose === "b" ? [n, k] : [k, n],
    },
    expect: ({ a, b }) =>
      indices.map((at) => {
        const [row, col] = [Math.floor(at / n), at % n];
        let sum = 0;
        for (let i = 0; i < k; i++) {
          sum += a[transpose === "a" ? i * m + row : row * k + i] *
            b[transpose === "b" ? col * k + i : i * n + col];
        }
        return sum;
      }),
    digest: ([y]) => indices.map((at) => y[at]),
  };
}

/** An op that computes each row by itself; it is checked on some rows. */
function byRow(
  program: Program,
  rows: Shape,
  cols: number,
  more: Readonly<Record<string, Shape>>,
  row: (x: Float64Array, inputs: Inputs) => Float64Array,
): Case {
  const some = sample(numel(rows), 5);
  return {
    name: `${program.op} [${[...rows, cols]}]`,
    program,
    runs: 1,
    shapes: { x: [...rows, cols], ...more },
    expect: (inputs) =>
      some.flatMap((r) => [
        ...row(Float64Array.from(inputs.x.subarray(r * cols, (r + 1) * cols)), inputs),
      ]),
    digest: ([y]) => some.flatMap((r) => [...y.subarray(r * cols, (r + 1) * cols)]),
  };
}

function attention(causal: boolean): Case {
  const [batch, heads, tokens, width] = [8, 12, 197, 64];
  const shape = [batch, heads, tokens, width];
  const rows = sample(batch * heads * tokens, 10);
  return {
    name: `attention ${shape.join("x")}${causal ? " causal" : ""}`,
    program: { op: "attention", causal },
    runs: 1,
    shapes: { q: shape, k: shape, v: shape },
    expect: ({ q, k, v }) =>
      rows.flatMap((row) => {
        const head = Math.floor(row / tokens) * tokens;
        const seen = causal ? row % tokens + 1 : tokens;
        const scores = new Float64Array(seen);
        for (let j = 0; j < seen; j++) {
          for (let d = 0; d < width; d++) {
            scores[j] += q[row * width + d] * k[(head + j) * width + d] / Math.sqrt(width);
          }
        }
        const weights = softmax(scores);
        return Array.from({ length: width }, (_, d) =>
          weights.reduce((sum, weight, j) => sum + weight * v[(head + j) * width + d], 0));
      }),
    digest: ([y]) => rows.flatMap((row) => [...y.subarray(row * width, (row + 1) * width)]),
  };
}

const BLOCK = { batch: 16, tokens: 65, width: 256, heads: 4 };

/** Shapes of a transformer block's weights, in the order in which gradients are returned. */
function blockShapes(width: number): Record<keyof BlockWeights, Shape> {
  const [square, vector] = [[width, width], [width]];
  return {
    norm1: vector,
    norm1Bias: vector,
    q: square,
    qBias: vector,
    k: square,
    kBias: vector,
    v: square,
    vBias: vector,
    o: square,
    oBias: vector,
    norm2: vector,
    norm2Bias: vector,
    fc1: [4 * width, width],
    fc1Bias: [4 * width],
    fc2: [width, 4 * width],
    fc2Bias: vector,
  };
}

/** The names of a block's weights, in the order in which gradients are returned. */
export const BLOCK_WEIGHTS = Object.keys(blockShapes(1)) as (keyof BlockWeights)[];

function blockForward(): Case {
  const { batch, tokens, width, heads } = BLOCK;
  const indices = sample(batch * tokens * width, 200);
  const run = (inputs: Inputs) => block(inputs.x, inputs as BlockWeights, BLOCK);
  return {
    name: "block forward",
    program: { op: "block", heads },
    runs: 1,
    shapes: { x: [batch, tokens, width], ...blockShapes(width) },
    expect: (inputs) => {
      const y = run(inputs);
      return indices.map((at) => y[at]);
    },
    digest: ([y]) => indices.map((at) => y[at]),
  };
}

/**
 * The gradients of `sum(g · block(x))`. Their digest is two derivatives along random directions:
 * one of the first half of the weights, one of the second.
 */
function blockGradients(): Case {
  const { batch, tokens, width, heads } = BLOCK;
  const shapes = blockShapes(width);
  const half = BLOCK_WEIGHTS.length / 2;
  const halves = [BLOCK_WEIGHTS.slice(0, half), BLOCK_WEIGHTS.slice(half)];
  const direction = (name: keyof BlockWeights) => {
    const random = new Random(3, name);
    const deviation = 1 / Math.sqrt(shapes[name][1] ?? 1);
    return Float64Array.from({ length: numel(shapes[name]) }, () => deviation * random.normal());
  };
  return {
    name: "block forward and backward",
    program: { op: "block_gradients", heads },
    runs: 1,
    shapes: { x: [batch, tokens, width], g: [batch, tokens, width], ...shapes },
    expect: (inputs) =>
      // The error of a central difference is of order ε², far below the rounding of float32.
      halves.map((names) => {
        const directions = names.map((name) => [name, direction(name)] as const);
        const [above, below] = [1e-4, -1e-4].map((step) => {
          const moved = Object.fromEntries(directions.map(([name, along]) => [
            name,
            along.map((value, i) => inputs[name][i] + step * value),
          ]));
          const y = block(inputs.x, { ...inputs, ...moved } as BlockWeights, BLOCK);
          return y.reduce((sum, value, i) => sum + value * inputs.g[i], 0);
        });
        return (above - below) / 2e-4;
      }),
    digest: (grads) =>
      halves.map((names, index) =>
        names.reduce((sum, name, i) => {
          const along = direction(name);
          return grads[index * half + i].reduce((sum, value, j) => sum + value * along[j], sum);
        }, 0)
      ),
  };
}

function mlp(): Case {
  return {
    name: "mlp step 784-256-10, batch 128",
    program: { op: "mlp_step" },
    runs: 2,
    shapes: { x: [128, 784], y: [128], w1: [256, 784], b1: [256], w2: [10, 256], b2: [10] },
    expect: mlpStep,
    digest: (losses) => losses.map(([loss]) => loss),
  };
}

/**
 * CLIP's image tower, ViT-B/32: 49 patches of 32 × 32 pixels and a class token, then twelve blocks
 * of width 768.
 */
function tower(batch: number): Case {
  const [size, patch, width, layers, heads, output] = [224, 32, 768, 12, 12, 512];
  const side = size / patch;
  const tokens = side * side + 1;
  const image = 3 * size * size;
  /** The features of one image. */
  const featuresOf = (inputs: Inputs, pixels: Float32Array) => {
    const { token, positions, preNorm, preNormBias, postNorm, postNormBias, projection } = inputs;
    const patches = new Float64Array(side * side * 3 * patch * patch);
    for (let at = 0, index = 0; index < side * side; index++) {
      for (let c = 0; c < 3; c++) {
        for (let y = 0; y < patch; y++) {
          for (let x = 0; x < patch; x++) {
            const row = Math.floor(index / side) * patch + y;
            patches[at++] = pixels[(c * size + row) * size + index % side * patch + x];
          }
        }
      }
    }
    const embedded = linear(patches, inputs.patch, new Float64Array(width));
    let x = new Float64Array(tokens * width).map((_, i) =>
      positions[i] + (i < width ? token[i] : embedded[i - width])
    );
    for (let at = 0; at < x.length; at += width) {
      x.set(layerNorm(x.slice(at, at + width), preNorm, preNormBias), at);
    }
    const sizes = { batch: 1, tokens, width, heads };
    for (let layer = 0; layer < layers; layer++) {
      x = block(x, inputs as BlockWeights, sizes) as typeof x;
    }
    return linear(
      layerNorm(x.slice(0, width), postNorm, postNormBias),
      projection,
      new Float64Array(output),
    );
  };
  return {
    name: `ViT-B/32 image tower, batch ${batch}`,
    program: { op: "tower", heads, layers },
    images: batch,
    runs: 1,
    shapes: {
      x: [batch, 3, size, size],
      patch: [width, 3, patch, patch],
      token: [width],
      positions: [tokens, width],
      preNorm: [width],
      preNormBias: [width],
      // All layers have these values: `arraysOf` copies them for each.
      ...blockShapes(width),
      postNorm: [width],
      postNormBias: [width],
      projection: [output, width],
    },
    expect: (inputs) => [...featuresOf(inputs, inputs.x.subarray((batch - 1) * image))],
    digest: ([y]) => [...y.subarray((batch - 1) * output)],
  };
}

/** A training step of Block-LoRA adapters of the embedded model, on 32 images. */
const TRAIN_STEP: Case = {
  name: "Block-LoRA training step, embedded model, batch 32",
  program: { op: "train_step" },
  alone: true,
  images: 32,
  runs: 1,
  shapes: { x: [32, 3, 48, 48] },
  // The tests hold it to PyTorch; here the loss need only be finite and positive.
  expect: () => [1],
  digest: ([stats]) => [Number.isFinite(stats[0]) && stats[0] > 0 ? 1 : NaN],
};

/** All cases. */
export const CASES: readonly Case[] = [
  ...[256, 512, 1024, 2048].map((size) => matmul(size, size, size)),
  matmul(1576, 768, 768),
  matmul(1576, 768, 3072),
  matmul(1576, 768, 768, "b"),
  matmul(1576, 768, 3072, "b"),
  matmul(768, 1576, 768, "a"),
  matmul(768, 1576, 3072, "a"),
  byRow({ op: "softmax" }, [96, 197], 197, {}, softmax),
  byRow(
    { op: "layer_norm" },
    [1576],
    768,
    { weight: [768], bias: [768] },
    (x, { weight, bias }) => layerNorm(x, weight, bias),
  ),
  byRow({ op: "quick_gelu" }, [1576], 3072, {}, (x) => x.map(quickGelu)),
  attention(false),
  attention(true),
  blockForward(),
  blockGradients(),
  mlp(),
  tower(1),
  tower(8),
  TRAIN_STEP,
];
