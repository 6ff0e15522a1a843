/**
 * `page.ts FILE...` prints files of tests as one module, for a browser's page.
 *
 * @module
 */

import { build, type Plugin, stop } from "esbuild";
import { fileURLToPath, pathToFileURL } from "node:url";

const ROOT = new URL("../../", import.meta.url);
const pathOf = (path: string) => fileURLToPath(new URL(path, ROOT));

/** The local packages that stand for JSR's, as `links` of deno.json has them. */
const STD: Readonly<Record<string, string>> = {
  "@std/assert": pathOf("tests/std/assert/mod.ts"),
  "@std/cli/parse-args": pathOf("tests/std/cli/parse_args.ts"),
};

/**
 * Gives every module its URL, by which it finds its files, and gives it `node.ts` for all modules
 * of Node and npm.
 */
const PAGE: Plugin = {
  name: "page",
  setup({ onResolve, onLoad }) {
    onResolve(
      { filter: /^[^./]/ },
      ({ path }) => path in STD ? { path: STD[path] } : { path, namespace: "absent" },
    );
    onLoad({ filter: /./, namespace: "absent" }, () => ({
      // As CommonJS, because then an import of what node.ts lacks is undefined and no error.
      contents: 'module.exports = require("./node.ts")',
      resolveDir: pathOf("tests/browser/"),
    }));
    onLoad({ filter: /\.ts$/ }, async ({ path }) => {
      const source = await Deno.readTextFile(path);
      const url = JSON.stringify(pathToFileURL(path).href);
      return { contents: source.replaceAll("import.meta.url", url), loader: "ts" };
    });
  },
};

/**
 * Bundles files of `tests/`, unchanged, into one module. It exports `run()` and `FILES`, which load
 * each file when its turn comes: all files share one engine, so each kernel is compiled once.
 */
async function bundle(files: readonly string[]): Promise<string> {
  const loads = files.map((file) => `${JSON.stringify(file)}: () => import("./${file}")`);
  const { outputFiles: [{ text }] } = await build({
    stdin: {
      contents: `export { run } from "./browser/deno.ts"; export const FILES = { ${loads} };`,
      resolveDir: pathOf("tests/"),
    },
    plugins: [PAGE],
    bundle: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2023",
    logLevel: "error",
  });
  return text;
}

await Deno.stdout.write(new TextEncoder().encode(await bundle(Deno.args)));
await stop();
