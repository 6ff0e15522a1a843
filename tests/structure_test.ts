import { assert, assertEquals, assertLess } from "@std/assert";

const ROOT = new URL("../", import.meta.url);
const LAYERS = ["tensor", "kernels", "autograd", "clip", "blocklora"];

interface Module {
  readonly specifier: string;
  readonly dependencies?: readonly { readonly specifier: string }[];
}

/** The modules that an entry reaches, as Deno sees them: types and text imports too. */
async function graph(entry: string): Promise<Module[]> {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "--no-lock", entry],
    cwd: ROOT,
  }).output();
  const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as { modules: Module[] };
  return modules.filter(({ specifier }) => specifier.startsWith(ROOT.href));
}

Deno.test("imports point one way: blocklora → clip → autograd → kernels → tensor", async () => {
  const entries = ["mod.ts", "blocklora/cli.ts", "blocklora/data/loader_worker.ts"];
  const modules = (await Promise.all(entries.map(graph))).flat();
  assertLess(60, modules.length);
  const layerOf = (url: URL) => url.href.slice(ROOT.href.length).split("/")[0];
  for (const { specifier, dependencies = [] } of modules) {
    const level = LAYERS.indexOf(layerOf(new URL(specifier)));
    for (const dependency of dependencies) {
      if (level < 0 || !dependency.specifier.startsWith(".")) continue;
      if (dependency.specifier === "../../deno.json") continue; // the version
      const target = LAYERS.indexOf(layerOf(new URL(dependency.specifier, specifier)));
      assert(0 <= target && target <= level, `${specifier} imports ${dependency.specifier}`);
    }
  }
});

/** The folders of blocklora, each of which imports only from itself and from later ones. */
const FOLDERS = ["commands", "report", "training", "methods", "data|models|cost", "system"];

Deno.test(`within blocklora imports point one way: ${FOLDERS.join(" → ")}`, async () => {
  const entries = ["blocklora/cli.ts", "blocklora/mod.ts", "blocklora/data/loader_worker.ts"];
  const modules = (await Promise.all(entries.map(graph))).flat();
  const folderOf = (url: URL) => /^blocklora\/(\w+)\//.exec(url.href.slice(ROOT.href.length))?.[1];
  const levelOf = (folder: string) =>
    FOLDERS.findIndex((names) => names.split("|").includes(folder));
  const visited = new Set<string>();
  for (const { specifier, dependencies = [] } of modules) {
    const folder = folderOf(new URL(specifier));
    if (folder === undefined) continue;
    visited.add(folder);
    for (const dependency of dependencies) {
      if (!dependency.specifier.startsWith(".")) continue;
      const target = folderOf(new URL(dependency.specifier, specifier));
      if (target === undefined || target === folder) continue;
      const message = `${specifier} imports ${dependency.specifier}`;
      assertLess(levelOf(folder), levelOf(target), message);
    }
  }
  assertEquals(visited.size, FOLDERS.join("|").split("|").length);
});

Deno.test("mod.ts reaches relative specifiers with extensions only, and no Deno.*", async () => {
  const modules = await graph("mod.ts");
  assertLess(40, modules.length);
  for (const { specifier, dependencies = [] } of modules) {
    for (const dependency of dependencies) {
      const relative = /^\.{1,2}\/.*\.(ts|wgsl)$/.test(dependency.specifier);
      assert(relative, `${specifier} imports "${dependency.specifier}"`);
    }
    const source = await Deno.readTextFile(new URL(specifier));
    const code = source.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "");
    assert(!/\bDeno\./.test(code), `${specifier} uses Deno.*`);
  }
});

Deno.test("no module has state, except which engine is current", async () => {
  const found: string[] = [];
  const search = async (folder: string) => {
    for await (const { name, isDirectory } of Deno.readDir(new URL(folder, ROOT))) {
      if (isDirectory) await search(`${folder}${name}/`);
      else if (name.endsWith(".ts")) {
        const source = await Deno.readTextFile(new URL(folder + name, ROOT));
        const state =
          /^(?:export )?(?:let (\w+)|const (\w+) = (?:new (?:Weak)?(?:Map|Set)|\[\]))/gm;
        for (const [, a, b] of source.matchAll(state)) found.push(`${folder}${name}: ${a ?? b}`);
      }
    }
  };
  for (const folder of ["tensor/", "kernels/", "autograd/"]) await search(folder);
  assertEquals(found.sort(), ["tensor/device.ts: starting", "tensor/engine.ts: current"]);
});
