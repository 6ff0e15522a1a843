/** What networks, proxies and busy hubs do to a download, and who gets the token. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { resolveModel } from "../blocklora/models/hub.ts";
import { assertHolds, COMMIT, filesIn, ID, LARGE, pathOf, SINGLE, WANTED, withHub } from "./hub.ts";

/** The warnings while `body` runs. */
async function warningsOf(body: () => Promise<unknown>): Promise<string[]> {
  const warnings: string[] = [];
  const { warn } = console;
  console.warn = (text: string) => warnings.push(text);
  try {
    await body();
  } finally {
    console.warn = warn;
  }
  return warnings;
}

/** An answer whose connection breaks after these bytes. */
function breaking(bytes: Uint8Array<ArrayBuffer>, status: number): Response {
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(bytes);
      setTimeout(() => controller.close(), 50);
    },
  });
  return new Response(body, { status, headers: { "content-length": `${LARGE.length}` } });
}

const isWeights = (path: string) => path.endsWith("/model.safetensors");

Deno.test("a hub that is silent is given up after HF_HUB_DOWNLOAD_TIMEOUT seconds", () =>
  withHub(SINGLE, async (hub) => {
    Deno.env.set("HF_HUB_DOWNLOAD_TIMEOUT", "0.5");
    const open = new Set<ReadableStreamDefaultController>();
    const silent = (bytes: Uint8Array) => {
      const body = new ReadableStream({
        start(controller) {
          open.add(controller);
          controller.enqueue(bytes);
        },
        cancel: () => open.clear(),
      });
      return new Response(body, { headers: { "content-length": `${LARGE.length}` } });
    };
    for (const [segment, kept] of [["/revision/", 0], ["/tree/", 0], ["model.safetensors", 7]]) {
      hub.intercept = (path) =>
        path.includes(`${segment}`) ? silent(LARGE.subarray(0, Number(kept))) : undefined;
      await assertRejects(() => pathOf(ID), Error, "has sent nothing for 0.5 s");
    }
    hub.intercept = () => undefined;
    Deno.env.delete("HF_HUB_DOWNLOAD_TIMEOUT");
    await assertHolds(await pathOf(ID), SINGLE, WANTED);
    assertEquals(hub.stored.at(-1)?.headers.get("range"), "bytes=7-");
  }));

Deno.test("a slow hub is not a silent one", () =>
  withHub(SINGLE, async (hub) => {
    Deno.env.set("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    hub.intercept = (path) => {
      if (!isWeights(path)) return undefined;
      let at = 0;
      return new Response(
        new ReadableStream({
          async pull(controller) {
            await new Promise((resolve) => setTimeout(resolve, 150));
            controller.enqueue(LARGE.subarray(at, at += LARGE.length / 10));
            if (at >= LARGE.length) controller.close();
          },
        }),
      );
    };
    await assertHolds(await pathOf(ID), SINGLE, WANTED);
  }));

Deno.test("a busy hub is asked again when it says, and not for ever", () =>
  withHub(SINGLE, async (hub) => {
    const busy = (status: number, headers: Record<string, string>, times: number) => {
      let left = times;
      hub.intercept = () => left-- > 0 ? new Response("busy", { status, headers }) : undefined;
    };
    busy(429, { "retry-after": "0" }, 3);
    await assertHolds(await pathOf(ID), SINGLE, WANTED);
    await Deno.remove(hub.cache, { recursive: true });
    busy(503, { "retry-after": new Date(Date.now() - 5000).toUTCString() }, 1);
    await pathOf(ID);
    await Deno.remove(hub.cache, { recursive: true });
    busy(429, { ratelimit: '"api";r=0;t=2' }, 1);
    assertEquals(
      await warningsOf(() => pathOf(ID)),
      [`${Deno.env.get("HF_ENDPOINT")!.slice(0, -1)} answers 429: ${ID} waits 2 s`],
    );
    await Deno.remove(hub.cache, { recursive: true });
    hub.requests.length = 0;
    busy(503, { "retry-after": "0" }, 100);
    await assertRejects(() => pathOf(ID), Error, "answers 503, try again later");
    assertEquals(hub.requests.length, 4);
    busy(429, { "retry-after": "3600" }, 100);
    await assertRejects(() => pathOf(ID), Error, "answers 429, try again in 3600 s");
  }));

