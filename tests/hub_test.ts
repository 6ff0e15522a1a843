import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { resolveModel, type ResolveOptions } from "../blocklora/hub.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT = "fedcba9876543210fedcba9876543210fedcba98";
const ID = "owner/tiny-clip";
const LARGE = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) >> 3);

type Files = Record<string, string | Uint8Array<ArrayBuffer>>;

const SINGLE: Files = {
  "config.json": '{"model_type": "clip"}',
  "preprocessor_config.json": "{}",
  "vocab.json": '{"grün": 1}',
  "merges.txt": "#version: 0.2\n",
  "tokenizer.json": '{"version": "1.0"}',
  "model.safetensors": LARGE,
  "pytorch_model.bin": "never to be fetched",
  "README.md": "never to be fetched",
  "onnx/model.onnx": "never to be fetched",
};

const INDEX = {
  weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" },
};
const SHARDED: Files = {
  "config.json": "{}",
  "vocab.json": "{}",
  "merges.txt": "",
  "preprocessor_config.json": "{}",
  "model.safetensors.index.json": JSON.stringify(INDEX),
  "model-00001-of-00002.safetensors": LARGE.slice(0, 1000),
  "model-00002-of-00002.safetensors": LARGE.slice(1000, 5000),
  "model-00003-of-00003.safetensors": "named by no index",
};

const bytesOf = (content: string | Uint8Array<ArrayBuffer>) =>
  typeof content === "string" ? new TextEncoder().encode(content) : content;

/** A hub that holds one repository, and what it was asked for. */
interface Hub {
  files: Files;
  commit: string;
  /** Answers instead of the hub, where it returns a response. */
  intercept: (path: string, request: Request) => Response | undefined;
  readonly requests: string[];
  readonly cache: string;
}

function respond(hub: Hub, request: Request): Response {
  const path = decodeURIComponent(new URL(request.url).pathname);
  hub.requests.push(path);
  const intercepted = hub.intercept(path, request);
  if (intercepted) return intercepted;
  const revision = path.match(`^/api/models/${ID}/revision/(.+)$`)?.[1];
  if (revision && ["main", "refs/pr/1", "v1", hub.commit].includes(revision)) {
    return Response.json({ _id: "1", id: ID, sha: hub.commit, lastModified: "2026-01-01" });
  }
  if (path === `/api/models/${ID}/tree/${hub.commit}`) {
    return Response.json([
      { type: "directory", path: "onnx", size: 0, oid: "0".repeat(40) },
      ...Object.entries(hub.files).map(([path, content]) => {
        const bytes = bytesOf(content);
        const entry = { type: "file", path, size: bytes.length };
        const oid = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
        if (!path.endsWith(".safetensors")) return { ...entry, oid };
        const sha256 = createHash("sha256").update(bytes).digest("hex");
        return { ...entry, oid, lfs: { oid: sha256, size: bytes.length, pointerSize: 130 } };
      }),
    ]);
  }
  const file = path.match(`^/${ID}/resolve/${hub.commit}/(.+)$`)?.[1];
  if (file && file in hub.files) return new Response(bytesOf(hub.files[file]));
  return new Response("not found", { status: 404 });
}

/** Runs `body` with a hub on this machine, an empty cache, and an environment that names both. */
async function withHub(files: Files, body: (hub: Hub) => Promise<void>): Promise<void> {
  const home = await Deno.makeTempDir();
  const hub: Hub = {
    files,
    commit: COMMIT,
    intercept: () => undefined,
    requests: [],
    cache: `${home}/hub/models--owner--tiny-clip`,
  };
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen: () => {} },
    (request) => respond(hub, request),
  );
  const environment: Record<string, string | undefined> = {
    HF_HOME: home,
    HF_ENDPOINT: `http://127.0.0.1:${server.addr.port}/`,
    HF_HUB_CACHE: undefined,
    HUGGINGFACE_HUB_CACHE: undefined,
    HF_TOKEN: undefined,
    HF_HUB_OFFLINE: undefined,
  };
  const before = Object.keys(environment).map((name) => [name, Deno.env.get(name)] as const);
  const set = (name: string, value: string | undefined) =>
    value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
  try {
    for (const [name, value] of Object.entries(environment)) set(name, value);
    await body(hub);
  } finally {
    for (const [name, value] of before) set(name, value);
    await Deno.remove(home, { recursive: true });
  }
}

