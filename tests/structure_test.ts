import { assert, assertEquals, assertLess } from "@std/assert";

const ROOT = new URL("../", import.meta.url);
const ENTRIES = ["mod.ts", "blocklora/cli.ts", "blocklora/data/loader_worker.ts"];
const LAYERS = ["tensor", "kernels", "autograd", "clip", "blocklora"];
const ROOMS = [
  ["system"],
  ["data", "models", "cost"],
  ["methods"],
  ["training"],
  ["report"],
  ["commands"],
];
const UPWARD = [
  "blocklora/cost/memory_plan.ts → blocklora/training/trainer.ts",
  "blocklora/cost/step_cost.ts → blocklora/methods/lookup.ts",
  "blocklora/cost/step_cost.ts → blocklora/methods/method.ts",
  "blocklora/cost/step_cost.ts → blocklora/methods/recipe.ts",
  "blocklora/cost/step_cost.ts → blocklora/training/result.ts",
  "blocklora/cost/step_cost.ts → blocklora/training/trainer.ts",
];

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

/** A module and one that it imports, both from the root on. */
interface Import {
  readonly from: string;
  readonly to: string;
}

/** Every relative import of every module that the entries reach. */
async function relativeImports(): Promise<Import[]> {
  const modules = (await Promise.all(ENTRIES.map(graph))).flat();
  assertLess(60, modules.length);
  const path = (url: string) => url.slice(ROOT.href.length);
  const imports = modules.flatMap(({ specifier, dependencies = [] }) =>
    dependencies.filter((dependency) => dependency.specifier.startsWith("."))
      .map((dependency) => ({
        from: path(specifier),
        to: path(new URL(dependency.specifier, specifier).href),
      }))
  );
  return [...new Map(imports.map((each) => [`${each.from} ${each.to}`, each])).values()];
}

Deno.test("imports point one way: blocklora → clip → autograd → kernels → tensor", async () => {
  const layerOf = (path: string) => LAYERS.indexOf(path.split("/")[0]);
  for (const { from, to } of await relativeImports()) {
    if (layerOf(from) < 0 || to === "deno.json") continue; // of which the version is read
    assert(0 <= layerOf(to) && layerOf(to) <= layerOf(from), `${from} imports ${to}`);
  }
});

Deno.test("in blocklora: commands → report → training → methods → data, models, cost → system", async () => {
  const roomOf = (path: string) => path.match(/^blocklora\/(\w+)\//)?.[1];
  const levelOf = (room: string) => ROOMS.findIndex((rooms) => rooms.includes(room));
  const upward: string[] = [];
  for (const { from, to } of await relativeImports()) {
    const [importing, imported] = [roomOf(from), roomOf(to)];
    if (importing === undefined || !to.startsWith("blocklora/") || importing === imported) continue;
    assert(levelOf(importing) >= 0, `${from} is in no room`);
    if (imported === undefined || levelOf(imported) >= levelOf(importing)) {
      upward.push(`${from} → ${to}`);
    }
  }
  assertEquals(upward.sort(), UPWARD);
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
