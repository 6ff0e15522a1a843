/**
 * One engine on some cases, in a process of its own: `child.ts ENGINE CASE...` prints a line of JSON for each.
 *
 * @module
 */

import { CASES, draw } from "./cases.ts";
import { median } from "../table.ts";
import type { Engine, Measured } from "./engine.ts";

/** What any engine asks of the GPU. */
const asked = { dispatches: 0, submits: 0 };
for (
  const [prototype, method, what] of [
    [GPUComputePassEncoder.prototype, "dispatchWorkgroups", "dispatches"],
    [GPUQueue.prototype, "submit", "submits"],
  ] as const
) {
  // deno-lint-ignore no-explicit-any -- counted, and passed on
  const own: any = Reflect.get(prototype, method);
  Reflect.set(prototype, method, function (this: unknown, ...args: unknown[]) {
    asked[what]++;
    return own.apply(this, args);
  });
}

/** How long each way of timing goes on, in milliseconds, and how many runs it takes at least and at most. */
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
  // All are held until the wait: jax-js does not run what was freed before it.
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
