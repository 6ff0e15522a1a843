/**
 * The output of a command: results go to stdout, everything else to stderr. With `--json`, stdout
 * gets only one document with all results.
 *
 * @module
 */

/**
 * One line of text. Control characters, line breaks among them, and marks that turn the direction
 * of text are shown as escapes, such as `\u001b`. The names of folders, files and classes and the
 * messages of a hub are untrusted, and could otherwise control the terminal.
 */
export function printable(text: string): string {
  return text.replace(
    // deno-lint-ignore no-control-regex -- control characters are what it escapes
    /[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g,
    (control) => `\\u${control.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Prints a line to stderr, in which control characters are replaced. */
export function printError(line: string): void {
  print("error", printable(line));
}

/** Prints a line. If the terminal or the pipe was closed, the work goes on without it. */
function print(stream: "log" | "error", line: string): void {
  try {
    console[stream](line);
  } catch { /* nobody reads it */ }
}

/** Prints the output of a command. */
export class Console {
  readonly #json: boolean;
  readonly #terminal = Deno.stderr.isTerminal();
  #lineOpen = false;
  #lastReport = 0;

  /** With `json`, stdout gets only the document that {@linkcode finish} prints. */
  constructor(json: boolean) {
    this.#json = json;
  }

  /** Prints a line of results in readable form: to stdout, or to stderr with `json`. */
  say(line: string): void {
    this.#endLine();
    print(this.#json ? "error" : "log", printable(line));
  }

  /** Prints a remark of one line to stderr. */
  note(line: string): void {
    this.#endLine();
    printError(line);
  }

  /**
   * Prints progress to stderr. A terminal shows one line, which is overwritten. Elsewhere a new
   * line is printed at most every ten seconds, and for the last one.
   */
  progress(line: string, last = false): void {
    if (this.#terminal) {
      try {
        const { columns } = Deno.consoleSize();
        // Some terminals do not know their width, and say 0.
        const shown = [...printable(line)].slice(0, (columns || 80) - 1).join("");
        Deno.stderr.writeSync(new TextEncoder().encode(`\r\x1b[2K${shown}`));
      } catch {
        return; // the terminal was closed, and the work goes on without it
      }
      this.#lineOpen = true;
      if (last) this.#endLine();
    } else if (last || performance.now() - this.#lastReport > 10_000) {
      this.#lastReport = performance.now();
      printError(line);
    }
  }

  /** Prints all results of the command as JSON, if `json` is set. */
  finish(result: Record<string, unknown>): void {
    this.#endLine();
    if (!this.#json) return;
    // JSON leaves some control characters as they are. Their escapes are JSON's too.
    const lines = JSON.stringify(result, null, 2).split("\n");
    print("log", lines.map(printable).join("\n"));
  }

  #endLine(): void {
    if (this.#lineOpen) print("error", "");
    this.#lineOpen = false;
  }
}

/** A duration in a short form for progress lines: `45 s`, `3 min 20 s`, `1 h 5 min`. */
export function duration(seconds: number): string {
  const rounded = Math.round(seconds);
  if (rounded < 60) return `${rounded} s`;
  if (rounded < 3600) return `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
  return `${Math.floor(rounded / 3600)} h ${Math.floor(rounded % 3600 / 60)} min`;
}

/** A number of bytes in a short form for progress lines: `12.3 MB`. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A fraction as a percentage: `58.4 %`. */
export function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
