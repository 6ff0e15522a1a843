import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import {
  assertHolds,
  COMMIT,
  filesIn,
  ID,
  LARGE,
  pathOf,
  sha256,
  SINGLE,
  WANTED,
  withHub,
} from "./hub.ts";

const MODULE = new URL("../blocklora/models/hub.ts", import.meta.url);
const CONFIG = fileURLToPath(new URL("../deno.json", import.meta.url));

/** Resolves the model in another process. */
function child(): Deno.ChildProcess {
  const program = `import { resolveModel } from ${JSON.stringify(MODULE.href)};
    console.log((await resolveModel(${JSON.stringify(ID)})).path);`;
  return new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--no-check",
      "--no-lock",
      "--config",
      CONFIG,
      `data:application/typescript,${encodeURIComponent(program)}`,
    ],
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

Deno.test("resolveModel() goes on after a process was killed during a download", () =>
  withHub(SINGLE, async (hub) => {
    let stalled: ReadableStreamDefaultController | undefined;
    hub.intercept = (path) => {
      if (!path.endsWith("/model.safetensors")) return undefined;
      const body = new ReadableStream({
        start(controller) {
          stalled = controller;
          controller.enqueue(LARGE.subarray(0, LARGE.length / 2));
        },
      });
      return new Response(body, { headers: { "content-length": `${LARGE.length}` } });
    };
    const process = child();
    const output = process.output();
    const ended = output.then(({ stderr }) => new TextDecoder().decode(stderr));
    const incomplete = `${hub.cache}/blobs/${sha256(LARGE)}.octograd.incomplete`;
    for (let size = 0; size < LARGE.length / 2;) {
      size = await Deno.stat(incomplete).then(({ size }) => size, () => 0);
      const soon = new Promise<void>((resolve) => setTimeout(resolve, 20));
      const said = await Promise.race([ended, soon]);
      if (typeof said === "string") throw new Error(said);
    }
    process.kill("SIGKILL");
    await output;
    try {
      stalled?.close();
    } catch {
      // The server has already noticed.
    }
    const left = filesIn(`${hub.cache}/blobs`).filter((name) => name.endsWith(".incomplete"));
    assertEquals(left.length, 1);
    assertEquals((await Deno.stat(`${hub.cache}/blobs/${left[0]}`)).size, LARGE.length / 2);
    assert(!filesIn(`${hub.cache}/snapshots/${COMMIT}`).includes("model.safetensors"));
    await assertRejects(() => pathOf(ID, { offline: true }), Error, "offline");
    hub.intercept = () => undefined;
    await assertHolds(await pathOf(ID), SINGLE, WANTED);
    assertEquals(hub.stored.at(-1)?.headers.get("range"), `bytes=${LARGE.length / 2}-`);
    assert(!filesIn(`${hub.cache}/blobs`).some((name) => name.includes("incomplete")));
  }));

Deno.test("resolveModel() from two processes fetches every file once and prints nothing", () =>
  withHub(SINGLE, async (hub) => {
    const outputs = await Promise.all([child().output(), child().output()]);
    for (const { stdout, stderr, success } of outputs) {
      assert(success, new TextDecoder().decode(stderr));
      const directory = new TextDecoder().decode(stdout);
      assertEquals(directory, `${hub.cache}/snapshots/${COMMIT}\n`);
      assertEquals(new TextDecoder().decode(stderr), "");
    }
    await assertHolds(`${hub.cache}/snapshots/${COMMIT}`, SINGLE, WANTED);
    const weights = hub.requests.filter((path) => path.endsWith("/model.safetensors"));
    assertEquals(weights.length, 1);
    assertStringIncludes(hub.requests[0], "/revision/main");
  }));
