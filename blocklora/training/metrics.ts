/**
 * Logs the metrics of a run, one line for each step.
 *
 * @module
 */

import { join } from "node:path";
import { reasonOf } from "../system/files.ts";

/** Writes `metrics.jsonl`. The first line creates the directory and replaces an existing file. */
export class Metrics {
  readonly #directory: string;
  #begun: boolean;

  /** Writes nothing yet. With `begun`, lines are appended to an existing file. */
  constructor(directory: string, begun = false) {
    this.#directory = directory;
    this.#begun = begun;
  }

  /** Writes one line. */
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
