/**
 * What a command says: results on stdout, everything else on stderr. If JSON is asked for, one
 * document of all results is all that stdout gets.
 *
 * @module
 */

/**
 * Text without the characters that a terminal obeys, except line breaks and tabs: names of folders,
 * files and classes, and what a hub says, are other people's.
 */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- control characters are what it removes
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** Where a command's words go. */
export class Console {
  readonly #json: boolean;
  readonly #terminal = Deno.stderr.isTerminal();
  #lineOpen = false;
  #lastReport = 0;

  /** With `json`, stdout gets nothing but the document that {@linkcode finish} prints. */
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

  /**
   * How far the work is: on a terminal one line that changes, elsewhere a line every ten seconds
   * and the last.
   */
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

  /** All of the command's results, if JSON is asked for. */
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
  const rounded = Math.round(seconds);
  if (rounded < 60) return `${rounded} s`;
  if (rounded < 3600) return `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
  return `${Math.floor(rounded / 3600)} h ${Math.floor(rounded % 3600 / 60)} min`;
}

/** Bytes in a form that fits a progress line: `12.3 MB`. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A share as a percentage: `58.4 %`. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
