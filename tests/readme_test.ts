/** Runs the README's program as somebody would who has only the URL of `mod.ts`. */

import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { withDirectory } from "./cli.ts";

const ROOT = new URL("../", import.meta.url);

Deno.test("the README's program trains from a URL, and prints what the README says", async () => {
  const readme = await Deno.readTextFile(new URL("README.md", ROOT));
  const [, program] = /```ts\n(import \* as octograd [^]*?)```/.exec(readme)!;
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    async (request) => {
      const { pathname } = new URL(request.url);
      const file = await Deno.readFile(new URL(`.${pathname}`, ROOT)).catch(() => null);
      const type = pathname.endsWith(".ts") ? "application/typescript" : "text/plain";
      return new Response(file, { status: file ? 200 : 404, headers: { "content-type": type } });
    },
  );
  const host = `127.0.0.1:${server.addr.port}`;
  await withDirectory(async (directory) => {
    const path = join(directory, "program.ts");
    await Deno.writeTextFile(path, program.replaceAll("./mod.ts", `http://${host}/mod.ts`));
    const allowed = [`--allow-import=${host}`, `--allow-net=${host}`];
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--check", "--no-prompt", "--no-lock", "--no-config", ...allowed, path],
    }).output();
    const decoder = new TextDecoder();
    assert(success, decoder.decode(stderr));
    const comments = [...program.matchAll(/console\.log\(.*\/\/ (.*)/g)].flatMap(([, said]) =>
      said.split(", then ")
    );
    assertEquals(decoder.decode(stdout).trim().split("\n"), comments);
  });
});
