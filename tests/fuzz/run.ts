/**
 * `deno task fuzz [COUNT] [FIRST]`: opens mutants of every kind of file that comes from elsewhere,
 * as the commands open them. Each must be read, or be refused with an error of ours. Mutant number
 * i is the same each time: `deno task fuzz 1 I` opens it alone.
 *
 * @module
 */

import { prepare } from "./files.ts";
import type { Order, Told } from "./worker.ts";

/** After so long without a word, which no slow machine explains, the current mutant has no end. */
const SILENT_MS = 600_000;

/** Opens `count` mutants from number `first` on; the exit code. */
async function fuzz(count: number, first: number): Promise<number> {
  const root = await Deno.makeTempDir({ prefix: "octograd-fuzz-" });
  const worker = new Worker(import.meta.resolve("./worker.ts"), { type: "module" });
  try {
    await prepare(root);
    const kinds = new Map<string, number>();
    const wrong: string[] = [];
    let [at, most, slowest, slow, began] = [first, 0, 0, first, performance.now()];
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    worker.onmessage = ({ data }: MessageEvent<Told>) => {
      clearTimeout(timer);
      timer = setTimeout(() => reject(new Error(`mutant ${at} has no end`)), SILENT_MS);
      if (data === null) return resolve();
      if (!data.fate) [at, began] = [data.number, performance.now()];
      else {
        const { name, kind, wrong: why } = data.fate;
        kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
        if (why !== undefined) wrong.push(`mutant ${data.number} of ${name}: ${why}`);
        if (count === 1) console.log(`mutant ${data.number} of ${name}: ${kind}`);
        if (performance.now() - began > slowest) [slowest, slow] = [performance.now() - began, at];
        most = Math.max(most, data.rss!);
      }
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(`mutant ${at}: ${event.message}`));
    };
    worker.postMessage({ root, first, count } satisfies Order);
    await promise.finally(() => clearTimeout(timer));
    for (const each of wrong) console.error(`\n${each}`);
    const told = [...kinds].sort().map(([kind, number]) => `${number} ${kind}`).join(", ");
    console.log(
      `${count} mutants: ${told}; ${wrong.length} not refused in a line of ours; ` +
        `at most ${(most / 2 ** 20).toFixed(0)} MiB; the slowest, ${slow}, took ${
          (slowest / 1000).toFixed(1)
        } s`,
    );
    return wrong.length > 0 ? 1 : 0;
  } finally {
    worker.terminate();
    await Deno.remove(root, { recursive: true });
  }
}

const [count = 1000, first = 0] = Deno.args.map(Number);
Deno.exit(await fuzz(count, first));
