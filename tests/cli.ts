/**
 * Runs the command line as users do, in a separate process, on a few of the embedded images.
 *
 * @module
 */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import manifest from "../deno.json" with { type: "json" };
import { EMBEDDED_MODEL } from "../blocklora/models/open_model.ts";
import { EMBEDDED_DATA } from "../blocklora/data/open_data.ts";

/** The outcome of a command. */
export interface Outcome {
  /** Its exit code. */
  readonly code: number;
  /** All that it wrote on stdout. */
  readonly stdout: string;
  /** All that it wrote on stderr. */
  readonly stderr: string;
}

/** The arguments by which deno.json's task starts a command, with the permissions of that task. */
function taskOf(name = ""): string[] {
  const tasks: Readonly<Record<string, { readonly command: string }>> = manifest.tasks;
  // The program itself refuses an unknown command.
  return Object.hasOwn(tasks, name)
    ? tasks[name].command.split(" ").slice(1)
    : ["run", "-A", "blocklora/cli.ts", name];
}

/** Starts a command as the tasks of deno.json do, typed in the directory `from`. */
export function spawn(
  args: readonly string[],
  { from = Deno.cwd(), env = {} }: { from?: string; env?: Record<string, string> } = {},
): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: [...taskOf(args[0]), ...args.slice(1)],
    cwd: new URL("../", import.meta.url),
    // Vulkan's loader complains without XDG_RUNTIME_DIR.
    env: { XDG_RUNTIME_DIR: "/tmp", INIT_CWD: from, ...env },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Waits for a command's end. */
export async function outcomeOf(child: Deno.ChildProcess): Promise<Outcome> {
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** Runs a command to its end. */
export function octograd(
  args: readonly string[],
  options?: Parameters<typeof spawn>[1],
): Promise<Outcome> {
  return outcomeOf(spawn(args, options));
}

/** Runs commands one after another in one process, which starts and compiles only once. */
export async function inOneProcess(
  commands: readonly (readonly string[])[],
  env: Record<string, string> = {},
): Promise<Outcome[]> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "tests/commands_child.ts", JSON.stringify(commands)],
    cwd: new URL("../", import.meta.url),
    env: { XDG_RUNTIME_DIR: "/tmp", ...env },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const { code, stdout, stderr } = await outcomeOf(child);
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

/** Runs `body` with a directory that is removed after it. */
export async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "octograd-" });
  try {
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** The folders of {@linkcode copyImages}. */
export const FOLDERS = ["ankle-boot", "bag", "dress"] as const;

/** Copies the first images of three embedded classes to folders below `to`. */
export async function copyImages(side: "train" | "test", count: number, to: string): Promise<void> {
  for (const folder of FOLDERS) {
    const from = new URL(`${side}/${folder}/`, EMBEDDED_DATA);
    const names = Array.from(Deno.readDirSync(from), ({ name }) => name).sort().slice(0, count);
    await Deno.mkdir(join(to, folder), { recursive: true });
    for (const name of names) {
      await Deno.copyFile(new URL(name, from), join(to, folder, `${side}-${name}`));
    }
  }
}

/** Makes a data set of three classes with 4 images each to train on, and 4 to test on. */
export async function copyData(to: string): Promise<string> {
  await copyImages("train", 4, join(to, "train"));
  await copyImages("test", 4, join(to, "test"));
  return to;
}

/** Copies the embedded model to a new directory. */
export async function copyModel(to: string): Promise<string> {
  await Deno.mkdir(to, { recursive: true });
  for (const { name } of Deno.readDirSync(EMBEDDED_MODEL)) {
    await Deno.copyFile(join(fileURLToPath(EMBEDDED_MODEL), name), join(to, name));
  }
  return to;
}

/** Whether there is something at a path. */
export function existsSync(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** The names of all files below a directory, sorted. */
export function filesIn(directory: string): string[] {
  return Array.from(Deno.readDirSync(directory)).flatMap(({ name, isDirectory }) =>
    isDirectory ? filesIn(join(directory, name)).map((file) => join(name, file)) : [name]
  ).sort();
}

/** A tmpfs that is mounted for the test; null where that is not permitted. */
export async function mounted(path: string, options: string): Promise<Disposable | null> {
  const run = async (...args: string[]) => {
    try {
      const command = new Deno.Command(args[0], { args: args.slice(1), stderr: "null" });
      return (await command.output()).success;
    } catch {
      return false;
    }
  };
  await Deno.mkdir(path);
  if (!await run("mount", "-t", "tmpfs", "-o", options, "tmpfs", path)) return null;
  const unmount = () => {
    new Deno.Command("umount", { args: [path] }).outputSync();
  };
  return { [Symbol.dispose]: unmount };
}
