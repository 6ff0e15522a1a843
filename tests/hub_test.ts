import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { fetchJson, resolveModel } from "../blocklora/models/hub.ts";
import {
  assertHolds,
  bytesOf,
  COMMIT,
  filesIn,
  ID,
  LARGE,
  OTHER_COMMIT,
  pathOf,
  SHARDED,
  SINGLE,
  WANTED,
  withHub,
} from "./hub.ts";

Deno.test("resolveModel() takes an existing path as it is", async () => {
  const directory = await Deno.makeTempDir();
  try {
    assertEquals(await pathOf(directory), directory);
    await Deno.writeTextFile(`${directory}/a.safetensors`, "");
    assertEquals(await pathOf(`${directory}/a.safetensors`), `${directory}/a.safetensors`);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("resolveModel() refuses what is neither a path nor an id", async () => {
  for (
    const spec of [
      "missing",
      "./a/b",
      "/no/where",
      "a/b/c",
      "a/",
      "",
      "../no-such-path",
      "someone/na me",
    ]
  ) {
    await assertRejects(() => pathOf(spec), Error, `Cannot find the model "${spec}"`);
  }
  for (const revision of ["../../x", "", "/x", "a b"]) {
    await assertRejects(() => pathOf(ID, { revision }), Error, "is no revision");
  }
});

Deno.test("resolveModel() fetches what is needed into the standard cache, once", () =>
  withHub(SINGLE, async (hub) => {
    const seen: number[] = [];
    let total = 0;
    const directory = await pathOf(ID, {
      onProgress: (progress) => {
        seen.push(progress.received);
        total = progress.total;
      },
    });
    assertEquals(directory, `${hub.cache}/snapshots/${COMMIT}`);
    await assertHolds(directory, SINGLE, WANTED);
    assertEquals(await Deno.readTextFile(`${hub.cache}/refs/main`), COMMIT);
    for (const name of WANTED) {
      const target = await Deno.readLink(`${directory}/${name}`);
      assertMatch(target, /^\.\.\/\.\.\/blobs\/[0-9a-f]{40,64}$/);
    }
    assertEquals(filesIn(`${hub.cache}/blobs`).filter((name) => !/^[0-9a-f]+$/.test(name)), []);
    const fetched = hub.requests.filter((path) => path.includes("/resolve/"));
    assertEquals(fetched.length, WANTED.length);
    assert(!fetched.some((path) => /bin|README|onnx/.test(path)));
    const size = WANTED.reduce((sum, name) => sum + bytesOf(SINGLE[name]).length, 0);
    assertEquals([seen.at(-1), total], [size, size]);
    assert(seen.every((value, i) => i === 0 || value >= seen[i - 1]));

    hub.requests.length = 0;
    assertEquals(await pathOf(ID), directory);
    assertEquals(await pathOf(ID, { offline: true }), directory);
    assertEquals(await pathOf(ID, { revision: COMMIT }), directory);
    assertEquals(hub.requests, []);
  }));

Deno.test("resolveModel() fetches the shards that the index names", () =>
  withHub(SHARDED, async () => {
    const directory = await pathOf(ID);
    await assertHolds(directory, SHARDED, Object.keys(SHARDED).slice(0, 7));
    await Deno.remove(`${directory}/model-00002-of-00002.safetensors`);
    await assertRejects(() => pathOf(ID, { offline: true }), Error, "offline");
    await pathOf(ID);
    await assertHolds(directory, SHARDED, Object.keys(SHARDED).slice(0, 7));
  }));

Deno.test("resolveModel() refuses an index that leaves the repository", () =>
  withHub({ ...SHARDED }, async (hub) => {
    const refused: [unknown, string][] = [
      [{ weight_map: { a: "../../x.safetensors" } }, "its weight_map must name"],
      [{ weight_map: { a: "/x.safetensors" } }, "its weight_map must name"],
      [{ weight_map: { a: 3 } }, "its weight_map must name"],
      [{ weight_map: {} }, "its weight_map must name"],
      [{}, "Cannot read"],
      [{ weight_map: { a: "a.safetensors" } }, "names a.safetensors, which it lacks"],
    ];
    for (const [i, [index, message]] of refused.entries()) {
      hub.commit = `${i}`.repeat(40);
      hub.files["model.safetensors.index.json"] = JSON.stringify(index);
      await assertRejects(() => pathOf(ID), Error, message);
    }
  }));

Deno.test("resolveModel() keeps revisions apart and shares their blobs", () =>
  withHub({ ...SINGLE }, async (hub) => {
    const old = await pathOf(ID, { revision: "v1" });
    const files = { ...SINGLE, "config.json": '{"model_type": "clip", "new": 1}' };
    hub.pulls.push({ number: 1, commit: OTHER_COMMIT, files });
    hub.requests.length = 0;
    const pull = await pathOf(ID, { revision: "refs/pr/1" });
    assertEquals(pull, `${hub.cache}/snapshots/${OTHER_COMMIT}`);
    await assertHolds(old, SINGLE, WANTED);
    await assertHolds(pull, files, WANTED);
    const fetched = hub.requests.filter((path) => path.includes("/resolve/"));
    assertEquals(fetched, [`/${ID}/resolve/${OTHER_COMMIT}/config.json`]);
    assertEquals(await pathOf(ID, { revision: "v1", offline: true }), old);
    assertEquals(await pathOf(ID, { revision: "refs/pr/1", offline: true }), pull);
    await assertRejects(
      () => pathOf(ID, { offline: true }),
      Error,
      `Cannot use "${ID}" offline: revision main is not in`,
    );
  }));

Deno.test("resolveModel() honours HF_HUB_CACHE, HF_TOKEN and HF_HUB_OFFLINE", () =>
  withHub(SINGLE, async (hub) => {
    const tokens = new Set<string | null>();
    hub.intercept = (path, request) => {
      const isHubs = /^\/(api\/models\/)?someone\//.test(path);
      if (isHubs) tokens.add(request.headers.get("authorization"));
      return undefined;
    };
    const elsewhere = await Deno.makeTempDir();
    try {
      Deno.env.set("HF_HUB_CACHE", elsewhere);
      Deno.env.set("HF_TOKEN", "hf_secret");
      Deno.env.set("HF_HUB_OFFLINE", "1");
      await assertRejects(() => pathOf(ID), Error, "HF_HUB_OFFLINE");
      assertEquals(hub.requests, []);
      Deno.env.set("HF_HUB_OFFLINE", "0");
      const directory = await pathOf(ID);
      assertEquals(directory, `${elsewhere}/models--someone--tiny-clip/snapshots/${COMMIT}`);
      assertEquals([...tokens], ["Bearer hf_secret"]);
      // The token must not reach the host that the hub redirects to.
      assertEquals(hub.stored.map(({ headers }) => headers.get("authorization")), [null]);
      Deno.env.set("HF_HUB_OFFLINE", "TRUE");
      assertEquals(await pathOf(ID), directory);
    } finally {
      await Deno.remove(elsewhere, { recursive: true });
    }
  }));

Deno.test("resolveModel() says what the hub refuses, and caches nothing", () =>
  withHub({ ...SINGLE }, async (hub) => {
    const refusals: [number, string][] = [
      [401, "set HF_TOKEN"],
      [403, "set HF_TOKEN"],
      [404, "there is no such path here"],
      [500, "answers 500, try again later"],
    ];
    for (const [status, message] of refusals) {
      for (const segment of ["/revision/", "/tree/", "/resolve/"]) {
        hub.intercept = (path) =>
          path.includes(segment) ? new Response("<html>\n</html>", { status }) : undefined;
        const error = await assertRejects(() => pathOf(ID), Error, message);
        assert(error.message.startsWith(`Cannot fetch "${ID}"`), error.message);
        assert(!error.message.includes("\n"));
      }
    }
    hub.intercept = () => undefined;
    await assertRejects(() => pathOf(ID, { revision: "v9" }), Error, "revision v9");
    await assertRejects(() => pathOf("other/name"), Error, "no such model");
    Deno.env.set("HF_TOKEN", "hf_bad");
    hub.intercept = () => new Response(null, { status: 403 });
    await assertRejects(() => pathOf(ID), Error, "check HF_TOKEN");
    hub.intercept = () => undefined;
    for (const name of ["model.safetensors", "pytorch_model.bin"]) delete hub.files[name];
    hub.files["tf_model.h5"] = "";
    await assertRejects(
      () => pathOf(ID),
      Error,
      "it has no model.safetensors, only tf_model.h5",
    );
    await assertRejects(() => pathOf(ID, { offline: true }), Error, "offline");
  }));

Deno.test("resolveModel() without a network uses the cache, or says so", () =>
  withHub({ ...SINGLE }, async (hub) => {
    delete hub.files["preprocessor_config.json"]; // so that the cache may be incomplete
    const nowhere = "http://127.0.0.1:9";
    const endpoint = Deno.env.get("HF_ENDPOINT")!;
    Deno.env.set("HF_ENDPOINT", nowhere);
    await assertRejects(() => pathOf(ID), Error, `${nowhere} cannot be reached`);
    Deno.env.set("HF_ENDPOINT", endpoint);
    const directory = await pathOf(ID);
    Deno.env.set("HF_ENDPOINT", nowhere);
    assertEquals(await pathOf(ID), directory);
  }));

Deno.test("resolveModel() completes a snapshot that another program began", () =>
  withHub(SINGLE, async (hub) => {
    const directory = await pathOf(ID);
    for (const name of ["merges.txt", "tokenizer.json"]) await Deno.remove(`${directory}/${name}`);
    assertEquals(await pathOf(ID, { offline: true }), directory);
    hub.requests.length = 0;
    await pathOf(ID);
    await assertHolds(directory, SINGLE, WANTED);
    assertEquals(hub.requests.filter((path) => path.includes("/resolve/")), []);
  }));

Deno.test("resolveModel() never takes wrong or missing bytes for a file", () =>
  withHub(SINGLE, async (hub) => {
    const wrong = LARGE.slice();
    wrong[5]++;
    const broken = () =>
      new ReadableStream({
        start(controller) {
          controller.enqueue(LARGE.subarray(0, 1000));
          setTimeout(() => controller.close(), 50);
        },
      });
    const answers = [
      () => new Response(wrong),
      () => new Response(LARGE.slice(1)),
      () => new Response(null),
      () => new Response(broken(), { headers: { "content-length": `${LARGE.length}` } }),
    ];
    for (const answer of answers) {
      hub.intercept = (path) => path.endsWith("/model.safetensors") ? answer() : undefined;
      await assertRejects(() => pathOf(ID), Error, "Cannot fetch model.safetensors: ");
      assert(!filesIn(`${hub.cache}/snapshots/${COMMIT}`).includes("model.safetensors"));
    }
    hub.intercept = () => undefined;
    await assertHolds(await pathOf(ID), SINGLE, WANTED);
    assert(!filesIn(`${hub.cache}/blobs`).some((name) => name.includes("incomplete")));
  }));

Deno.test("resolveModel() follows a repository to its new name", () =>
  withHub(SINGLE, async (hub) => {
    const directory = await pathOf("former/tiny-clip");
    assertEquals(directory, `${hub.cache.replace("someone", "former")}/snapshots/${COMMIT}`);
    await assertHolds(directory, SINGLE, WANTED);
  }));

Deno.test("resolveModel() ignores a path of the same name when only the hub is meant", () =>
  withHub(SINGLE, async (hub) => {
    const before = Deno.cwd();
    const directory = await Deno.makeTempDir();
    try {
      Deno.chdir(directory);
      await Deno.mkdir(ID, { recursive: true });
      assertEquals((await resolveModel(ID)).hub, null);
      assertEquals((await resolveModel(ID, { onlyHub: true })).hub?.commit, COMMIT);
    } finally {
      Deno.chdir(before);
      await Deno.remove(directory, { recursive: true });
    }
    assert(hub.requests.length > 0);
  }));

Deno.test("fetchJson() reads a file of a repository, from the cache if it is there", () =>
  withHub(SINGLE, async (hub) => {
    assertEquals(await fetchJson(ID, "config.json"), { model_type: "clip" });
    assertEquals(await fetchJson(ID, "open_clip_config.json"), null);
    assertEquals(await fetchJson("other/name", "config.json"), null);
    hub.intercept = () => new Response("<html>");
    await assertRejects(() => fetchJson(ID, "config.json"), Error, "it is not JSON");
    hub.intercept = () => undefined;
    await pathOf(ID);
    hub.requests.length = 0;
    assertEquals(await fetchJson(ID, "config.json"), { model_type: "clip" });
    assertEquals(hub.requests, []);
  }));
