/**
 * `./octograd` among stand-ins for the programs that it calls: nothing is installed, and the script
 * does not see the Deno, npm and drivers of this machine.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** The system's programs that the script may call. */
const TOOLS = ["chmod", "cp", "dirname", "env", "mkdir", "mktemp", "mv", "rm", "sed", "sh", "true"];

/**
 * A Deno of a given version. It finds a GPU if the file `adapter` exists. On `task` it prints its
 * arguments and the Deno that the task would start, and exits with code 7.
 */
const deno = (version: string) => `
case $1 in
  --version) echo "deno ${version} (stable, release, x86_64)"; echo "v8 1.2.3" ;;
  eval) [ -e "$WORLD/adapter" ] ;;
  task)
    shift; [ -z "$*" ] || printf '<%s>' "$@"; echo
    command -v deno
    echo "$INIT_CWD $XDG_RUNTIME_DIR $DENO_WEBGPU_BACKEND"
    exit 7 ;;
esac`;

/** An npm that installs that Deno and logs its arguments. */
const npm = (version: string) => `
echo "$@" >>"$WORLD/npm.log"
echo noise
while [ "$1" != --prefix ]; do shift; done
package=$2/node_modules/@deno/linux-x64-glibc
mkdir -p "$package"
cp "$WORLD/deno-${version}" "$package/deno"`;

