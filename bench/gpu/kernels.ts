/**
 * Each hot kernel beside its two floors. One is the time to move its bytes at the speed of a copy;
 * the other is the time to do its operations at the speed of nothing but multiplications and
 * additions. The sizes are those of ViT-B/16: for 128 images on a GPU, which no cache holds, and
 * for 8 on a software GPU.
 *
 * @module
 */

import { attention } from "../../autograd/ops/attention.ts";
import { crossEntropy } from "../../autograd/ops/cross_entropy.ts";
import { layerNorm } from "../../autograd/ops/layer_norm.ts";
import { linear } from "../../autograd/ops/linear.ts";
import { matmul } from "../../autograd/ops/matmul.ts";
import { add, quickGelu } from "../../autograd/ops/pointwise.ts";
import { softmax } from "../../autograd/ops/softmax.ts";
import { transpose } from "../../autograd/ops/view.ts";
import { clipFactor } from "../../autograd/optim/clip_norm.ts";
import { AdamW } from "../../autograd/optim/adam.ts";
import { vjp } from "../../autograd/tape.ts";
import { noise } from "../../blocklora/cost/models.ts";
import { Kernel } from "../../kernels/kernel.ts";
import { tensor } from "../../tensor/create.ts";
import { gpu, gpuName, init, isSoftware } from "../../tensor/device.ts";
import { profile, type ProfileRow } from "../../tensor/profile.ts";
import { Random } from "../../tensor/random.ts";
import { keep, scope } from "../../tensor/scope.ts";
import { numel, type Shape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { gpuTime } from "../gpu_time.ts";
import { adapted, trainLayer } from "../layers.ts";
import { type Column, digits, median, tableHead, tableRow } from "../table.ts";

await init();
const large = !isSoftware();
const random = new Random(1, "kernels bench");

/** A tensor of random numbers of about the given size. */
const drawn = (shape: Shape, size = 1): Tensor =>
  keep(tensor(noise(random, numel(shape), size), shape));

/**
 * The shortest of several times, since a floor is what is possible at best. A software GPU shares
 * its processor with other work, and is therefore measured more often.
 */
async function shortest(body: () => void): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < (large ? 2 : 8); i++) least = Math.min(least, await gpuTime(body));
  return least;
}

/** How many bytes a copy reads and writes in a millisecond, both together. */
async function copySpeed(): Promise<number> {
  const size = large ? 2 ** 28 : 2 ** 25;
  const [from, to] = [drawn([size / 4]), Tensor.empty([size / 4])];
  const times = large ? 32 : 1;
  const ms = await shortest(() => {
    const encoder = gpu().createCommandEncoder();
    for (let i = 0; i < times; i++) {
      encoder.copyBufferToBuffer(from.binding.buffer, 0, to.binding.buffer, 0, size);
    }
    gpu().queue.submit([encoder.finish()]);
  });
  from.release();
  to.release();
  return 2 * size * times / ms;
}

/**
 * How many operations the GPU does in a millisecond if it does nothing but multiply and add. Each
 * invocation runs several chains of `fma()` that do not depend on each other.
 */
async function arithmeticSpeed(): Promise<number> {
  const [chains, unrolled] = [3, 16];
  const [threads, steps] = large ? [2 ** 18, 2048] : [2 ** 11, 128];
  const each = (count: number, text: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => text(i)).join("\n");
  const kernel = new Kernel(
    "arithmetic",
    `@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let x = vec4f(0.3, 0.4, 0.5, 0.6) + 1e-7 * f32(id.x);
${each(chains, (i) => `  var a${i} = x * ${i + 1}.0;`)}
  for (var step = 0u; step < sizes.steps; step++) {
${each(unrolled, () => each(chains, (i) => `    a${i} = fma(a${i}, x, x);`))}
  }
  out[id.x] = ${Array.from({ length: chains }, (_, i) => `a${i}`).join(" + ")};
}`,
    { inputs: {}, outputs: { out: "vec4f" }, sizes: { steps: "u32" }, flops: () => 0 },
  );
  const out = Tensor.empty([threads, 4]);
  const ms = await shortest(() => kernel.run([], [out], { steps }, [threads / 64]));
  out.release();
  return threads * steps * unrolled * chains * 4 * 2 / ms;
}

/** What is timed: its name, and what it runs. */
type Timed = readonly [name: string, body: () => void];

