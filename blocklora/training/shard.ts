/**
 * Determines which runs of a sweep this process does.
 *
 * @module
 */

import { UsageError } from "../system/flag.ts";

/** The environment variables by which Slurm and Kubernetes tell a task its index. */
export const ARRAY_VARIABLES = [
  "SLURM_ARRAY_TASK_ID",
  "SLURM_ARRAY_TASK_COUNT",
  "SLURM_ARRAY_TASK_MIN",
  "SLURM_ARRAY_TASK_STEP",
  "JOB_COMPLETION_INDEX",
  "JOB_COMPLETIONS",
] as const;

/** The share of the runs that this process does. */
export interface Shard {
  /** The index of this share, from 0. */
  readonly index: number;
  /** How many shares there are. */
  readonly count: number;
}

/**
 * The share that `--shard` names; else that of this task in a Slurm array or a Kubernetes Indexed
 * Job; else all runs. Kubernetes tells a task its index but not how many tasks there are, so the
 * job's manifest has to set `JOB_COMPLETIONS`.
 *
 * @throws {UsageError} If the index or the count is not a non-negative integer, or the index is not
 * below the count.
 */
export function shardOf(
  flag: string | undefined,
  environment: Readonly<Record<string, string | undefined>>,
): Shard {
  const { SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT } = environment;
  const { SLURM_ARRAY_TASK_MIN, SLURM_ARRAY_TASK_STEP } = environment;
  const { JOB_COMPLETION_INDEX, JOB_COMPLETIONS } = environment;
  const [index, count, source] = flag !== undefined
    ? [...(flag.split("/").length === 2 ? flag.split("/") : ["", ""]), "--shard"]
    : SLURM_ARRAY_TASK_ID !== undefined
    ? [
      `${
        (Number(SLURM_ARRAY_TASK_ID) - Number(SLURM_ARRAY_TASK_MIN ?? 0)) /
        Number(SLURM_ARRAY_TASK_STEP ?? 1)
      }`,
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
