/**
 * Kernels compiled before they are needed.
 *
 * @module
 */

import type { Binding } from "../tensor/bind_groups.ts";
import { currentEngine, perEngine, withEngine } from "../tensor/engine.ts";
import { uncounted } from "../tensor/step_count.ts";

/** Room for an element of any operand. */
const SPARE_BYTES = 256;

/** Kernels that are compiled before their first run. */
export interface WarmUp {
  /** Settles when all of them are compiled. */
  readonly compiling: Promise<unknown>[];
  /**
   * Starts each of them on no workgroups, by its name and constants. `spare` gives what to bind as
   * its operand of a number: the operands of the warm-up may be gone by then.
   */
  readonly starts: Map<string, (spare: (operand: number) => Binding) => void>;
}

/**
 * The warm-up that is `under` way on the current engine, if one is: kernels then are only compiled.
 */
export const warmUp: () => { under: WarmUp | null } = perEngine(() => ({ under: null }));

/**
 * Compiles the kernels that `body` will run, so that its first real run does not wait for them.
 * Runs `body` with kernels that do nothing, and so with values that mean nothing; steps that it
 * takes do not count. Browsers compile side by side; some drivers compile only what is started, so
 * at last each kernel is started on no workgroups. `onProgress` is told how many of them are ready.
 *
 * @throws {TypeError} If `body` returns a promise.
 */
export async function compileAhead(
  body: () => unknown,
  onProgress: (ready: number, total: number) => void = () => {},
): Promise<void> {
  const engine = currentEngine();
  const state = warmUp();
  const { compiling, starts } = state.under = { compiling: [], starts: new Map() } as WarmUp;
  try {
    if (uncounted(body) instanceof Promise) {
      throw new TypeError("Cannot compileAhead() a promise: await outside it");
    }
  } finally {
    state.under = null;
  }
  await Promise.all(compiling);
  const spares: GPUBuffer[] = [];
  const spare = (operand: number) => {
    const buffer = spares[operand] ??= engine.pool.acquire(SPARE_BYTES);
    return { buffer, offset: 0, size: SPARE_BYTES };
  };
  let ready = 0;
  try {
    for (const start of starts.values()) {
      withEngine(engine, () => start(spare));
      engine.queue.flush();
      onProgress(++ready, starts.size);
      // So that progress is seen, and Ctrl-C heard.
      await new Promise((resolve) => setTimeout(resolve));
    }
  } finally {
    for (const buffer of spares) engine.pool.recycle(buffer);
  }
}
