/**
 * How long the GPU works: by its own clock where the adapter has one.
 *
 * @module
 */

import { zeros } from "../autograd/ops/create.ts";
import { vjp } from "../autograd/tape.ts";
import { BlockLora, DenseLora, Lora } from "../blocklora/adapter.ts";
import type { AdapterConfig } from "../blocklora/attach.ts";
import { Linear } from "../clip/layers.ts";
import { tensor } from "../tensor/create.ts";
import { gpu } from "../tensor/device.ts";
import { flush } from "../tensor/queue.ts";
import { Random } from "../tensor/random.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** Runs that are timed together, and how often. */
const [RUNS, ROUNDS] = [4, 5];

/**
 * Milliseconds of one run of `body`, the median of several: by the GPU's timestamps before and after, where it has the
 * feature `timestamp-query`, else by the wall clock up to the end of the work.
 */
export async function gpuTime(body: () => void): Promise<number> {
  const round = () => {
    for (let run = 0; run < RUNS; run++) scope(body);
    flush();
  };
  round();
  const times: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    times.push(gpu().features.has("timestamp-query") ? await stamped(round) : await waited(round));
  }
  return times.sort((a, b) => a - b)[ROUNDS >> 1] / RUNS;
}

async function waited(round: () => void): Promise<number> {
  await gpu().queue.onSubmittedWorkDone();
  const began = performance.now();
  round();
  await gpu().queue.onSubmittedWorkDone();
  return performance.now() - began;
}

async function stamped(round: () => void): Promise<number> {
  const device = gpu();
  const querySet = device.createQuerySet({ type: "timestamp", count: 2 });
  const { QUERY_RESOLVE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const resolved = device.createBuffer({ size: 16, usage: QUERY_RESOLVE | COPY_SRC });
  const read = device.createBuffer({ size: 16, usage: COPY_DST | MAP_READ });
  const stamp = (beginningOfPassWriteIndex: number, last: boolean) => {
    const encoder = device.createCommandEncoder();
    encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex } }).end();
    if (last) {
      encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, read, 0, 16);
    }
    device.queue.submit([encoder.finish()]);
  };
  stamp(0, false);
  round();
  stamp(1, true);
  await read.mapAsync(GPUMapMode.READ);
  const [begin, end] = new BigUint64Array(read.getMappedRange());
  const milliseconds = Number(end - begin) / 1e6;
  for (const made of [resolved, read, querySet]) made.destroy();
  return milliseconds;
}

/** One adapter. */
export type Shape = Pick<AdapterConfig, "method" | "rank" | "blocks">;

const KINDS = {
  "block-lora": BlockLora,
  "block-lora-collapsed": Lora,
  "lora": Lora,
  "lora-dense": DenseLora,
} as const;

/** A linear layer `[width, width]` with an adapter of random matrices, or none. */
export function adapted(
  shape: Shape | null,
  width: number,
): { layer: Linear; parameters: Tensor[]; release: () => void } {
  const random = new Random(1, "adapted");
  const normal = (...sizes: number[]) => {
    const count = sizes.reduce((a, b) => a * b, 1);
    return tensor(Float32Array.from({ length: count }, () => 0.05 * random.normal()), sizes);
  };
  const layer = new Linear(normal(width, width), keep(zeros([width])));
  const parameters: Tensor[] = [];
  if (shape) {
    const inner = shape.rank / shape.blocks;
    const arms = shape.method === "block-lora" ? shape.blocks : 1;
    const ups = Array.from({ length: arms }, () => normal(width, inner));
    const options = { scale: 0.5, dropout: 0.25, stream: 1 };
    const adapter = new KINDS[shape.method](normal(inner, width), ups, options);
    parameters.push(...adapter.parameters);
    layer.adapter = adapter;
  }
  const release = () => {
    for (const made of [layer.weight, layer.bias!, ...parameters]) made.release();
  };
  return { layer, parameters, release };
}

/** One pass of training through a layer: forward, and the gradients of its input and its adapter. */
export function trainLayer(
  { layer, parameters }: Pick<ReturnType<typeof adapted>, "layer" | "parameters">,
  x: Tensor,
  g: Tensor,
): void {
  const pass = parameters.length > 0 ? { seed: 1 } : undefined;
  const { backward } = vjp(() => layer.forward(x, pass), [x, ...parameters]);
  backward(g);
}

/** Milliseconds of a projection, forward and backward, frozen and with each adapter. */
export async function adapterTimes(
  shapes: readonly Shape[],
  { width, rows }: { readonly width: number; readonly rows: number },
): Promise<{ frozen: number; adapted: number[] }> {
  const random = new Random(2, "input");
  const values = Float32Array.from({ length: rows * width }, () => random.normal());
  const [x, g] = [tensor(values, [rows, width]), tensor(values, [rows, width])];
  const time = async (shape: Shape | null) => {
    const made = adapted(shape, width);
    const milliseconds = await gpuTime(() => trainLayer(made, x, g));
    made.release();
    return milliseconds;
  };
  const frozen = await time(null);
  const found: number[] = [];
  for (const shape of shapes) found.push(await time(shape));
  for (const made of [x, g]) made.release();
  return { frozen, adapted: found };
}