function* cases(): Generator<Timed> {
  const size = large ? 4096 : 1024;
  const [a, b] = [drawn([size, size]), drawn([size, size])];
  yield [`matmul ${size}`, () => void matmul(a, b)];
  yield [`matmul ${size}, ᵀ right`, () => void matmul(a, transpose(b))];
  yield [`matmul ${size}, ᵀ left`, () => void matmul(transpose(a), b)];

  const [images, heads, tokens, width] = [large ? 128 : 8, 12, 197, 768];
  const rows = images * tokens;
  const [x, gradient] = [drawn([rows, width]), drawn([rows, width])];
  const [weight, bias] = [drawn([4 * width, width], width ** -0.5), drawn([4 * width])];
  const wide = drawn([rows, 4 * width]);
  yield [
    `layer ${width} → ${4 * width}, GELU`,
    () => void vjp(() => linear(x, weight, bias, { activation: quickGelu }), [x]).backward(wide),
  ];
  const down = drawn([width, 4 * width], (4 * width) ** -0.5);
  yield [`layer ${4 * width} → ${width}, residual`, () => {
    const { backward } = vjp(() => linear(wide, down, null, { residual: x }), [wide]);
    backward(gradient);
  }];
  const layer = adapted({ method: "block-lora", rank: 8, blocks: 4 }, width);
  yield [`layer ${width} → ${width}, Block-LoRA (8,4)`, () => void trainLayer(layer, x, gradient)];

  const of = [images, heads, tokens, width / heads];
  const [q, k, v, given] = Array.from({ length: 4 }, () => drawn(of));
  yield [`attention ${of.join("x")}`, () => {
    vjp(() => attention(q, k, v), [q, k, v]).backward(given);
  }];
  yield [`attention ${of.join("x")}, causal`, () => {
    vjp(() => attention(q, k, v, { causal: true }), [q, k, v]).backward(given);
  }];

  const scores = drawn([images * heads, tokens, tokens]);
  yield [`softmax [${scores.shape}]`, () => {
    vjp(() => softmax(scores), [scores]).backward(scores);
  }];
  const [gain, shift] = [drawn([width]), drawn([width])];
  yield [`layer_norm [${rows},${width}]`, () => {
    vjp(() => layerNorm(x, gain, shift), [x, gain, shift]).backward(gradient);
  }];
  yield [`quick_gelu [${rows},${4 * width}]`, () => {
    vjp(() => quickGelu(wide), [wide]).backward(wide);
  }];
  yield [`add [${rows},${4 * width}]`, () => void add(wide, wide)];
  const samples = large ? 65536 : 4096;
  const logits = drawn([samples, 1000]);
  const labels = keep(tensor(new Uint32Array(samples).map((_, i) => i % 1000), [samples]));
  yield [`cross_entropy [${logits.shape}]`, () => {
    vjp(() => crossEntropy(logits, labels), [logits]).backward(keep(tensor([1], [])));
  }];
  // The adapters of ViT-B/16: on q, k and v of the 12 layers of each tower, each with one down- and
  // four up-projections.
  const [parameters, grads] = [0, 1].map(() =>
    [768, 512].flatMap((width) =>
      Array.from({ length: 36 }, () => [
        drawn([2, width]),
        ...Array.from({ length: 4 }, () => drawn([width, 2])),
      ]).flat()
    )
  );
  const optimizer = new AdamW(parameters, { learningRate: 1e-4, weightDecay: 0.01 });
  yield [`clip and AdamW, ${parameters.length} parameters`, () => {
    optimizer.step(grads, clipFactor(grads, 1).factor);
  }];
}

const COLUMNS: readonly Column[] = [
  ["case and its kernels", 64],
  ["calls", 5],
  ["MB", 7],
  ["GFLOP", 7],
  ["bytes' floor, ms", 16],
  ["FLOPs' floor, ms", 16],
  ["ms", 7],
  ["of the floor", 12],
];

/** A kernel that takes less than this share of its case's time is left out. */
const LEAST = 0.02;

/** What each kernel of a run took: the median of several runs. */
async function timed(body: () => void): Promise<(ProfileRow & { ms: number })[]> {
  const runs: ProfileRow[][] = [];
  scope(body); // compiles
  for (let i = 0; i < 5; i++) runs.push((await profile(() => scope(body))).rows.slice());
  return runs[0].filter(({ calls }) => calls > 0).map((row) => {
    const times = runs.map((rows) => rows.find(({ kernel }) => kernel === row.kernel)!.ms ?? NaN);
    return { ...row, ms: median(times) };
  }).sort((a, b) => b.ms - a.ms);
}

if (import.meta.main) {
  const [copy, arithmetic] = [await copySpeed(), await arithmeticSpeed()];
  console.log(
    `${gpuName()}: a copy moves ${digits(copy / 1e6)} GB/s, read and written; ` +
      `fma() alone does ${digits(arithmetic / 1e6)} GFLOP/s`,
  );
  console.log(tableHead(COLUMNS));
  for (const [name, body] of cases()) {
    console.log(tableRow(COLUMNS, [name, ...COLUMNS.slice(1).map(() => "")]));
    const rows = await timed(body);
    const total = rows.reduce((sum, { ms }) => sum + ms, 0);
    for (const { kernel, calls, bytes, flops, ms } of rows) {
      if (ms < LEAST * total) continue;
      const [moved, done] = [bytes / copy, flops / arithmetic];
      const share = 100 * Math.max(moved, done) / ms;
      console.log(tableRow(COLUMNS, [
        `- ${kernel.slice(0, 62)}`,
        String(calls),
        ...[bytes / 1e6, flops / 1e9, moved, done, ms].map(digits),
        `${share.toFixed(0)} %`,
      ]));
    }
  }
  Deno.exit();
}
