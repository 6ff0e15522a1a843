/**
 * The interface that an engine implements to be compared.
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
  /** Uploads a case's inputs and prepares its program. */
  // deno-lint-ignore no-explicit-any -- each engine has another type of result
  prepare(of: Case, inputs: Inputs): Prepared<any> | Promise<Prepared<any>>;
}

/** A case that is ready to run. */
export interface Prepared<Result> {
  /** Starts one run, and does not wait for it. */
  run(): Result;
  /** Reads all outputs of a run. */
  read(result: Result): Promise<Float32Array[]>;
  /** Waits for some runs as a user would: by reading the last output. */
  wait(results: readonly Result[]): Promise<unknown>;
  /** Frees a run's outputs. */
  free(result: Result): void;
}

/** What a child measured. */
export interface Measured {
  /** The case's name. */
  readonly case: string;
  /** The engine's name and version. */
  readonly title: string;
  /** The name of the GPU; empty if the engine does not tell it. */
  readonly device: string;
  /** Milliseconds of each run with its wait; the parent takes the median. */
  readonly waited: readonly number[];
  /** Milliseconds of a run if many share one wait. */
  readonly many: number;
  /** Milliseconds from the start of the first run until its result has been read. */
  readonly first: number;
  /**
   * The digest of the first runs' outputs; null where a number is not finite, which JSON cannot
   * hold.
   */
  readonly digest: readonly (number | null)[];
  /** How many dispatches a run records. */
  readonly dispatches: number;
  /** How often a run submits to the GPU's queue. */
  readonly submits: number;
  /** Milliseconds that the host takes to record a run, median. */
  readonly host: number;
}