Deno.test("a connection that breaks is made again from where it broke", () =>
  withHub(SINGLE, async (hub) => {
    const ranges: (string | null)[] = [];
    let breaks = 4;
    hub.intercept = (path, request) => {
      if (!isWeights(path) || !request.url.includes("signature")) return undefined;
      const range = request.headers.get("range");
      ranges.push(range);
      if (breaks-- === 0) return undefined;
      const from = Number(/\d+/.exec(range ?? "")?.[0] ?? 0);
      return breaking(LARGE.slice(from, from + 1000), from > 0 ? 206 : 200);
    };
    let [last, isRising] = [0, true];
    await assertHolds(
      await pathOf(ID, {
        onProgress({ received }) {
          isRising &&= received >= last;
          last = received;
        },
      }),
      SINGLE,
      WANTED,
    );
    assert(isRising);
    assertEquals(ranges, [null, ...[1, 2, 3, 4].map((i) => `bytes=${1000 * i}-`)]);
  }));

Deno.test("a hub without ranges sends the whole file again", () =>
  withHub(SINGLE, async (hub) => {
    let breaks = 1;
    hub.intercept = (path, request) => {
      if (!isWeights(path) || !request.url.includes("signature")) return undefined;
      if (breaks-- === 0) return new Response(LARGE.slice());
      return breaking(LARGE.slice(0, 70_000), 200);
    };
    await assertHolds(await pathOf(ID), SINGLE, WANTED);
  }));

Deno.test("a file without an end is given up", () =>
  withHub(SINGLE, async (hub) => {
    hub.intercept = (path) =>
      isWeights(path)
        ? new Response(
          new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)) }),
        )
        : undefined;
    await assertRejects(() => pathOf(ID), Error, "what arrived is not what the hub lists");
  }));

Deno.test("a small file that was damaged in the cache is fetched again, or named", () =>
  withHub(SINGLE, async (hub) => {
    const directory = await pathOf(ID);
    for (const damage of ["#version: 0.3\n", ""]) {
      await Deno.writeTextFile(`${directory}/merges.txt`, damage);
      await assertRejects(
        () => pathOf(ID, { offline: true }),
        Error,
        `merges.txt in ${directory} is damaged`,
      );
      hub.requests.length = 0;
      assertEquals(await pathOf(ID), directory);
      await assertHolds(directory, SINGLE, WANTED);
      const fetched = hub.requests.filter((path) => path.includes("/resolve/"));
      assertEquals(fetched, [`/${ID}/resolve/${COMMIT}/merges.txt`]);
    }
  }));

Deno.test("a login page is not taken for an answer", () =>
  withHub(SINGLE, async (hub) => {
    const headers = { "content-type": "text/html; charset=utf-8" };
    for (const segment of ["/revision/", "/tree/", "merges.txt", "model.safetensors"]) {
      hub.intercept = (path) =>
        path.includes(segment)
          ? new Response("<html>Please log in</html>", { headers })
          : undefined;
      await assertRejects(() => pathOf(ID), Error, "may be the login page of a network");
    }
    hub.intercept = () => undefined;
    await assertHolds(await pathOf(ID), SINGLE, WANTED);
  }));

