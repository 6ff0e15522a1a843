/**
 * What a command says: results on stdout, everything else on stderr, and one JSON document on stdout if asked.
 *
 * @module
 */

/**
 * Text without what a terminal obeys: names of folders, files and classes, and what a hub says, come from others.
 * Line breaks and tabs stay.
 */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- they are what it is about
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** Where a command's words go. */
export class Console {
  readonly #json: boolean;
  readonly #terminal = Deno.stderr.isTerminal();
  #lineOpen = false;
  #lastReport = 0;

  /** With `json`, stdout is kept for the one document that {@linkcode finish} prints. */
  constructor(json: boolean) {
    this.#json = json;
  }

  /** A result, for people. */
  say(line: string): void {
    this.#endLine();
    if (this.#json) console.error(printable(line));
    else console.log(printable(line));
  }

  /** A remark that is no result. */
  note(line: string): void {
    this.#endLine();
    console.error(printable(line));
  }

  /** How far the work is: on a terminal one line that changes, elsewhere a line every ten seconds and the last. */
  progress(line: string, last = false): void {
    if (this.#terminal) {
      const { columns } = Deno.consoleSize();
      const shown = printable(line).slice(0, columns - 1);
      Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[2K${shown}`));
      this.#lineOpen = true;
      if (last) this.#endLine();
    } else if (last || performance.now() - this.#lastReport > 10_000) {
      this.#lastReport = performance.now();
      console.error(printable(line));
    }
  }

  /** The command's result as a whole. */
  finish(result: Record<string, unknown>): void {
    this.#endLine();
    if (this.#json) console.log(JSON.stringify(result, null, 2));
  }

  #endLine(): void {
    if (this.#lineOpen) console.error();
    this.#lineOpen = false;
  }
}

/** Seconds in a form that fits a progress line: `45 s`, `3 min 20 s`, `1 h 5 min`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
}

/** Bytes in a form that fits a progress line: `12.3 MB`. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A share as a percentage: `58.4 %`. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
