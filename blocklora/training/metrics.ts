/**
 * The metrics of a run: a line a step.
 *
 * @module
 */

import { join } from "node:path";
import { reasonOf } from "../system/files.ts";

/** Writes `metrics.jsonl`; the first line makes the directory, and the file anew. */
export class Metrics {
  readonly #directory: string;
  #begun: boolean;

  /** Nothing is written yet; one that has `begun` is gone on with. */
  constructor(directory: string, begun = false) {
    this.#directory = directory;
    this.#begun = begun;
  }

  /** Adds a line. */
  async log(line: Record<string, unknown>): Promise<void> {
    const path = join(this.#directory, "metrics.jsonl");
    try {
      if (!this.#begun) await Deno.mkdir(this.#directory, { recursive: true });
      await Deno.writeTextFile(path, `${JSON.stringify(line)}\n`, { append: this.#begun });
    } catch (error) {
      throw new Error(`Cannot write ${path}: ${reasonOf(error)}`);
    }
    this.#begun = true;
  }
}
