/**
 * Kernels compiled before they are needed.
 *
 * @module
 */

import { currentEngine, perEngine, withEngine } from "../tensor/engine.ts";
import { uncounted } from "../tensor/step_count.ts";

/** Kernels that are compiled before their first run. */
export interface WarmUp {
  /** Settles when all of them are compiled. */
  readonly compiling: Promise<unknown>[];
  /** Starts each of them on no workgroups, by its name and constants. */
  readonly starts: Map<string, () => void>;
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
  let ready = 0;
  for (const start of starts.values()) {
    withEngine(engine, () => {
      start();
      engine.queue.flush();
    });
    onProgress(++ready, starts.size);
    // So that progress is seen, and Ctrl-C heard.
    await new Promise((resolve) => setTimeout(resolve));
  }
}
