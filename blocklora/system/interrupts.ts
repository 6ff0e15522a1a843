/**
 * Ctrl-C, for work that can stop at a good moment.
 *
 * @module
 */

/** The exit code of a run that Ctrl-C ended. */
export const INTERRUPTED = 130;

/**
 * Whether somebody wants to stop. Once it is disposed of, Ctrl-C ends the process at once again.
 */
export interface Interrupt extends Disposable {
  /** Whether Ctrl-C was pressed, or the process was asked to end. */
  readonly wanted: boolean;
}

/**
 * Listens for Ctrl-C and for the signal to end. The first calls `onFirst`, the second ends the
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
