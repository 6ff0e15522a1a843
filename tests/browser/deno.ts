/**
 * In a page: as much of `Deno` as the kernel tests use, and their runner. Each result is sent as
 * soon as it is there, so that a test that never ends is known by its name.
 *
 * @module
 */

/** What the server knows, and a page does not. */
export interface Host {
  /** The current directory. */
  readonly cwd: string;
  /** Variables of the environment. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The paths of all files that can be read, numbered. */
  readonly files: Readonly<Record<string, number>>;
  /** Names of tests to leave out. */
  readonly excluded: readonly string[];
}

/** What became of a test. */
export interface Result {
  /** The test's name. */
  readonly name: string;
  /** How it ended. */
  readonly result: "ok" | "failed" | "ignored";
  /** Lines that it printed. */
  readonly printed: readonly string[];
  /** Names of its steps. */
  readonly steps: readonly string[];
  /** Why it failed. */
  readonly message?: string;
}

/** What became of a test, and how long it took. */
export interface TimedResult extends Result {
  /** The seconds. */
  readonly seconds: number;
}

/**
 * What a page tells: a file or a test that begins, a test that has ended, and the end of all, with
 * the error that caused it, if one did.
 */
export type Told =
  | { readonly file: string }
  | { readonly begun: string }
  | TimedResult
  | { readonly ended?: string };

const { host } = globalThis as unknown as { host: Host };

interface Test {
  readonly name: string;
  readonly ignore?: boolean;
  readonly fn: (t: Context) => void | Promise<void>;
}

interface Context {
  step(name: string, fn: () => void | Promise<void>): Promise<void>;
}

const tests: Test[] = [];
const afterAll: (() => void | Promise<void>)[] = [];

const pathOf = (at: URL | string) =>
  decodeURIComponent(at instanceof URL ? at.pathname : at).replace(/\/$/, "");

class NotFound extends Error {}

/** Whether there is a file or a directory. */
export function exists(at: URL | string): boolean {
  return pathOf(at) in host.files || entries(at).size > 0;
}

/** The names in a directory, and whether each is a file. */
function entries(at: URL | string): Map<string, boolean> {
  const start = `${pathOf(at)}/`;
  return new Map(
    Object.keys(host.files).filter((path) => path.startsWith(start)).map((path) => {
      const [name, ...below] = path.slice(start.length).split("/");
      return [name, below.length === 0];
    }),
  );
}

function readDirSync(at: URL | string) {
  if (!exists(at)) throw new NotFound(`No such directory: ${at}`);
  return [...entries(at)].map(([name, isFile]) => ({ name, isFile, isDirectory: !isFile }));
}

async function fetched(at: URL | string): Promise<Response> {
  if (!(pathOf(at) in host.files)) throw new NotFound(`No such file: ${at}`);
  const response = await fetch(`/files/${host.files[pathOf(at)]}`);
  if (response.ok) return response;
  throw new Error(`Cannot fetch ${at}: ${response.status}`);
}

const readFile = async (at: URL | string) => await (await fetched(at)).bytes();

function test(first: string | Test, fn?: Test["fn"]): void {
  tests.push(typeof first === "string" ? { name: first, fn: fn! } : first);
}
test.afterAll = (fn: () => void | Promise<void>) => afterAll.push(fn);

Object.assign(globalThis, {
  Deno: {
    test,
    cwd: () => host.cwd,
    env: { get: (name: string) => host.env[name] },
    errors: { NotFound },
    readFile,
    readTextFile: async (at: URL | string) => await (await fetched(at)).text(),
    // deno-lint-ignore require-await
    async stat(at: URL | string) {
      if (!exists(at)) throw new NotFound(`No such file: ${at}`);
      return { isFile: pathOf(at) in host.files };
    },
    readDirSync,
    async *readDir(at: URL | string) {
      yield* readDirSync(at);
    },
    SeekMode: { Start: 0 },
    async open(at: string) {
      const bytes = await readFile(at);
      let offset = 0;
      return {
        // deno-lint-ignore require-await
        stat: async () => ({ isFile: true, size: bytes.length }),
        seekSync: (to: number) => offset = to,
        readSync(into: Uint8Array) {
          const read = bytes.subarray(offset, offset += into.length);
          into.set(read);
          return read.length;
        },
        close() {},
      };
    },
  },
});

const uncaught: unknown[] = [];
addEventListener("error", ({ error }) => uncaught.push(error));
addEventListener("unhandledrejection", ({ reason }) => uncaught.push(reason));

/** Loads files one after the other and runs their tests, all on one engine. */
export async function run(files: Readonly<Record<string, () => Promise<unknown>>>): Promise<void> {
  for (const [file, load] of Object.entries(files)) {
    await tell({ file });
    tests.length = 0;
    await load();
    for (const { name, ignore, fn } of tests) {
      if (host.excluded.includes(name)) continue;
      await tell({ begun: name });
      await tell(
        ignore
          ? { name, result: "ignored", printed: [], steps: [], seconds: 0 }
          : await outcome(name, fn),
      );
    }
  }
  for (const each of afterAll) await each();
}

async function outcome(name: string, fn: Test["fn"]): Promise<TimedResult> {
  const [printed, steps]: [string[], string[]] = [[], []];
  const start = performance.now();
  const ended = () => ({ name, printed, steps, seconds: (performance.now() - start) / 1000 });
  console.log = (...values: unknown[]) => printed.push(values.join(" "));
  try {
    await fn({
      async step(name, fn) {
        await fn();
        steps.push(name);
      },
    });
    if (uncaught.length > 0) throw uncaught[0];
    return { ...ended(), result: "ok" };
  } catch (error) {
    return { ...ended(), result: "failed", message: messageOf(error) };
  } finally {
    uncaught.length = 0;
  }
}

async function tell(told: Told): Promise<void> {
  await fetch("told", { method: "POST", body: JSON.stringify(told) });
}

/** The message of an assertion; of other errors, the stack too. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.name === "AssertionError" ? error.message : error.stack ?? error.message;
}