/** An apt-get that installs a GPU's driver and logs its arguments. */
const APT = `
echo "\${DEBIAN_FRONTEND:-asking} $*" >>"$WORLD/apt.log"
echo noise
case $1 in install) : >"$WORLD/adapter" ;; esac`;

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A machine of stand-ins: programs on PATH, files at paths below its directory. */
class World {
  readonly #directory = Deno.makeTempDirSync({ prefix: "octograd-" });
  /** The checkout, with a space in its path. */
  readonly checkout = join(this.#directory, "a checkout");

  constructor(programs: Record<string, string>, files: Record<string, string> = {}) {
    for (const tool of TOOLS) this.#link(tool);
    for (const name of ["octograd", "deno.json"]) {
      Deno.mkdirSync(this.checkout, { recursive: true });
      Deno.copyFileSync(join(ROOT, name), join(this.checkout, name));
    }
    const common = { id: "echo 0", uname: '[ "$1" = -s ] && echo Linux || echo x86_64' };
    for (const [name, text] of Object.entries({ ...common, ...programs })) {
      this.write(`bin/${name}`, text);
    }
    for (const [path, text] of Object.entries(files)) this.write(path, text);
  }

  #link(tool: string) {
    const paths = (Deno.env.get("PATH") ?? "").split(":").map((folder) => join(folder, tool));
    const found = paths.find((path) => this.#isFile(path));
    assert(found, `${tool} is on no PATH`);
    Deno.mkdirSync(join(this.#directory, "bin"), { recursive: true });
    Deno.symlinkSync(found, join(this.#directory, "bin", tool));
  }

  #isFile(path: string): boolean {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  }

  /** Writes a program at a path below the directory. */
  write(path: string, text: string): void {
    Deno.mkdirSync(join(this.#directory, path, ".."), { recursive: true });
    Deno.writeTextFileSync(join(this.#directory, path), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }

  /** The path of something below the directory. */
  path(name: string): string {
    return join(this.#directory, name);
  }

  /** What a file below the directory holds; nothing if there is none. */
  read(name: string): string {
    return this.#isFile(this.path(name)) ? Deno.readTextFileSync(this.path(name)) : "";
  }

  /** Runs `./octograd` with arguments, from the directory itself. */
  async octograd(args: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
    const { code, stdout, stderr } = await new Deno.Command(join(this.checkout, "octograd"), {
      args: [...args],
      cwd: this.#directory,
      clearEnv: true,
      env: {
        PATH: this.path("bin"),
        HOME: this.path("home"),
        WORLD: this.#directory,
        ...env,
      },
      stdin: "null",
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.#directory, { recursive: true });
  }
}

/** A test that needs a POSIX shell. */
function shellTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: `octograd ${name}`, ignore: Deno.build.os === "windows", fn });
}

shellTest("runs the task with its arguments, and says nothing itself", async () => {
  using world = new World({ deno: deno("2.9.0") }, { adapter: "" });
  const { code, stdout, stderr } = await world.octograd(["train", "--json", "my images/*", ""]);
  assertEquals(stderr, "");
  assertEquals(stdout.split("\n"), [
    `<--quiet><--config><${world.checkout}/deno.json><train><--json><my images/*><>`,
    world.path("bin/deno"),
    `${Deno.realPathSync(world.path("."))} /tmp vulkan`,
    "",
  ]);
  assertEquals(code, 7);
});

shellTest("leaves the environment as it is set, but for a stale INIT_CWD", async () => {
  using world = new World({ deno: deno("10.0.0") }, { adapter: "" });
  const { stdout } = await world.octograd(["test"], {
    DENO_WEBGPU_BACKEND: "gl",
    XDG_RUNTIME_DIR: "/run/user/1",
    INIT_CWD: "/elsewhere",
  });
  assertEquals(stdout.split("\n")[2], `${Deno.realPathSync(world.path("."))} /run/user/1 gl`);
});

shellTest("passes over a Deno that is too old or broken", async () => {
  for (const bad of [deno("2.8.12"), deno("1.46.3"), "exit 1", "echo hello", "kill -9 $$"]) {
    using world = new World({ deno: bad }, { "home/.deno/bin/deno": deno("3.0.0"), adapter: "" });
    const { stdout, stderr } = await world.octograd(["test"]);
    assertEquals([stdout.split("\n")[1], stderr], [world.path("home/.deno/bin/deno"), ""]);
  }
  using world = new World({}, { "elsewhere/bin/deno": deno("2.9.6"), adapter: "" });
  const { stdout } = await world.octograd(["test"], { DENO_INSTALL: world.path("elsewhere") });
  assertEquals(stdout.split("\n")[1], world.path("elsewhere/bin/deno"));
});

shellTest("installs Deno from npm once, on stderr", async () => {
  using world = new World({ deno: deno("2.8.0"), npm: npm("2.9.6") }, {
    "deno-2.9.6": deno("2.9.6"),
    adapter: "",
  });
  const first = await world.octograd(["train"]);
  assertEquals(first.code, 7);
  assertEquals(first.stdout.split("\n")[1], `${world.checkout}/.deno/bin/deno`);
  assertMatch(first.stderr, /^octograd: Deno 2\.9 .* installing 2\.9\.6 from npm into .*\.deno\n$/);
  const second = await world.octograd(["train"]);
  assertEquals([second.stdout, second.stderr], [first.stdout, ""]);
  const calls = world.read("npm.log").trim().split("\n");
  assertEquals(calls.length, 1);
  assertMatch(calls[0], /--ignore-scripts .*@deno\/linux-x64-glibc@2\.9\.6$/);
  assertEquals(namesIn(join(world.checkout, ".deno")), ["bin"]);
});

shellTest("leaves nothing behind when npm fails or is interrupted", async () => {
  const failures = {
    "exit 1": [1, "npm could not install Deno; install it with: curl -fsSL https://deno.land"],
    [npm("2.8.0")]: [1, "the Deno that npm installed does not run here; install it with: curl"],
    [`${npm("2.9.6")}\nkill -INT $PPID`]: [130, ""],
    [`${npm("2.9.6")}\nkill -TERM $PPID`]: [143, ""],
  } as const;
  for (const [program, [exit, reason]] of Object.entries(failures)) {
    using world = new World({ npm: program }, {
      "deno-2.8.0": deno("2.8.0"),
      "deno-2.9.6": deno("2.9.6"),
      adapter: "",
    });
    const { code, stdout, stderr } = await world.octograd(["train"]);
    assertEquals([code, stdout], [exit, ""]);
    assertStringIncludes(stderr, reason);
    assertEquals(namesIn(join(world.checkout, ".deno")), ["bin"]);
    assertEquals(namesIn(join(world.checkout, ".deno/bin")), []);
  }
});

shellTest("names the official installer where there is no npm, or no such platform", async () => {
  const freebsd = '[ "$1" = -s ] && echo FreeBSD || echo amd64';
  const cases: Record<string, string>[] = [{}, { npm: npm("2.9.6"), uname: freebsd }];
  for (const programs of cases) {
    using world = new World(programs, { "deno-2.9.6": deno("2.9.6"), adapter: "" });
    const { code, stdout, stderr } = await world.octograd(["train"]);
    assertEquals([code, stdout], [1, ""]);
    assertEquals(
      stderr,
      "octograd: Deno 2.9 or later is needed and was not found; " +
        "install it with: curl -fsSL https://deno.land/install.sh | sh\n",
    );
  }
});

shellTest("installs the software driver as root, or with a sudo that asks nothing", async () => {
  const user = {
    id: "echo 1000",
    sudo: 'echo "sudo $*" >>"$WORLD/sudo.log"; [ "$1" = -n ] || exit 1; shift; exec "$@"',
  };
  for (const programs of [{}, user] as Record<string, string>[]) {
    using world = new World({ deno: deno("2.9.6"), "apt-get": APT, ...programs });
    const { code, stdout, stderr } = await world.octograd(["train"]);
    assertEquals(code, 7);
    assertEquals(stdout.split("\n").length, 4);
    assertMatch(stderr, /^octograd: no WebGPU adapter .*, installing Mesa's software Vulkan/);
    const [update, install] = world.read("apt.log").trim().split("\n");
    assertMatch(update, /^asking update/);
    assertMatch(install, /^noninteractive install .*-y .*mesa-vulkan-drivers libvulkan1$/);
    if ("sudo" in programs) {
      assertMatch(world.read("sudo.log"), /^sudo -n true\nsudo -n apt-get update/);
    }
  }
});

shellTest("goes on with the package lists there are", async () => {
  const offline = `[ "$1" != update ] || exit 100\n${APT}`;
  using world = new World({ deno: deno("2.9.6"), "apt-get": offline });
  const { code, stderr } = await world.octograd(["train"]);
  assertEquals(code, 7);
  assertStringIncludes(stderr, "octograd: apt-get update failed, going on");
});

shellTest("says how to get an adapter where it cannot install one", async () => {
  const byHand = "sudo apt-get install mesa-vulkan-drivers libvulkan1\n";
  const still = "driver is installed, and still no WebGPU adapter was found\n";
  const darwin = '[ "$1" = -s ] && echo Darwin || echo arm64';
  const cases: [Record<string, string>, string][] = [
    [{ "apt-get": APT, id: "echo 1000" }, byHand],
    [{ "apt-get": APT, id: "echo 1000", sudo: "exit 1" }, byHand],
    [{ "apt-get": "exit 100" }, byHand],
    [{ "apt-get": "exit 0" }, still],
    [{}, "install a Vulkan driver (Mesa's lavapipe is one that needs no GPU)\n"],
    [{ "apt-get": APT, uname: darwin }, "Deno can use no GPU of this machine\n"],
  ];
  for (const [programs, reason] of cases) {
    using world = new World({ deno: deno("2.9.6"), ...programs });
    const { code, stdout, stderr } = await world.octograd(["train"]);
    assertEquals([code, stdout], [1, ""]);
    assert(stderr.endsWith(reason), stderr);
    assertEquals(world.read("apt.log"), "");
  }
});

shellTest("lists every task, and needs nothing for that", async () => {
  using world = new World({});
  const config = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const tasks = config.tasks as Record<string, { description: string }>;
  const lines = Object.entries(tasks).map(([name, { description }]) =>
    `  ${name.padEnd(11)}  ${description}`
  );
  const usage = ["Usage: ./octograd TASK [ARGS]", "", "Tasks:", ...lines, ""].join("\n");
  for (const flag of ["--help", "-h"]) {
    assertEquals(await world.octograd([flag]), { code: 0, stdout: usage, stderr: "" });
  }
  for (const args of [[], ["--json", "train"]]) {
    assertEquals(await world.octograd(args), { code: 2, stdout: "", stderr: usage });
  }
});

shellTest("tells a task of a real Deno where it was called", async () => {
  using world = new World({ deno: `exec '${Deno.execPath()}' "$@"` }, { adapter: "" });
  const task = { description: "", command: "echo $INIT_CWD && pwd && deno --version && exit 9" };
  await Deno.writeTextFile(
    join(world.checkout, "deno.json"),
    JSON.stringify({ tasks: { where: task } }),
  );
  const { code, stdout, stderr } = await world.octograd(["where"], {
    ...driverEnvironment(),
    INIT_CWD: "/elsewhere",
  });
  const [from, at, version] = stdout.split("\n");
  const here = Deno.realPathSync(world.path("."));
  assertEquals([from, at], [here, Deno.realPathSync(world.checkout)], stderr);
  assertMatch(version, /^deno \d/);
  assertEquals(code, 9);
});

/** The environment variables by which Deno finds the GPU that the other tests run on. */
function driverEnvironment(): Record<string, string> {
  const entries = Object.entries(Deno.env.toObject())
    .filter(([name]) => /^(VK_|DENO_WEBGPU_|XDG_|LD_LIBRARY_PATH)/.test(name));
  return Object.fromEntries(entries);
}

/** The names in a directory. */
function namesIn(directory: string): string[] {
  return Array.from(Deno.readDirSync(directory), ({ name }) => name);
}
