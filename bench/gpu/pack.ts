/**
 * `deno task bench:pack`: makes a folder with which the benches run on a machine that has a GPU's
 * driver, but neither Deno nor a Vulkan loader nor a network. There, `sh run.sh` runs them.
 *
 * @module
 */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runCommand } from "../../blocklora/commands/command.ts";
import { text } from "../../blocklora/system/flag.ts";
import { parseOnlyFlags } from "../../blocklora/system/flags.ts";
import { COMMON_FLAGS } from "../../blocklora/commands/common_flags.ts";
import { userPath } from "../../blocklora/system/user_path.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** The programs that run there. */
const MODULES = ["bench/gpu.ts", "bench/gpu/kernels.ts", "bench/gpu/steps.ts", "bench/peers.ts"];
const PEERS = ["child", "octograd", "tfjs", "jaxjs"].map((name) => `bench/peers/${name}.ts`);

/** Files of packages that no run reads. */
const UNREAD = ["*.map", "*.min.js", "*.d.ts"];

/** Runs a program in the project's directory, and returns what it printed. */
async function output(
  program: string,
  args: readonly string[],
  { stdin = "", env = {} }: { stdin?: string; env?: Record<string, string> } = {},
): Promise<string> {
  const child = new Deno.Command(program, {
    args: [...args],
    cwd: ROOT,
    env,
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin));
  await writer.close();
  const { code, stdout } = await child.output();
  if (code !== 0) throw new Error(`Cannot pack: ${program} ${args[0]} failed`);
  return new TextDecoder().decode(stdout);
}

const ABOUT = {
  usage: "deno task bench:pack [--output DIR]",
  about:
    `Packs Deno, the Vulkan loader, the packages of the peers and the project for a machine with a
GPU and no network, of the same kind as this one: Linux, the same processor. There: sh DIR/run.sh`,
};

const FLAGS = {
  output: text("DIR", "where the pack is made", "dist/gpu"),
  help: COMMON_FLAGS.help,
};

async function run(args: readonly string[]): Promise<number> {
  const directory = userPath(parseOnlyFlags(args, FLAGS).output);
  const to = (name: string) => join(directory, name);
  await Deno.mkdir(directory, { recursive: true });

  console.error("packing the project");
  const files = await output("git", ["ls-files", "--cached", "--others", "--exclude-standard"]);
  // Of tests/, only the packages that deno.json links are needed.
  const needed = files.split("\n").filter((file) => !/^tests\/(?!std\/)/.test(file)).join("\n");
  const tar = (archive: string, ...rest: string[]) => ["-cJf", to(archive), ...rest];
  await output("tar", tar("octograd.tar.xz", "--ignore-failed-read", "-T", "-"), { stdin: needed });

  console.error("packing the peers' packages");
  const cache = await Deno.makeTempDir();
  try {
    const env = { DENO_DIR: cache };
    await output(Deno.execPath(), ["cache", "--quiet", ...MODULES, ...PEERS], { env });
    const exclude = UNREAD.map((pattern) => `--exclude=${pattern}`);
    await output("tar", tar("cache.tar.xz", ...exclude, "-C", cache, "npm"));
  } finally {
    await Deno.remove(cache, { recursive: true });
  }

  console.error("packing the Vulkan loader");
  const libraries = await output("/sbin/ldconfig", ["-p"]);
  const loader = /libvulkan\.so\.1 .*=> (.*)/.exec(libraries);
  if (!loader) {
    throw new Error("Cannot pack: there is no libvulkan.so.1 here (Debian's libvulkan1)");
  }
  await Deno.copyFile(loader[1], to("libvulkan.so.1"));

  console.error("packing Deno");
  await Deno.copyFile(Deno.execPath(), to("deno"));
  await output("xz", ["-9", "--force", to("deno")]);
  await Deno.copyFile(join(ROOT, "bench/gpu/run.sh"), to("run.sh"));

  let total = 0;
  for await (const { name } of Deno.readDir(directory)) total += (await Deno.stat(to(name))).size;
  console.log(
    `pack: ${directory} (${(total / 1e6).toFixed(1)} MB); on the GPU's machine: sh run.sh`,
  );
  return 0;
}

if (import.meta.main) Deno.exit(await runCommand("bench:pack", { ABOUT, FLAGS, run }, Deno.args));
