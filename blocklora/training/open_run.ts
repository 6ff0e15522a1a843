/**
 * Decides where a run is made, and whether it goes on from a checkpoint.
 *
 * @module
 */

import type { Console } from "../system/console.ts";
import { changedInputs, changedSetting } from "./completed.ts";
import type { Identity } from "./identity.ts";
import { type RunConfig, type RunContext, settingsOf } from "./run_config.ts";
import { checkOutput, type Claim, claimRun, TakenError } from "./run_directory.ts";
import { readCheckpoint, type RunKey, type TrainingCheckpoint } from "./training_checkpoint.ts";

/** Bytes to reserve for the metrics and the configuration, besides what is trained. */
export const SPARE_BYTES: number = 2 ** 20;

/** What identifies a run. */
export function keyOf(
  context: Pick<RunContext, "opened" | "template" | "batchSize">,
  config: RunConfig,
  identity: Identity,
): RunKey {
  const { method: { method, rank, blocks }, shots, seed } = config;
  return {
    settings: { method, rank, blocks, shots, seed, ...settingsOf(context, config) },
    identity,
  };
}

/** How a directory for a run is found. */
export interface OpenOptions {
  /** How many bytes the run writes, about. */
  readonly bytes: number;
  /**
   * What is replaced: nothing, runs of other images or of another model, or whatever run is there.
   */
  readonly replaces: "nothing" | "other inputs" | "all";
  /** Whether `OUTPUT-2`, `OUTPUT-3`, … will do too. */
  readonly numbered: boolean;
  /** Where it is told which directory was taken. */
  readonly console: Console;
}

/** A claim, and the checkpoint of the same run that an earlier process left there, or null. */
export interface OpenedRun {
  /** The claim. */
  readonly claim: Claim;
  /** The checkpoint. */
  readonly from: TrainingCheckpoint | null;
}

/**
 * Claims a directory for the run of a key. An unfinished run of the same key is gone on with.
 *
 * @throws {TakenError} If something is there that is not to be replaced, or another process makes a
 * run there.
 */
export async function openRun(
  output: string,
  key: RunKey,
  options: OpenOptions,
): Promise<OpenedRun> {
  let taken: TakenError | undefined;
  for (let number = 1;; number++) {
    const directory = number === 1 ? output : `${output}-${number}`;
    try {
      const opened = await openClaim(directory, key, options);
      if (taken) {
        options.console.note(`${taken.where} ${taken.reason}: this run goes to ${directory}`);
      }
      return opened;
    } catch (error) {
      if (!options.numbered || !(error instanceof TakenError)) throw error;
      taken ??= error;
    }
  }
}

async function openClaim(
  output: string,
  key: RunKey,
  { bytes, replaces, console }: OpenOptions,
): Promise<OpenedRun> {
  await checkOutput(output, replaces !== "nothing");
  await using claims = new AsyncDisposableStack();
  const claim = claims.use(await claimRun(output, bytes));
  if (!claim) {
    throw new TakenError(
      output,
      "is being written to by another process",
      "wait for that, or name another --output",
    );
  }
  // Another process may have finished a run since the first check.
  await checkOutput(output, replaces !== "nothing");
  let from: TrainingCheckpoint | null = null;
  try {
    from = await readCheckpoint(claim.path);
  } catch (error) {
    if (replaces !== "all") throw error;
    await claim.clear();
  }
  const setting = from && changedSetting(from.note.key.settings, key.settings);
  const inputs = from && changedInputs(from.note.key.identity, key.identity);
  const discards = replaces === "all" || (replaces === "other inputs" && setting === null);
  const reason = setting ?? (inputs && `it is of ${inputs}`);
  if (reason && !discards) {
    throw new TakenError(
      output,
      `holds an unfinished run (${reason})`,
      "go on with that by --resume, begin anew with --overwrite, or name another --output",
    );
  }
  if (reason) {
    console.note(`the unfinished run in ${claim.path} is another (${reason}): begun anew`);
    await claim.clear();
    from = null;
  }
  claims.move();
  return { claim, from };
}
