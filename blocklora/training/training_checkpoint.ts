/**
 * The file that an unfinished run goes on from: everything that the steps so far have changed, and
 * what run it is.
 *
 * @module
 */

import { basename, dirname, join } from "node:path";
import { encodeSafetensors, type TensorToSave } from "../../tensor/encode_safetensors.ts";
import type { BytesByCategory } from "../../tensor/memory.ts";
import { SafetensorsFile } from "../../tensor/safetensors.ts";
import { gpuName } from "../../tensor/device.ts";
import type { HostTensors } from "../methods/host_tensors.ts";
import { exists, openFile, writeAtomically } from "../system/files.ts";
import type { Identity } from "./identity.ts";
import { CHECKPOINT } from "./run_directory.ts";
import type { Score } from "./score.ts";

/** What run a checkpoint is of. */
export interface RunKey {
  /** Everything in the configuration that determines the numbers. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Hashes of what the run reads. */
  readonly identity: Identity;
}

/** What a checkpoint tells of its run. It does not change with the steps. */
export interface RunNote {
  /** What run it is. */
  readonly key: RunKey;
  /** The GPU that it began on. */
  readonly device: string;
  /** The command line to go on with, whose paths are absolute; null if there is none. */
  readonly args: readonly string[] | null;
  /** The score of the model before training. */
  readonly zeroShot: Pick<Score, "accuracy" | "correct" | "images">;
}

/** Notes a run on the current GPU. */
export function noteOf(
  key: RunKey,
  { accuracy, correct, images }: RunNote["zeroShot"],
  args: readonly string[] | null,
): RunNote {
  return { key, device: gpuName(), args, zeroShot: { accuracy, correct, images } };
}

/** How far a run is. */
export interface Progress {
  /** Steps taken. */
  readonly steps: number;
  /** Epochs that have ended. */
  readonly epochs: number;
  /** Seconds that the steps took, in all processes. */
  readonly seconds: number;
  /** The most GPU bytes that were live at once. */
  readonly peakBytes: number;
  /** The same bytes by memory category. */
  readonly peakByCategory: BytesByCategory;
}

/**
 * All that a run goes on from. Nothing random is in it: batches and dropout depend only on the seed
 * and the number of the step.
 */
export interface TrainingCheckpoint {
  /** What run it is of. */
  readonly note: RunNote;
  /** How far the run is. */
  readonly progress: Progress;
  /** What trains, and the state of its optimizer. */
  readonly tensors: HostTensors;
  /** The content of `metrics.jsonl`. */
  readonly metrics: string;
}

/** The name of the tensor whose bytes are the metrics. */
const METRICS = "metrics.jsonl";

/** The key of the metadata. Its number changes when the content does. */
const FORMAT = "octograd.checkpoint.1";

/**
 * Writes a checkpoint into the directory of an unfinished run, and replaces the one that is there.
 * If the process is killed meanwhile, that one stays. A directory that has vanished is made again.
 *
 * @throws {Error} If it cannot be written.
 */
export async function writeCheckpoint(
  directory: string,
  { note, progress, tensors, metrics }: TrainingCheckpoint,
): Promise<void> {
  const entries = Object.entries(tensors)
    .map(([name, tensor]) => [name, { dtype: "F32", ...tensor }] as const);
  const text = new TextEncoder().encode(metrics);
  const stored: Record<string, TensorToSave> = {
    ...Object.fromEntries(entries),
    [METRICS]: { dtype: "U8", shape: [text.length], data: text },
  };
  const bytes = encodeSafetensors(stored, { [FORMAT]: JSON.stringify({ note, progress }) });
  await Deno.mkdir(directory, { recursive: true }).catch(() => {});
  await writeAtomically(join(directory, CHECKPOINT), bytes);
}

/**
 * The checkpoint of an unfinished run, or null if it has none.
 *
 * @throws {Error} If the file is damaged, or of another version.
 */
export async function readCheckpoint(directory: string): Promise<TrainingCheckpoint | null> {
  const path = join(directory, CHECKPOINT);
  if (!await exists(path)) return null;
  try {
    using source = await openFile(path);
    const file = await SafetensorsFile.open(source);
    const told = file.metadata[FORMAT];
    if (told === undefined) throw new Error(`Cannot read ${path}: it is of another version`);
    const { note, progress } = JSON.parse(told) as Pick<TrainingCheckpoint, "note" | "progress">;
    const names = [...file.tensors.keys()].filter((name) => name !== METRICS);
    const tensors = await Promise.all(
      names.map(async (name) => {
        const { shape } = file.tensors.get(name)!;
        return [name, { shape, data: await file.floats(name) }] as const;
      }),
    );
    const metrics = new TextDecoder().decode(await file.bytes(METRICS));
    return { note, progress, tensors: Object.fromEntries(tensors), metrics };
  } catch (error) {
    throw new Error(
      `${(error as Error).message}; remove ${basename(dirname(path))} to begin the run anew`,
      { cause: error },
    );
  }
}

/** How often a checkpoint is written: every so many steps, or every so many seconds. */
export type CheckpointInterval = { readonly steps: number } | { readonly seconds: number };

const SECONDS: Readonly<Record<string, number>> = { s: 1, min: 60, m: 60, h: 3600 };

/**
 * Parses an interval such as `200` (steps), `30s`, `5min` or `1h`.
 *
 * @throws {RangeError} If `text` is none.
 */
export function parseInterval(text: string): CheckpointInterval {
  const [, number, unit] = /^\s*(\d+(?:\.\d+)?)\s*(s|min|m|h)?\s*$/.exec(text) ?? [];
  const value = Number(number);
  if (value > 0 && unit !== undefined) return { seconds: value * SECONDS[unit] };
  if (value > 0 && Number.isSafeInteger(value)) return { steps: value };
  throw new RangeError(`"${text}" is no interval, write 200 for steps, or 30s, 5min or 1h`);
}
