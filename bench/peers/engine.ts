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
  /** What the case's digest makes of the first runs' outputs; null is a number that JSON has not, as NaN. */
  readonly digest: readonly (number | null)[];
  /** Kernels that a run starts. */
  readonly dispatches: number;
  /** How often a run hands work to the GPU. */
  readonly submits: number;
  /** Milliseconds of a run until all is recorded, median: what the host has to do. */
  readonly host: number;
}
