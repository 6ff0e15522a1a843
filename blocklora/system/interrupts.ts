/**
 * Handles Ctrl-C for work that wants to finish its current step before it stops.
 *
 * @module
 */

/** The exit code of a run that was ended by Ctrl-C. */
export const INTERRUPTED = 130;

/**
 * Tells whether the user wants to stop. Once it is disposed of, Ctrl-C again ends the process at
 * once.
 */
export interface Interrupt extends Disposable {
  /** Whether Ctrl-C was pressed, or the process got SIGTERM. */
  readonly wanted: boolean;
}

/**
 * Listens for Ctrl-C (SIGINT) and SIGTERM. The first signal calls `onFirst`, the second ends the
 * process.
 */
export function catchInterrupts(onFirst: () => void): Interrupt {
  const signals = ["SIGINT", "SIGTERM"] as const;
  let wanted = false;
  const stop = () => {
    if (wanted) Deno.exit(INTERRUPTED);
    wanted = true;
    onFirst();
  };
  for (const signal of signals) Deno.addSignalListener(signal, stop);
  return {
    get wanted() {
      return wanted;
    },
    [Symbol.dispose]() {
      for (const signal of signals) Deno.removeSignalListener(signal, stop);
    },
  };
}
