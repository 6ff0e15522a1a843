/**
 * Handles the signals that ask a process to stop, for work that wants to save what it has first.
 *
 * @module
 */

/** The exit code after each signal, as shells give it: 128 and the signal's number. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

/**
 * How long after the first signal the second one stops the process at once. One Ctrl-C sends
 * several signals: from the terminal to the process group, and from `deno task` to its child.
 */
const SECOND_MS = 1000;

/** Turns of the event loop after that, in which signals are taken that had to wait. */
const TURNS = 5;

/** The process was asked to stop. */
export class InterruptedError extends Error {
  /** `"InterruptedError"`. */
  override name = "InterruptedError";
  /** The exit code that tells so: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP. */
  readonly exitCode: number;

  /** Makes the error of one signal. */
  constructor(signal: keyof typeof EXIT_CODES) {
    super(`Cannot go on: stopped by ${signal}`);
    this.exitCode = EXIT_CODES[signal];
  }
}

/** Tells whether the process was asked to stop. Disposing of it restores the default handling. */
export interface Interrupt extends Disposable {
  /** Is aborted by the first signal. Its reason is an {@linkcode InterruptedError}. */
  readonly signal: AbortSignal;
}

/**
 * Listens for Ctrl-C (SIGINT), SIGTERM and SIGHUP. The first one aborts the signal and calls
 * `onFirst`. One that comes a second or more later ends the process at once.
 */
export function catchInterrupts(onFirst: () => void): Interrupt {
  const controller = new AbortController();
  let impatient = false;
  // While the thread waits for the GPU, signals queue up. They are taken together with the timers
  // that are due by then, in any order. So a few turns more must pass before a signal counts as a
  // second one.
  const wait = (turns: number) => {
    const timer = setTimeout(
      () => turns > 0 ? wait(turns - 1) : impatient = true,
      turns === TURNS ? SECOND_MS : 0,
    );
    Deno.unrefTimer(timer);
  };
  const stop = (name: keyof typeof EXIT_CODES) => () => {
    if (impatient) Deno.exit(EXIT_CODES[name]);
    if (controller.signal.aborted) return;
    controller.abort(new InterruptedError(name));
    wait(TURNS);
    onFirst();
  };
  const names = Deno.build.os === "windows"
    ? ["SIGINT"] as const
    : ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  const listeners = names.map((name) => [name, stop(name)] as const);
  for (const [name, listener] of listeners) Deno.addSignalListener(name, listener);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const [name, listener] of listeners) Deno.removeSignalListener(name, listener);
    },
  };
}