/** Where the configuration of a model is. */
const pathOf = async (spec: string, options?: ResolveOptions) =>
  (await resolveModel(spec, options)).path;

const filesIn = (directory: string) =>
  [...Deno.readDirSync(directory)].map(({ name }) => name).sort();

async function assertHolds(
  directory: string,
  files: Files,
  names: readonly string[],
): Promise<void> {
  assertEquals(filesIn(directory), [...names].sort());
  for (const name of names) {
    assertEquals(await Deno.readFile(`${directory}/${name}`), bytesOf(files[name]), name);
  }
}

const WANTED = Object.keys(SINGLE).slice(0, 6);

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
  for (const spec of ["missing", "./a/b", "/no/where", "a/b/c", "a/", "", "../x", "owner/na me"]) {
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
    hub.commit = OTHER_COMMIT;
    hub.files["config.json"] = '{"model_type": "clip", "new": 1}';
    hub.requests.length = 0;
    const pull = await pathOf(ID, { revision: "refs/pr/1" });
    assertEquals(pull, `${hub.cache}/snapshots/${OTHER_COMMIT}`);
    await assertHolds(old, SINGLE, WANTED);
    await assertHolds(pull, hub.files, WANTED);
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
    hub.intercept = (_, request) => {
      tokens.add(request.headers.get("authorization"));
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
      assertEquals(directory, `${elsewhere}/models--owner--tiny-clip/snapshots/${COMMIT}`);
      assertEquals([...tokens], ["Bearer hf_secret"]);
      Deno.env.set("HF_HUB_OFFLINE", "TRUE");
      assertEquals(await pathOf(ID), directory);
    } finally {
      await Deno.remove(elsewhere, { recursive: true });
    }
  }));

Deno.test("resolveModel() says what the hub refuses, and caches none of it", () =>
  withHub({ ...SINGLE }, async (hub) => {
    const refusals: [number, string][] = [
      [401, "set HF_TOKEN"],
      [403, "set HF_TOKEN"],
      [404, "there is no such path here"],
      [500, "answers 500, try again later"],
    ];
    for (const [status, message] of refusals) {
      for (const part of ["/revision/", "/tree/", "/resolve/"]) {
        hub.intercept = (path) =>
          path.includes(part) ? new Response("<html>\n</html>", { status }) : undefined;
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
    delete hub.files["model.safetensors"];
    await assertRejects(
      () => pathOf(ID),
      Error,
      "it has no model.safetensors, only pytorch_model.bin",
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

const MODULE = new URL("../blocklora/hub.ts", import.meta.url);
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

Deno.test("resolveModel() starts again after a process was killed in the middle", () =>
  withHub(SINGLE, async (hub) => {
    const half = Promise.withResolvers<void>();
    let stalled: ReadableStreamDefaultController | undefined;
    hub.intercept = (path) => {
      if (!path.endsWith("/model.safetensors")) return undefined;
      const body = new ReadableStream({
        start(controller) {
          stalled = controller;
          controller.enqueue(LARGE.subarray(0, LARGE.length / 2));
          setTimeout(half.resolve, 300); // for the bytes to reach the file
        },
      });
      return new Response(body, { headers: { "content-length": `${LARGE.length}` } });
    };
    const process = child();
    const output = process.output();
    await Promise.race([
      half.promise,
      output.then(({ stderr }) => Promise.reject(new Error(new TextDecoder().decode(stderr)))),
    ]);
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
