/**
 * What an engine must do to be compared.
 *
 * @module
 */

import type { Case, Inputs } from "./cases.ts";

/** An engine on WebGPU. */
export interface Engine {
  /** Its name and version. */
  readonly title: string;
  /** Finds the GPU, and says which one. */
  start(): Promise<string>;
  /** Uploads a case's inputs. */
  // deno-lint-ignore no-explicit-any -- each engine has results of its own
  prepare(of: Case, inputs: Inputs): Prepared<any> | Promise<Prepared<any>>;
}

/** A case that is ready to be run. */
export interface Prepared<Result> {
  /** Records one run. */
  run(): Result;
  /** Reads all outputs of a run. */
  read(result: Result): Promise<Float32Array[]>;
  /** Waits for some runs as a user does, who reads what comes last. */
  wait(results: readonly Result[]): Promise<unknown>;
  /** Gives a run's outputs back. */
  free(result: Result): void;
}
