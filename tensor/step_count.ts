/**
 * Counts of steps, which a warm-up does not change.
 *
 * @module
 */

import { perEngine } from "./engine.ts";

const counts = perEngine(() => new Set<StepCount>());

/** A count of steps taken, by an optimizer for example. */
export class StepCount {
  /** The number. */
  value = 0;
  readonly #counts = counts();

  /** Begins at 0, on the current engine. */
  constructor() {
    this.#counts.add(this);
  }

  /** Removes the count from its engine. */
  release(): void {
    this.#counts.delete(this);
  }
}

/**
 * Runs `body`, then sets all counts of steps on the current engine back to their values from
 * before; counts made in `body` become 0.
 */
export function uncounted<T>(body: () => T): T {
  const all = counts();
  const before = new Map([...all].map((count) => [count, count.value]));
  try {
    return body();
  } finally {
    for (const count of all) count.value = before.get(count) ?? 0;
  }
}
