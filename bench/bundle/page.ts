/**
 * A file of tests as one module for a page: `page.ts FILE` prints it.
 *
 * @module
 */

import { build, type Plugin, stop } from "esbuild";
import { fileURLToPath, pathToFileURL } from "node:url";

const ROOT = new URL("../../", import.meta.url);
const pathOf = (path: string) => fileURLToPath(new URL(path, ROOT));

/** What deno.json has from JSR, where JSR is out of reach. */
const STD: Readonly<Record<string, string>> = {
  "@std/assert": pathOf("tests/std/assert/mod.ts"),
  "@std/cli/parse-args": pathOf("tests/std/cli/parse_args.ts"),
};

/** Gives modules their own URLs, by which they find their files, and node.ts in place of Node's and npm's. */
const PAGE: Plugin = {
  name: "page",
  setup({ onResolve, onLoad }) {
    onResolve(
      { filter: /^[^./]/ },
      ({ path }) => path in STD ? { path: STD[path] } : { path, namespace: "absent" },
    );
    onLoad({ filter: /./, namespace: "absent" }, () => ({
      // An import of what it lacks would be an error, and so is undefined.
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

/** Bundles a file of `tests/`, unchanged, into a module that exports `run()`. */
async function bundle(file: string): Promise<string> {
  const { outputFiles: [{ text }] } = await build({
    stdin: {
      contents: `export { run } from "./browser/deno.ts"; import "./${file}";`,
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

await Deno.stdout.write(new TextEncoder().encode(await bundle(Deno.args[0])));
await stop();
