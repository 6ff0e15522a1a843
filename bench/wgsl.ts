/**
 * `deno task wgsl`: prints the WGSL of kernels as a GPU gets it.
 *
 * @module
 */

import { attention } from "../autograd/ops/attention.ts";
import { conv2d } from "../autograd/ops/conv.ts";
import { crossEntropy } from "../autograd/ops/cross_entropy.ts";
import { cumsum } from "../autograd/ops/cumsum.ts";
import { embedding } from "../autograd/ops/embedding.ts";
import { layerNorm } from "../autograd/ops/layer_norm.ts";
import { linear } from "../autograd/ops/linear.ts";
import { gelu, quickGelu } from "../autograd/ops/pointwise.ts";
import { sum } from "../autograd/ops/reduce.ts";
import { logSoftmax, softmax } from "../autograd/ops/softmax.ts";
import { topK } from "../autograd/ops/top_k.ts";
import { transpose } from "../autograd/ops/view.ts";
import { AdamW } from "../autograd/optim/adam.ts";
import { globalNorm } from "../autograd/optim/clip_norm.ts";
import { Sgd } from "../autograd/optim/sgd.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import { multiply, multiplyThen } from "../kernels/matmul.ts";
import { pinKernels, type Variant, VARIANTS } from "../kernels/variant.ts";
import {
  type DryGpu,
  dryTwin,
  gpu,
  gpuName,
  init,
  onDryEngine,
  shutDown,
} from "../tensor/device.ts";
import { NoAdapterError } from "../tensor/errors.ts";
import { scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";

/** A kernel that can be printed: what runs it. */
interface Printable {
  /** What it is, with its shape. */
  readonly about: string;
  /** The sizes of the shape, by default. */
  readonly shape: readonly number[];
  /** What the kernel's name begins with. */
  readonly kernel: string;
  /** Runs it on tensors of a shape, perhaps with further kernels. */
  readonly run: (...shape: number[]) => unknown;
}

const RANK = 4;
const empty = (...shape: number[]) => Tensor.empty(shape);
const ids = (...shape: number[]) => Tensor.empty(shape, "u32");

/** Runs an op of inputs, and its gradients. */
const withGradients = (inputs: readonly Tensor[], op: () => Tensor) =>
  valueAndGrad(() => sum(op()), inputs);

const attended = (batch: number, heads: number, tokens: number, width: number) => {
  const inputs = [0, 1, 2].map(() => empty(batch, heads, tokens, width));
  return withGradients(inputs, () => attention(inputs[0], inputs[1], inputs[2]));
};
const rows = (op: (x: Tensor) => Tensor) => (count: number, width: number) => {
  const x = empty(count, width);
  return withGradients([x], () => op(x));
};
const normalized = (count: number, width: number) => {
  const inputs = [empty(count, width), empty(width), empty(width)] as const;
  return withGradients(inputs, () => layerNorm(...inputs));
};
const embedded = (count: number, vocabulary: number, width: number) => {
  const table = empty(vocabulary, width);
  return withGradients([table], () => embedding(table, ids(count)));
};
const HEADS = [8, 12, 197, 64];
const ROWS = [1576, 768];

/** What can be printed, by its name. */
export const PRINTABLE: Readonly<Record<string, Printable>> = {
  "matmul": {
    about: "m×k×n: [m, k] × [n, k]ᵀ, the product of a layer",
    shape: [1576, 768, 768],
    kernel: "matmul",
    run: (m, k, n) => multiply(empty(m, k), transpose(empty(n, k))),
  },
  "matmul-thin": {
    about: "m×k×r: [m, k] × [r, k]ᵀ, the product with an adapter's down-projection",
    shape: [1576, 768, RANK],
    kernel: "matmul",
    run: (m, k, r) => multiply(empty(m, k), transpose(empty(r, k))),
  },
  "matmul-low-rank": {
    about: `m×k×n: the product of a layer, and of an adapter of rank ${RANK} in the same pass`,
    shape: [1576, 768, 768],
    kernel: "matmul",
    run: (m, k, n) =>
      multiplyThen(empty(m, k), transpose(empty(n, k)), {
        lowRank: { a: empty(m, RANK), c: transpose(empty(n, RANK)) },
      }),
  },
  "matmul-gelu": {
    about: "m×k×n: the product of a layer with bias and QuickGELU, which keeps the sum",
    shape: [1576, 768, 3072],
    kernel: "matmul",
    run: (m, k, n) => {
      const [x, weight, bias] = [empty(m, k), empty(n, k), empty(n)];
      withGradients([x], () => linear(x, weight, bias, { activation: quickGelu }));
    },
  },
  "attention": {
    about: "B×H×T×D: attention",
    shape: HEADS,
    kernel: "attention forward",
    run: attended,
  },
  "attention-values": {
    about: "B×H×T×D: attention's gradient of v",
    shape: HEADS,
    kernel: "attention values",
    run: attended,
  },
  "attention-inputs": {
    about: "B×H×T×D: attention's gradients of q and k",
    shape: HEADS,
    kernel: "attention inputs",
    run: attended,
  },
  "row-dot": {
    about: "B×H×T×D: what attention's gradients subtract",
    shape: HEADS,
    kernel: "row_dot",
    run: attended,
  },
  "softmax": { about: "R×C", shape: ROWS, kernel: "softmax.wgsl", run: rows((x) => softmax(x)) },
  "softmax-backward": {
    about: "R×C",
    shape: ROWS,
    kernel: "softmax_backward",
    run: rows((x) => softmax(x)),
  },
  "log-softmax": {
    about: "R×C",
    shape: ROWS,
    kernel: "log_softmax.wgsl",
    run: rows((x) => logSoftmax(x)),
  },
  "log-softmax-backward": {
    about: "R×C",
    shape: ROWS,
    kernel: "log_softmax_backward",
    run: rows((x) => logSoftmax(x)),
  },
  "layer-norm": { about: "R×C", shape: ROWS, kernel: "layer_norm.wgsl", run: normalized },
  "layer-norm-backward": {
    about: "R×C: of the input",
    shape: ROWS,
    kernel: "layer_norm_backward",
    run: normalized,
  },
  "layer-norm-weights": {
    about: "R×C: of weight and bias",
    shape: ROWS,
    kernel: "layer_norm_weights",
    run: normalized,
  },
  "cross-entropy": {
    about: "B×K",
    shape: [32, 1000],
    kernel: "cross_entropy",
    run: (batch, classes) => crossEntropy(empty(batch, classes), ids(batch)),
  },
  "sum-rows": {
    about: "R×C: over the last axis",
    shape: ROWS,
    kernel: "reduce_rows",
    run: (count, width) => sum(empty(count, width), { axis: 1 }),
  },
  "sum-columns": {
    about: "R×C: over the first axis",
    shape: ROWS,
    kernel: "reduce_columns",
    run: (count, width) => sum(empty(count, width), { axis: 0 }),
  },
  "cumsum": { about: "R×C", shape: [64, 256], kernel: "cumsum", run: rows((x) => cumsum(x)) },
  "top-k": {
    about: "R×C: the five largest",
    shape: [32, 1000],
    kernel: "top_k",
    run: (count, width) => topK(empty(count, width), 5),
  },
  "gather": {
    about: "N×V×C: rows of an embedding table",
    shape: [77, 49408, 512],
    kernel: "gather",
    run: embedded,
  },
  "scatter": {
    about: "N×V×C: its gradient",
    shape: [77, 49408, 512],
    kernel: "scatter",
    run: embedded,
  },
  "fold": {
    about: "H×W: the gradient of what a 3×3 convolution reads of an image",
    shape: [32, 32],
    kernel: "fold",
    run: (height, width) => {
      const x = empty(1, 3, height, width);
      withGradients([x], () => conv2d(x, empty(8, 3, 3, 3)));
    },
  },
  "pointwise": {
    about: "R×C: GELU, for one",
    shape: ROWS,
    kernel: "pointwise",
    run: (count, width) => gelu(empty(count, width)),
  },
  "adam": {
    about: "R×C: a step of AdamW with two parameters of that shape",
    shape: [RANK, 768],
    kernel: "adam",
    run: (count, width) => {
      const parameters = [empty(count, width), empty(count, width)];
      new AdamW(parameters).step(parameters.map(() => empty(count, width)));
    },
  },
  "sgd": {
    about: "R×C: a step of SGD with two parameters of that shape",
    shape: [RANK, 768],
    kernel: "sgd",
    run: (count, width) => {
      const parameters = [empty(count, width), empty(count, width)];
      new Sgd(parameters).step(parameters.map(() => empty(count, width)));
    },
  },
  "sum-of-squares": {
    about: "R×C: of two gradients of that shape, for their norm",
    shape: [RANK, 768],
    kernel: "sum_of_squares",
    run: (count, width) => globalNorm([empty(count, width), empty(count, width)]),
  },
};

/** What is printed, but for its name. */
export interface PrintOptions {
  /** The shape; a default for each name. */
  readonly shape?: readonly number[];
  /** The variant; that of the GPU by default. */
  readonly variant?: Variant;
  /** The GPU that it is for; by default one that is no software. */
  readonly dryGpu?: DryGpu;
}

/** Lanes of a subgroup where a GPU that has none is to show the kernels of one that has. */
const LANES = 8;

/**
 * The WGSL of a kernel, as a GPU gets it: runs it on a dry engine, which is given the source.
 *
 * @throws {RangeError} If there is no such kernel, the shape has another number of sizes, or the
 * variant has no such kernel.
 */
export function wgslOf(name: string, options: PrintOptions = {}): string {
  const { variant, dryGpu = {} } = options;
  if (!Object.hasOwn(PRINTABLE, name)) {
    const names = Object.keys(PRINTABLE).join(", ");
    throw new RangeError(`Cannot print "${name}": there are ${names}`);
  }
  const { shape: defaults, kernel, run } = PRINTABLE[name];
  const { shape = defaults } = options;
  if (shape.length !== defaults.length) {
    throw new RangeError(
      `Cannot print ${name} of ${shape.join("x")}: its shape has ${defaults.length} sizes, ` +
        `such as ${defaults.join("x")}`,
    );
  }
  const lanes = dryGpu.lanes || (variant === "subgroup" ? LANES : 0);
  const code = onDryEngine({ ...dryGpu, lanes }, () => {
    let found: string | undefined;
    const device = gpu();
    const create = device.createShaderModule;
    device.createShaderModule = (descriptor) => {
      if (descriptor.label!.startsWith(kernel)) found ??= descriptor.code;
      return create(descriptor);
    };
    if (variant) pinKernels({ variant });
    scope(() => void run(...shape));
    return found;
  });
  if (code !== undefined) return code;
  throw new RangeError(
    `Cannot print ${name} of ${shape.join("x")}: ${variant ?? "this GPU"} has no such kernel`,
  );
}

/**
 * The kernels that are committed as they were last: a change of a template shows what it does to
 * them.
 */
export const GOLDEN = [
  "matmul",
  "matmul-thin",
  "matmul-low-rank",
  "attention",
  "attention-values",
  "attention-inputs",
  "softmax",
] as const;

/** The file of a committed kernel. */
export const goldenFile = (name: string): URL =>
  new URL(`../tests/wgsl/${name}.wgsl`, import.meta.url);

const HELP = `Usage: deno task wgsl NAME [SHAPE] [--variant ${VARIANTS.join("|")}]

Prints the WGSL of a kernel as this GPU gets it, or where there is none, one that is no software.
SHAPE is sizes with an x between them, as 1576x768x768 of m×k×n; --variant prints the kernel that
another kind of GPU runs. --update writes the kernels of tests/wgsl/ anew.

${
  Object.entries(PRINTABLE).map(([name, { about, shape }]) =>
    `  ${name.padEnd(21)} ${about} (${shape.join("x")})`
  ).join("\n")
}`;

/** The twin of the GPU here; where there is none, that of {@linkcode onDryEngine}. */
async function gpuHere(): Promise<{ name: string; dryGpu: DryGpu }> {
  try {
    await init();
    return { name: gpuName(), dryGpu: dryTwin({ anySize: true }) };
  } catch (error) {
    if (!(error instanceof NoAdapterError)) throw error;
    return { name: "a GPU that is no software, as there is none here", dryGpu: {} };
  }
}

async function main(args: readonly string[]): Promise<void> {
  const options = args.filter((arg) => arg.startsWith("-"));
  const words = args.flatMap((arg) => arg.startsWith("-") ? [] : [arg]);
  if (options.includes("--update")) {
    for (const name of GOLDEN) await Deno.writeTextFile(goldenFile(name), wgslOf(name));
    return;
  }
  const at = args.findIndex((arg) => /^--variant(=|$)/.test(arg));
  const variant = args[at]?.split("=")[1] ?? (at < 0 ? undefined : args[at + 1] ?? "");
  const unknown = options.find((option) => !/^(--variant(=.*)?|--help|-h)$/.test(option));
  if (unknown) throw new RangeError(`Cannot print with ${unknown}: see --help`);
  if (variant !== undefined && !(VARIANTS as readonly string[]).includes(variant)) {
    throw new RangeError(
      `Cannot print the variant "${variant}": there are ${VARIANTS.join(", ")}`,
    );
  }
  if (args[at] === "--variant") words.splice(words.indexOf(variant!), 1);
  const [name, sizes, ...more] = words;
  if (name === undefined || options.some((option) => option === "--help" || option === "-h")) {
    console.log(HELP);
    return;
  }
  const shape = sizes?.split(/[x×]/).map(Number);
  if (more.length > 0 || shape?.some((size) => !(Number.isInteger(size) && size > 0))) {
    throw new RangeError(
      `Cannot print ${words.join(" ")}: give a name, and sizes as in 1576x768x768`,
    );
  }
  const here = await gpuHere();
  const code = wgslOf(name, { shape, variant: variant as Variant, dryGpu: here.dryGpu });
  console.error(`for ${here.name}`);
  console.log(code.trimEnd());
}

if (import.meta.main) {
  try {
    await main(Deno.args);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    console.error(`wgsl: ${error.message}`);
    Deno.exitCode = 1;
  }
  shutDown();
}
