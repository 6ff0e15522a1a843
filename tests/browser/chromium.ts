/**
 * Runs files of Deno's tests in a page of Chromium, on SwiftShader.
 *
 * @module
 */

import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Host, TimedResult, Told } from "./deno.ts";

/**
 * How often the runner says which test is running. Nothing ends a slow test: some machines are ten
 * times slower than this one.
 */
const WAITING_MS = 60_000;

const ARGUMENTS = [
  "--headless=new",
  "--enable-unsafe-webgpu", // SwiftShader's adapter is not offered without
  "--use-webgpu-adapter=swiftshader",
  "--no-sandbox", // root cannot have one
  "--disable-quic",
  "--disable-sync",
  "--disable-background-networking",
  "--disable-component-update",
  "--no-default-browser-check",
  "--no-first-run",
];

const PAGE = `<!doctype html><script src="host.js"></script><script type="module">
import("./tests.js").then(({ run, FILES }) => run(FILES)).catch(({ stack }) => stack)
  .then((ended) => fetch("told", { method: "POST", body: JSON.stringify({ ended }) }));
</script>`;

/** The path of Chromium: `$CHROMIUM`, else the first one on the path; null if there is none. */
export async function findChromium(): Promise<string | null> {
  const chosen = Deno.env.get("CHROMIUM");
  if (chosen) return chosen;
  for (const directory of (Deno.env.get("PATH") ?? "").split(":")) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      const path = `${directory}/${name}`;
      if (await Deno.stat(path).then(({ isFile }) => isFile, () => false)) return path;
    }
  }
  return null;
}

/** The paths of all that tests read. */
async function readable(): Promise<string[]> {
  const root = new URL("../../", import.meta.url);
  const directories = [
    "tests/fixtures/",
    "clip/emoji-clip-tiny/",
    "../shared/fixtures/",
    "../shared/models/",
  ].map((path) => resolve(fileURLToPath(new URL(path, root))));
  const chosen = Deno.env.get("FIXTURES");
  if (chosen) directories.push(resolve(chosen));
  return (await Promise.all(directories.map(filesBelow))).flat();
}

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(directory)).catch(() => []);
  const paths = entries.map(({ name, isDirectory }) =>
    isDirectory ? filesBelow(`${directory}/${name}`) : [`${directory}/${name}`]
  );
  return (await Promise.all(paths)).flat();
}

/**
 * Runs files of `tests/` in a new Chromium, one after the other, and gives the results of
 * each file's tests, except those that are excluded by name.
 */
export async function runInChromium(
  chromium: string,
  files: readonly string[],
  excluded: readonly string[],
): Promise<Map<string, TimedResult[]>> {
  const results = new Map(files.map((file): [string, TimedResult[]] => [file, []]));
  let [file, current] = [files[0], "loading"];
  const add = (result: TimedResult) => results.get(file)!.push(result);
  const { promise: over, resolve: end } = Promise.withResolvers<string | undefined>();
  const timer = setInterval(() => console.log(`Chromium is at: ${file}, ${current}`), WAITING_MS);
  const profile = await Deno.makeTempDir({ prefix: "octograd-chromium-" });
  try {
    await using server = await serve(files, excluded, (told) => {
      if ("file" in told) [file, current] = [told.file, "loading"];
      else if ("begun" in told) current = told.begun;
      else if ("result" in told) add(told);
      else end(told.ended);
    });
    const url = `http://127.0.0.1:${server.addr.port}/`;
    await using browser = launch(chromium, url, profile);
    const message = await Promise.race([over, browser.ended]);
    if (message) {
      add({ name: current, result: "failed", printed: [], steps: [], seconds: 0, message });
    }
  } finally {
    clearInterval(timer);
    await removed(profile);
  }
  return results;
}

/** Opens a page, and gives its document and what the browser wrote on the page's console. */
export async function openPage(
  chromium: string,
  path: string,
): Promise<{ document: string; console: string[] }> {
  const profile = await Deno.makeTempDir({ prefix: "octograd-chromium-" });
  try {
    const logging = ["--enable-logging=stderr", "--v=0", "--dump-dom"];
    const { stdout, stderr } = await new Deno.Command(chromium, {
      args: [...ARGUMENTS, ...logging, `--user-data-dir=${profile}`, `file://${path}`],
      env: { HOME: profile, TMPDIR: profile },
    }).output();
    const [document, log] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    return { document, console: log.split("\n").filter((line) => /:CONSOLE[:(]/.test(line)) };
  } finally {
    await removed(profile);
  }
}

/** Files of tests as one module; esbuild has a separate lock, for those who have Chromium. */
async function bundle(files: readonly string[]): Promise<string> {
  const [page, config] = ["page.ts", "deno.json"].map((name) =>
    fileURLToPath(new URL(`../../bench/bundle/${name}`, import.meta.url))
  );
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--no-check", "--frozen", `--config=${config}`, page, ...files],
  }).output();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`Cannot bundle ${files.join(", ")}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** Serves the page, its module and what its tests read. */
async function serve(
  files: readonly string[],
  excluded: readonly string[],
  hear: (told: Told) => void,
): Promise<Deno.HttpServer<Deno.NetAddr>> {
  const [script, paths] = await Promise.all([bundle(files), readable()]);
  const host: Host = {
    cwd: Deno.cwd(),
    env: { FIXTURES: Deno.env.get("FIXTURES") },
    files: Object.fromEntries(paths.map((path, i) => [path, i])),
    excluded,
  };
  const contents: Readonly<Record<string, readonly [type: string, text: string]>> = {
    "/": ["text/html", PAGE],
    "/host.js": ["text/javascript", `host = ${JSON.stringify(host)};`],
    "/tests.js": ["text/javascript", script],
  };
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname in contents) {
      const [type, text] = contents[pathname];
      return new Response(text, { headers: { "content-type": `${type}; charset=utf-8` } });
    }
    const path = paths[Number(/^\/files\/(\d+)$/.exec(pathname)?.[1])];
    if (path) return new Response(await Deno.readFile(path));
    if (pathname !== "/told") return new Response(null, { status: 404 });
    hear(await request.json());
    return new Response();
  });
}

/** Chromium at a page. Disposing of it ends it. */
function launch(
  chromium: string,
  url: string,
  profile: string,
): { ended: Promise<string> } & AsyncDisposable {
  const child = new Deno.Command(chromium, {
    args: [...ARGUMENTS, `--user-data-dir=${profile}`, url],
    env: { HOME: profile, TMPDIR: profile }, // what it leaves behind goes with its profile
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const said = child.stderr.text();
  return {
    ended: child.status.then(async ({ code }) =>
      `Chromium ended with code ${code}: ${(await said).trim().split("\n").slice(-5).join("\n")}`
    ),
    async [Symbol.asyncDispose]() {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended by itself.
      }
      await child.status;
      await said;
    },
  };
}

/** Removes a directory into which processes that were just killed may still write. */
async function removed(directory: string): Promise<void> {
  for (let tries = 20;; tries--) {
    try {
      return await Deno.remove(directory, { recursive: true });
    } catch (error) {
      if (tries === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
