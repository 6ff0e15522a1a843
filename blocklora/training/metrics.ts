/**
 * Logs the metrics of a run, one line for each step.
 *
 * @module
 */

import { reasonOf } from "../system/files.ts";

/** Writes `metrics.jsonl`. */
export class Metrics {
  readonly #file: Deno.FsFile;
  #text = "";

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /** Begins with the lines of `text`, which replace those that the open file has. */
  static async begin(file: Deno.FsFile, text: string): Promise<Metrics> {
    const metrics = new Metrics(file);
    await file.truncate();
    await file.seek(0, Deno.SeekMode.Start);
    await metrics.#write(text);
    return metrics;
  }

  /** All lines so far. */
  get text(): string {
    return this.#text;
  }

  /** Writes one line. */
  async log(line: Record<string, unknown>): Promise<void> {
    await this.#write(`${JSON.stringify(line)}\n`);
  }

  async #write(text: string): Promise<void> {
    this.#text += text;
    const bytes = new TextEncoder().encode(text);
    try {
      for (let at = 0; at < bytes.length;) at += await this.#file.write(bytes.subarray(at));
    } catch (error) {
      throw new Error(`Cannot write metrics.jsonl: ${reasonOf(error)}`, { cause: error });
    }
  }
}