Deno.test("the token of hf auth login is sent, unless HF_TOKEN or the user says otherwise", () =>
  withHub(SINGLE, async (hub) => {
    const home = Deno.env.get("HF_HOME")!;
    const seen = new Set<string | null>();
    hub.intercept = (_, request) => {
      if (!request.url.includes("signature")) seen.add(request.headers.get("authorization"));
      return undefined;
    };
    const sent = async () => {
      seen.clear();
      await Deno.remove(hub.cache, { recursive: true }).catch(() => {});
      await pathOf(ID);
      assert(hub.stored.every(({ headers }) => !headers.has("authorization")));
      return [...seen];
    };
    assertEquals(await sent(), [null]);
    await Deno.writeTextFile(`${home}/token`, "hf_stored\n");
    assertEquals(await sent(), ["Bearer hf_stored"]);
    await Deno.writeTextFile(`${home}/another`, "hf_another");
    Deno.env.set("HF_TOKEN_PATH", `${home}/another`);
    assertEquals(await sent(), ["Bearer hf_another"]);
    Deno.env.set("HF_TOKEN", "hf_named\r\n");
    assertEquals(await sent(), ["Bearer hf_named"]);
    Deno.env.set("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    assertEquals(await sent(), [null]);
  }));

Deno.test("a next page on another host gets no token", () =>
  withHub({ ...SINGLE }, async (hub) => {
    Deno.env.set("HF_TOKEN", "hf_secret");
    const options = { port: 0, hostname: "127.0.0.1", onListen: () => {} };
    const tokens: (string | null)[] = [];
    await using other = Deno.serve(options, (request) => {
      tokens.push(request.headers.get("authorization"));
      return Response.json([]);
    });
    hub.intercept = (path) => {
      if (!path.includes("/tree/")) return undefined;
      const link = `<http://127.0.0.1:${other.addr.port}/tree>; rel="next"`;
      return Response.json([], { headers: { link } });
    };
    await assertRejects(() => pathOf(ID), Error, "it has no model.safetensors");
    assertEquals(tokens, [null]);
  }));

Deno.test("a token over http to another machine is warned of", () =>
  withHub(SINGLE, async () => {
    Deno.env.set("HF_TOKEN", "hf_secret");
    const here = Deno.env.get("HF_ENDPOINT")!;
    const endpoint = "http://octograd.invalid";
    Deno.env.set("HF_ENDPOINT", endpoint);
    const warnings = await warningsOf(() => assertRejects(() => pathOf(ID), Error, "reached"));
    assertEquals(warnings, [`The token of the hub is sent to ${endpoint} as plain text`]);
    Deno.env.set("HF_ENDPOINT", here);
    assertEquals(await warningsOf(() => pathOf(ID)), []);
  }));

Deno.test("an HF_ENDPOINT that is no URL is named", () =>
  withHub(SINGLE, async () => {
    for (const endpoint of ["localhost:8080", "ftp://hub", "https://", "https://a b"]) {
      Deno.env.set("HF_ENDPOINT", endpoint);
      await assertRejects(() => pathOf(ID), Error, `Cannot use the hub: HF_ENDPOINT is "`);
    }
  }));

Deno.test("HF_HOME may be relative, begin with ~ or name variables", () =>
  withHub(SINGLE, async () => {
    const typedIn = await Deno.makeTempDir();
    const home = Deno.env.get("HOME");
    try {
      Deno.env.set("INIT_CWD", typedIn);
      Deno.env.set("HOME", `${typedIn}/home`);
      Deno.env.set("SCRATCH", `${typedIn}/scratch`);
      const places = {
        "hf": "hf/hub",
        "./a/../b": "b/hub",
        "~/hf": "home/hf/hub",
        "$SCRATCH/hf": "scratch/hf/hub",
        "${SCRATCH}": "scratch/hub",
        "": "home/.cache/huggingface/hub",
      };
      for (const [value, place] of Object.entries(places)) {
        Deno.env.set("HF_HOME", value);
        const { path, hub: found } = await resolveModel(ID);
        assertEquals(path, `${typedIn}/${place}/models--someone--tiny-clip/snapshots/${COMMIT}`);
        assertEquals(found?.commit, COMMIT);
      }
    } finally {
      if (home === undefined) Deno.env.delete("HOME");
      else Deno.env.set("HOME", home);
      await Deno.remove(typedIn, { recursive: true });
    }
  }));

Deno.test("bytes that an earlier process left are used only if they are right", () =>
  withHub(SINGLE, async (hub) => {
    const directory = await pathOf(ID);
    const link = await Deno.readLink(`${directory}/model.safetensors`);
    const blob = `${directory}/${link}`;
    const wrong = "what arrived is not what the hub lists";
    const cases: [Uint8Array, boolean][] = [
      [LARGE.slice(0, 9), true],
      [LARGE.slice(1, 9), false],
      [LARGE.slice(1), false],
      [new Uint8Array(2 * LARGE.length), true], // too long to be its beginning
    ];
    for (const [left, isRight] of cases) {
      await Deno.remove(`${directory}/model.safetensors`);
      await Deno.remove(blob);
      await Deno.writeFile(`${blob}.octograd.incomplete`, left);
      if (!isRight) await assertRejects(() => pathOf(ID), Error, wrong);
      await assertHolds(await pathOf(ID), SINGLE, WANTED);
      assert(!filesIn(`${hub.cache}/blobs`).some((name) => name.includes("incomplete")));
    }
  }));
