/**
 * `child.ts ENGINE CASE...` measures one engine on some cases, and prints a line of JSON for each
 * case. It is the program of the separate process that each measurement gets.
 *
 * @module
 */

import { CASES, draw } from "./cases.ts";
import { median } from "../table.ts";
import type { Engine, Measured } from "./engine.ts";

/** How often the engine has called the GPU, whichever engine it is. */
const asked = { dispatches: 0, submits: 0 };
for (
  const [prototype, method, what] of [
    [GPUComputePassEncoder.prototype, "dispatchWorkgroups", "dispatches"],
    [GPUQueue.prototype, "submit", "submits"],
  ] as const
) {
  // deno-lint-ignore no-explicit-any -- the call is counted and passed on
  const original: any = Reflect.get(prototype, method);
  Reflect.set(prototype, method, function (this: unknown, ...args: unknown[]) {
    asked[what]++;
    return original.apply(this, args);
  });
}

/** Runs are timed for this many milliseconds, but at least and at most this many times. */
const [LONG, LEAST, MOST] = [1500, 3, 40];

async function measure(engine: Engine, device: string, name: string): Promise<Measured> {
  const of = CASES.find((one) => one.name === name);
  if (!of) throw new RangeError(`Cannot run "${name}": there is no such case`);
  const inputs = draw(of);
  const { run, read, wait, free } = await engine.prepare(of, inputs);
  const once = async () => {
    const start = performance.now();
    const result = run();
    const host = performance.now() - start;
    await wait([result]);
    const taken = performance.now() - start;
    return { result, taken, host };
  };
  const { result, taken: first } = await once();
  const outputs = await read(result);
  free(result);
  for (let i = 1; i < of.runs; i++) {
    const result = run();
    outputs.push(...await read(result));
    free(result);
  }
  const digest = of.digest(outputs, inputs);

  const waited: number[] = [];
  const hosts: number[] = [];
  let counts = { ...asked };
  for (let total = 0; waited.length < LEAST || total < LONG && waited.length < MOST;) {
    const before = { ...asked };
    const { result, taken, host } = await once();
    counts = {
      dispatches: asked.dispatches - before.dispatches,
      submits: asked.submits - before.submits,
    };
    free(result);
    waited.push(taken);
    hosts.push(host);
    total += taken;
  }
  const count = Math.max(1, Math.min(20, Math.round(LONG / Math.min(...waited))));
  const start = performance.now();
  // All results are held until the wait: jax-js does not run what was freed before it.
  const results = Array.from({ length: count }, run);
  await wait(results);
  const many = (performance.now() - start) / count;
  results.forEach(free);
  const { title } = engine;
  return { case: name, title, device, waited, many, first, digest, ...counts, host: median(hosts) };
}

if (import.meta.main) {
  const [which, ...names] = Deno.args;
  const { engine }: { engine: Engine } = await import(`./${which}.ts`);
  const device = await engine.start();
  for (const name of names) console.log(JSON.stringify(await measure(engine, device, name)));
  Deno.exit();
}
