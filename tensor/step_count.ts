/**
 * Counts of steps, which a warm-up leaves as they were.
 *
 * @module
 */

import { perEngine } from "./engine.ts";

const counts = perEngine(() => new Set<StepCount>());

/** How many steps were taken, by an optimizer say. */
export class StepCount {
  /** The number. */
  value = 0;
  readonly #counts = counts();

  /** Begins at 0, on the current engine. */
  constructor() {
    this.#counts.add(this);
  }

  /** Lets the engine forget it. */
  release(): void {
    this.#counts.delete(this);
  }
}

/** Runs `body`, and puts all counts of steps back to what they were; those made in it to 0. */
export function uncounted<T>(body: () => T): T {
  const all = counts();
  const before = new Map([...all].map((count) => [count, count.value]));
  try {
    return body();
  } finally {
    for (const count of all) count.value = before.get(count) ?? 0;
  }
}
