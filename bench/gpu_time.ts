/**
 * How long the GPU works, by its clock if it has one.
 *
 * @module
 */

import { gpu } from "../tensor/device.ts";
import { tensor } from "../tensor/create.ts";
import { flush } from "../tensor/queue.ts";
import { Random } from "../tensor/random.ts";
import { scope } from "../tensor/scope.ts";
import { adapted, type Shape, trainLayer } from "./layers.ts";
import { median } from "./table.ts";

/** How many runs are timed together, and how often that is done. */
const [RUNS, ROUNDS] = [4, 5];

/**
 * Milliseconds that one run of `body` takes the GPU, the median of several. If the GPU has the
 * feature `timestamp-query`, they are measured by timestamps before and after; else by the wall
 * clock, until the work has ended.
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
  return median(times) / RUNS;
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

/**
 * Milliseconds of a projection's forward and backward pass: of the frozen layer alone, and with
 * each adapter.
 */
export async function adapterTimes(
  shapes: readonly Shape[],
  { width, rows }: { readonly width: number; readonly rows: number },
): Promise<{ frozen: number; adapted: number[] }> {
  const random = new Random(2, "input");
  const values = Float32Array.from({ length: rows * width }, () => random.normal());
  const [x, g] = [tensor(values, [rows, width]), tensor(values, [rows, width])];
  const time = async (shape: Shape | null) => {
    const made = adapted(shape, width);
    const milliseconds = await gpuTime(() => {
      trainLayer(made, x, g);
    });
    made.release();
    return milliseconds;
  };
  const frozen = await time(null);
  const found: number[] = [];
  for (const shape of shapes) found.push(await time(shape));
  for (const made of [x, g]) made.release();
  return { frozen, adapted: found };
}
