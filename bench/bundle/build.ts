/**
 * `deno task build`: bundles mod.ts and all it reaches into `dist/octograd.js`, an ES module for
 * browsers.
 *
 * @module
 */

import { build, stop } from "esbuild";
import { fileURLToPath } from "node:url";

/** Bundles mod.ts into `file`; what is published is minified. */
export async function bundle(file: URL, minify: boolean): Promise<void> {
  await build({
    entryPoints: [fileURLToPath(new URL("../../mod.ts", import.meta.url))],
    outfile: fileURLToPath(file),
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2023",
    sourcemap: true,
    logLevel: "warning",
    minify,
  });
  await stop();
}

if (import.meta.main) {
  const file = new URL("../../dist/octograd.js", import.meta.url);
  await bundle(file, true);
  const { size } = await Deno.stat(file);
  console.log(`dist/octograd.js: ${(size / 1000).toFixed(1)} kB`);
}
