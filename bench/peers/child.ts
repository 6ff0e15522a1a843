/**
 * One engine on some cases, in a process of its own: `child.ts ENGINE CASE...` prints a line of JSON for each.
 *
 * @module
 */

import { CASES, draw } from "./cases.ts";
import type { Engine } from "./engine.ts";

/** What a child measured. */
export interface Measured {
  /** The case's name. */
  readonly case: string;
  /** The engine's name and version. */
  readonly title: string;
  /** The GPU, where the engine says which. */
  readonly device: string;
  /** Milliseconds of a run with its wait: medians are taken by the parent. */
  readonly waited: readonly number[];
  /** Milliseconds of a run where many share a wait. */
  readonly many: number;
  /** Milliseconds from the first run's start until its result is there. */
  readonly first: number;
  /** The largest error against the reference, relative to the largest number of it. */
  readonly error: number;
}

/** How long each way of timing goes on, in milliseconds, and how many runs it takes at least and at most. */
const [LONG, LEAST, MOST] = [1500, 3, 40];

async function measure(engine: Engine, device: string, name: string): Promise<Measured> {
  const of = CASES.find((one) => one.name === name);
  if (!of) throw new RangeError(`Cannot run "${name}": there is no such case`);
  const inputs = draw(of);
  const { run, read, wait, free } = engine.prepare(of, inputs);
  const once = async () => {
    const start = performance.now();
    const result = run();
    await wait([result]);
    const taken = performance.now() - start;
    return { result, taken };
  };
  const { result, taken: first } = await once();
  const outputs = await read(result);
  free(result);
  for (let i = 1; i < of.runs; i++) {
    const result = run();
    outputs.push(...await read(result));
    free(result);
  }
  const [expected, given] = [of.expect(inputs), of.digest(outputs, inputs)];
  const scale = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  // NaN where a number is missing or none.
  const error = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - given[i])), 0) /
    scale;

  const waited: number[] = [];
  for (let total = 0; waited.length < LEAST || total < LONG && waited.length < MOST;) {
    const { result, taken } = await once();
    free(result);
    waited.push(taken);
    total += taken;
  }
  const count = Math.max(1, Math.min(20, Math.round(LONG / Math.min(...waited))));
  const start = performance.now();
  // All are held until the wait: jax-js does not run what was freed before it.
  const results = Array.from({ length: count }, run);
  await wait(results);
  const many = (performance.now() - start) / count;
  results.forEach(free);
  return { case: name, title: engine.title, device, waited, many, first, error };
}

if (import.meta.main) {
  const [which, ...names] = Deno.args;
  const { engine }: { engine: Engine } = await import(`./${which}.ts`);
  const device = await engine.start();
  for (const name of names) console.log(JSON.stringify(await measure(engine, device, name)));
  Deno.exit();
}
