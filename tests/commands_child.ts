/**
 * Runs commands one after another in this process, and prints what came of each as JSON. The
 * argument is a JSON list of command lines.
 *
 * With `SNAPSHOTS`, a directory, it copies what lies beside each `--output` as it is before
 * every change of a file: that is what a process leaves behind that is killed at this moment. With
 * `LOSE_AFTER`, a number of lines of the metrics, it loses the GPU device once.
 */

import { dirname, join } from "node:path";
import { main } from "../blocklora/cli.ts";
import { gpu, shutDown } from "../tensor/device.ts";

const commands: string[][] = JSON.parse(Deno.args[0]);
const print = console.log;
const outputOf = (args: readonly string[]) => args[args.indexOf("--output") + 1];
const snapshots = Deno.env.get("SNAPSHOTS");
const loseAfter = Number(Deno.env.get("LOSE_AFTER") ?? Infinity);

function copyDirectory(from: string, to: string): void {
  Deno.mkdirSync(to, { recursive: true });
  for (const { name, isDirectory } of Deno.readDirSync(from)) {
    if (isDirectory) copyDirectory(join(from, name), join(to, name));
    else Deno.copyFileSync(join(from, name), join(to, name));
  }
}

if (snapshots) {
  let count = 0;
  const directory = dirname(outputOf(commands[0]));
  const before = (path: unknown) => {
    if (!String(path).startsWith(directory)) return;
    copyDirectory(directory, join(snapshots, `${1000 + count++}`));
  };
  for (const name of ["open", "rename", "remove", "mkdir"] as const) {
    // deno-lint-ignore no-explicit-any -- the four have nothing but their first argument in common
    const original = Deno[name] as any;
    // deno-lint-ignore no-explicit-any
    (Deno as any)[name] = (path: unknown, ...more: unknown[]) => {
      before(path);
      return original(path, ...more);
    };
  }
  // What was opened is written and flushed.
  const { write, sync, truncate } = Deno.FsFile.prototype;
  Object.assign(Deno.FsFile.prototype, {
    write(this: Deno.FsFile, bytes: Uint8Array) {
      before(directory);
      return write.call(this, bytes);
    },
    sync(this: Deno.FsFile) {
      before(directory);
      return sync.call(this);
    },
    truncate(this: Deno.FsFile, size?: number) {
      before(directory);
      return truncate.call(this, size);
    },
  });
}

if (loseAfter < Infinity) {
  const path = `${outputOf(commands[0])}.unfinished/metrics.jsonl`;
  const timer = setInterval(() => {
    let lines = 0;
    try {
      lines = Deno.readTextFileSync(path).split("\n").length - 1;
    } catch { /* not yet there */ }
    if (lines < loseAfter) return;
    clearInterval(timer);
    gpu().destroy();
  }, 5);
}

const outcomes = [];
for (const args of commands) {
  const lines: { log: string[]; error: string[] } = { log: [], error: [] };
  for (const name of ["log", "error"] as const) {
    console[name] = (...words: unknown[]) => lines[name].push(`${words.join(" ")}\n`);
  }
  const code = await main(args);
  outcomes.push({ code, stdout: lines.log.join(""), stderr: lines.error.join("") });
}
print(JSON.stringify(outcomes));
shutDown();
Deno.exit();
