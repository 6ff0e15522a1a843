/**
 * Which of the runs of a sweep are this process's.
 *
 * @module
 */

import { UsageError } from "../system/flag.ts";

/** What Slurm and Kubernetes tell the tasks of an array. */
export const ARRAY_VARIABLES = [
  "SLURM_ARRAY_TASK_ID",
  "SLURM_ARRAY_TASK_COUNT",
  "SLURM_ARRAY_TASK_MIN",
  "JOB_COMPLETION_INDEX",
  "JOB_COMPLETIONS",
] as const;

/** Which share of the runs is this process's. */
export interface Shard {
  /** Its number, from 0. */
  readonly index: number;
  /** How many shares there are. */
  readonly count: number;
}

/**
 * The share that `--shard` names, else that of the task of a Slurm array or a Kubernetes Indexed
 * Job, else all runs. Kubernetes tells a task its index but not how many there are: the job's
 * manifest has to set `JOB_COMPLETIONS`.
 *
 * @throws {UsageError} If the share is none.
 */
export function shardOf(
  flag: string | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): Shard {
  const { SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT, SLURM_ARRAY_TASK_MIN } = environment;
  const { JOB_COMPLETION_INDEX, JOB_COMPLETIONS } = environment;
  const [index, count, source] = flag !== undefined
    ? [...(flag.split("/").length === 2 ? flag.split("/") : ["", ""]), "--shard"]
    : SLURM_ARRAY_TASK_ID !== undefined
    ? [
      `${Number(SLURM_ARRAY_TASK_ID) - Number(SLURM_ARRAY_TASK_MIN ?? 0)}`,
      SLURM_ARRAY_TASK_COUNT,
      "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT",
    ]
    : JOB_COMPLETION_INDEX !== undefined
    ? [JOB_COMPLETION_INDEX, JOB_COMPLETIONS, "JOB_COMPLETION_INDEX and JOB_COMPLETIONS"]
    : ["0", "1", ""];
  const integer = (text: string | undefined) => /^\d+$/.test(text ?? "") ? Number(text) : NaN;
  const shard = { index: integer(index), count: integer(count) };
  if (shard.index < shard.count) return shard;
  throw new UsageError(
    `Cannot use ${source}: "${index}" of "${count}" is no share, ` +
      "they are numbered from 0 to one below their count",
  );
}
