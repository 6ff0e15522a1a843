import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { fetchJson, resolveModel, type ResolveOptions } from "../blocklora/models/hub.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const OTHER_COMMIT = "fedcba9876543210fedcba9876543210fedcba98";
const ID = "someone/tiny-clip";
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

/** A pull request of a hub's repository. */
interface Pull {
  readonly number: number;
  readonly commit: string;
  readonly files: Files;
  readonly author?: string;
  readonly title?: string;
  readonly status?: string;
}

/** A hub that holds one repository, and what it was asked for. */
interface Hub {
  files: Files;
  commit: string;
  pulls: Pull[];
  /** Discussions besides, of which a page has 50. */
  talks: number;
  /** Answers instead of the hub, where it returns a response. */
  intercept: (path: string, request: Request) => Response | undefined;
  readonly requests: string[];
  /** What the host was asked for that has the large files. */
  readonly stored: Request[];
  readonly cache: string;
}

const gitHash = (bytes: Uint8Array) =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const isLarge = (path: string) => /\.(safetensors|bin)$/.test(path);

/**
 * What the hub itself answers: https://huggingface.co as it was in 2026, as far as it is
 * used here.
 */
function respond(hub: Hub, request: Request, store: string): Response {
  const { pathname, searchParams } = new URL(request.url);
  const path = decodeURIComponent(pathname);
  hub.requests.push(path);
  const intercepted = hub.intercept(path, request);
  if (intercepted) return intercepted;
  // A repository that was renamed: relative, and with a status that keeps the method.
  const renamed = pathname.match(/^\/(api\/models\/)?former\/tiny-clip(\/.*)$/);
  if (renamed) {
    const headers = { location: `/${renamed[1] ?? ""}${ID}${renamed[2]}` };
    return new Response("Temporary Redirect", { status: 307, headers });
  }
  const commits: Record<string, string> = { main: hub.commit, v1: hub.commit };
  const trees: Record<string, Files> = { [hub.commit]: hub.files };
  for (const { number, commit, files } of hub.pulls) {
    commits[`refs/pr/${number}`] = commit;
    trees[commit] = files;
  }
  const [, revision] = path.match(`^/api/models/${ID}/revision/(.+)$`) ?? [];
  const sha = commits[revision] ?? (revision in trees ? revision : undefined);
  if (sha) return Response.json({ _id: "1", id: ID, sha, lastModified: "2026-01-01" });
  if (path === `/api/models/${ID}/discussions`) {
    const page = Number(searchParams.get("p"));
    const all = [
      ...Array.from({ length: hub.talks }, (_, i) => ({ num: 1000 + i, title: "Hello" })),
      ...hub.pulls.map(({ number, author, title, status }) => ({
        num: number,
        title: title ?? "Adding `safetensors` variant of this model",
        status: status ?? "open",
        isPullRequest: true,
        author: { name: author ?? "SFconvertbot", type: "user" },
      })),
    ];
    const discussions = all.slice(50 * page, 50 * page + 50);
    return Response.json({ discussions, count: all.length, start: 50 * page });
  }
  const [, listed] = path.match(`^/api/models/${ID}/tree/(.+)$`) ?? [];
  if (listed in trees) {
    return Response.json([
      { type: "directory", path: "onnx", size: 0, oid: "0".repeat(40) },
      ...Object.entries(trees[listed]).map(([path, content]) => {
        const bytes = bytesOf(content);
        const entry = { type: "file", path, size: bytes.length, oid: gitHash(bytes) };
        if (!isLarge(path)) return entry;
        const lfs = { oid: sha256(bytes), size: bytes.length, pointerSize: 130 };
        return { ...entry, lfs, xetHash: sha256(bytes) };
      }),
    ]);
  }
  const [, at, file] = path.match(`^/${ID}/resolve/([^/]+|refs/pr/\\d+)/(.+)$`) ?? [];
  const files = trees[commits[at] ?? at];
  if (files?.[file] === undefined) {
    const headers = { "x-error-code": files ? "EntryNotFound" : "RepoNotFound" };
    return new Response("not found", { status: 404, headers });
  }
  const bytes = bytesOf(files[file]);
  const headers = { "x-repo-commit": commits[at] ?? at, "accept-ranges": "bytes" };
  if (!isLarge(file)) {
    return new Response(bytes, { headers: { ...headers, etag: `W/"${gitHash(bytes)}"` } });
  }
  const linked = { "x-linked-etag": `"${sha256(bytes)}"`, "x-linked-size": `${bytes.length}` };
  const location = `${store}/${commits[at] ?? at}/${encodeURIComponent(file)}?signature=secret`;
  return new Response("Found", { status: 302, headers: { ...headers, ...linked, location } });
}

/** What the host answers that has the large files. It knows no tokens of the hub. */
function respondFromStore(hub: Hub, request: Request): Response {
  hub.stored.push(request);
  const path = decodeURIComponent(new URL(request.url).pathname);
  const intercepted = hub.intercept(path, request);
  if (intercepted) return intercepted;
  if (request.headers.has("authorization")) return new Response("two signatures", { status: 400 });
  const [, commit, file] = path.split("/");
  const all = [{ commit: hub.commit, files: hub.files }, ...hub.pulls];
  const found = all.find((one) => one.commit === commit)?.files[file];
  return found === undefined
    ? new Response("not found", { status: 404 })
    : new Response(bytesOf(found), { headers: { etag: '"of-the-store"' } });
}

/** Runs `body` with a hub on this machine, an empty cache, and an environment that names both. */
async function withHub(files: Files, body: (hub: Hub) => Promise<void>): Promise<void> {
  const home = await Deno.makeTempDir();
  const hub: Hub = {
    files,
    commit: COMMIT,
    pulls: [],
    talks: 0,
    intercept: () => undefined,
    requests: [],
    stored: [],
    cache: `${home}/hub/models--someone--tiny-clip`,
  };
  const options = { port: 0, hostname: "127.0.0.1", onListen: () => {} };
  await using store = Deno.serve(options, (request) => respondFromStore(hub, request));
  const host = `http://localhost:${store.addr.port}`;
  await using server = Deno.serve(options, (request) => respond(hub, request, host));
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
      // It is not for the host that the hub sends on to.
      assertEquals(hub.stored.map(({ headers }) => headers.get("authorization")), [null]);
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

/** A repository as openai/clip-vit-base-patch32 is: what is read as a pickle alone. */
const PICKLE: Files = {
  ...Object.fromEntries(Object.entries(SINGLE).filter(([name]) => name !== "model.safetensors")),
  "tokenizer_config.json": '{"tokenizer_class": "CLIPTokenizer"}',
  "special_tokens_map.json": '{"pad_token": "<|endoftext|>"}',
  "pytorch_model.bin": LARGE.slice(0, 70_000),
  "tf_model.h5": "never to be fetched",
};
const CONVERTED: Files = { ...PICKLE, "config.json": "{}", "model.safetensors": LARGE };
const SMALL = Object.keys(PICKLE).filter((name) => /json$|merges/.test(name));

const fetched = ({ requests }: Hub) =>
  requests.filter((path) => path.includes("/resolve/")).map((path) => path.replace(/.*\//, ""));

Deno.test("resolveModel() takes weights that the hub's bot has converted in a pull request", () =>
  withHub(PICKLE, async (hub) => {
    hub.talks = 120;
    hub.pulls.push({ number: 21, commit: OTHER_COMMIT, files: CONVERTED });
    const found = await resolveModel(ID);
    const [main, pull] = [COMMIT, OTHER_COMMIT].map((sha) => `${hub.cache}/snapshots/${sha}`);
    assertEquals(found, {
      path: main,
      weights: pull,
      hub: { id: ID, commit: COMMIT, weightsCommit: OTHER_COMMIT },
    });
    // All but the weights is what the revision itself has.
    await assertHolds(main, PICKLE, SMALL);
    await assertHolds(pull, CONVERTED, ["model.safetensors"]);
    assertEquals(fetched(hub).sort(), [...SMALL, "model.safetensors"].sort());
    const refs = { main: COMMIT, "refs/pr/21": OTHER_COMMIT, [`octograd/${COMMIT}`]: OTHER_COMMIT };
    for (const [name, sha] of Object.entries(refs)) {
      assertEquals(await Deno.readTextFile(`${hub.cache}/refs/${name}`), sha);
    }
    hub.requests.length = 0;
    for (
      const options of [{}, { offline: true }, { revision: COMMIT }, {
        revision: COMMIT,
        weightsRevision: OTHER_COMMIT,
      }]
    ) {
      assertEquals(await resolveModel(ID, options), found);
    }
    assertEquals(hub.requests, []);

    // With both commits known, it is found again however the hub has changed.
    await Deno.remove(hub.cache, { recursive: true });
    hub.pulls = [{ ...hub.pulls[0], status: "closed" }];
    const known = { revision: COMMIT, weightsRevision: OTHER_COMMIT };
    assertEquals(await resolveModel(ID, known), found);
    assertEquals(await resolveModel(ID, { ...known, offline: true }), found);
  }));

Deno.test("resolveModel() takes the pickle where no conversion of it can be trusted", () =>
  withHub({ ...PICKLE }, async (hub) => {
    const pull: Pull = { number: 21, commit: OTHER_COMMIT, files: CONVERTED };
    const { "model.safetensors": _, ...without } = CONVERTED;
    const cases: [string, () => void][] = [
      ["none", () => hub.pulls = []],
      ["somebody's", () => hub.pulls = [{ ...pull, author: "somebody" }]],
      ["closed", () => hub.pulls = [{ ...pull, status: "closed" }]],
      ["something else", () => hub.pulls = [{ ...pull, title: "Update README.md" }]],
      ["without weights", () => hub.pulls = [{ ...pull, files: without }]],
      [
        "of another pickle",
        () => hub.pulls = [{ ...pull, files: { ...CONVERTED, "pytorch_model.bin": LARGE } }],
      ],
      ...[404, 403, 500].map((status): [string, () => void] => [
        `the hub answers ${status}`,
        () => {
          hub.pulls = [pull];
          hub.intercept = (path) =>
            path.endsWith("/discussions") ? new Response("", { status }) : undefined;
        },
      ]),
      [
        "the hub answers nonsense",
        () => {
          hub.intercept = (path) =>
            path.endsWith("/discussions") ? Response.json({ discussions: null }) : undefined;
        },
      ],
    ];
    for (const [what, change] of cases) {
      await Deno.remove(hub.cache, { recursive: true }).catch(() => {});
      change();
      const { path, weights, hub: { weightsCommit } = {} } = await resolveModel(ID) as {
        path: string;
        weights: string;
        hub: { weightsCommit: string | null };
      };
      assertEquals([weights, weightsCommit], [path, null], what);
      await assertHolds(path, PICKLE, [...SMALL, "pytorch_model.bin"]);
    }
    hub.intercept = () => undefined;
    // Of several, the one that fits.
    await Deno.remove(hub.cache, { recursive: true });
    const other = "1".repeat(40);
    hub.pulls = [{ ...pull, number: 3, commit: other, files: without }, pull];
    assertEquals((await resolveModel(ID)).hub?.weightsCommit, OTHER_COMMIT);
  }));

Deno.test("resolveModel() fetches what open_clip reads", () =>
  withHub({}, async (hub) => {
    const small = { "open_clip_config.json": "{}", "vocab.json": "{}", "merges.txt": "" };
    const timm = { "config.json": '{"architecture": "vit"}', "model.safetensors": "timm's tower" };
    const clip = { "config.json": '{"model_type": "clip"}', "model.safetensors": LARGE };
    for (
      const [i, [files, wanted]] of ([
        [{ ...small, "open_clip_model.safetensors": LARGE }, "open_clip_model.safetensors"],
        [{ ...small, "open_clip_pytorch_model.bin": LARGE }, "open_clip_pytorch_model.bin"],
        [
          { ...small, ...timm, "open_clip_model.safetensors": LARGE },
          "open_clip_model.safetensors",
        ],
        [{ ...small, ...clip, "open_clip_model.safetensors": LARGE }, "model.safetensors"],
      ] as [Files, string][]).entries()
    ) {
      hub.commit = `${i}`.repeat(40);
      hub.files = files;
      const names = Object.keys(files).filter((name) => !isLarge(name) || name === wanted);
      await assertHolds(await pathOf(ID, { revision: hub.commit }), files, names);
      hub.requests.length = 0;
      await pathOf(ID, { revision: hub.commit });
      assertEquals(hub.requests, []);
    }
  }));

Deno.test("resolveModel() follows a repository to its new name", () =>
  withHub(SINGLE, async (hub) => {
    const directory = await pathOf("former/tiny-clip");
    assertEquals(directory, `${hub.cache.replace("someone", "former")}/snapshots/${COMMIT}`);
    await assertHolds(directory, SINGLE, WANTED);
  }));

Deno.test("resolveModel() passes over a path of the same name where only the hub is meant", () =>
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

Deno.test("resolveModel() starts again after a process was killed in the middle", () =>
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
