/** A hub on this machine, which answers as the real one does. */

import { assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { resolveModel, type ResolveOptions } from "../blocklora/models/hub.ts";

/** The commit that the hub's branch points at. */
export const COMMIT = "0123456789abcdef0123456789abcdef01234567";
/** Another commit. */
export const OTHER_COMMIT = "fedcba9876543210fedcba9876543210fedcba98";
/** The repository. */
export const ID = "someone/tiny-clip";
/** A file that the hub keeps elsewhere. */
export const LARGE = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) >> 3);

/** Contents of files by their paths. */
export type Files = Record<string, string | Uint8Array<ArrayBuffer>>;

/** A repository whose weights are one file. */
export const SINGLE: Files = {
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

/** The files of it that a model needs. */
export const WANTED = Object.keys(SINGLE).slice(0, 6);

/** An index of weights in several files. */
export const INDEX = {
  weight_map: { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" },
};
/** A repository whose weights are several files. */
export const SHARDED: Files = {
  "config.json": "{}",
  "vocab.json": "{}",
  "merges.txt": "",
  "preprocessor_config.json": "{}",
  "model.safetensors.index.json": JSON.stringify(INDEX),
  "model-00001-of-00002.safetensors": LARGE.slice(0, 1000),
  "model-00002-of-00002.safetensors": LARGE.slice(1000, 5000),
  "model-00003-of-00003.safetensors": "named by no index",
};

/** A content as bytes. */
export const bytesOf = (content: string | Uint8Array<ArrayBuffer>) =>
  typeof content === "string" ? new TextEncoder().encode(content) : content;

/** A pull request of a hub's repository. */
export interface Pull {
  readonly number: number;
  readonly commit: string;
  readonly files: Files;
  readonly author?: string;
  readonly title?: string;
  readonly status?: string;
}

/** A hub that holds one repository, and what it was asked for. */
export interface Hub {
  files: Files;
  commit: string;
  pulls: Pull[];
  /** How many other discussions there are; a page lists 50. */
  talks: number;
  /** Answers instead of the hub, where it returns a response. */
  intercept: (path: string, request: Request) => Response | undefined;
  readonly requests: string[];
  /** The requests to the host that has the large files. */
  readonly stored: Request[];
  readonly cache: string;
}

const gitHash = (bytes: Uint8Array) =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
/** The hash of a large file. */
export const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
/** Whether the hub keeps a file elsewhere. */
export const isLarge = (path: string) => /\.(safetensors|bin)$/.test(path);

/**
 * The hub's answers, as https://huggingface.co gave them in 2026, as far as they are used here.
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

/** The answers of the host that has the large files. It knows no tokens of the hub. */
function respondFromStore(hub: Hub, request: Request): Response {
  hub.stored.push(request);
  const path = decodeURIComponent(new URL(request.url).pathname);
  const intercepted = hub.intercept(path, request);
  if (intercepted) return intercepted;
  if (request.headers.has("authorization")) return new Response("two signatures", { status: 400 });
  const [, commit, file] = path.split("/");
  const all = [{ commit: hub.commit, files: hub.files }, ...hub.pulls];
  const found = all.find((one) => one.commit === commit)?.files[file];
  if (found === undefined) return new Response("not found", { status: 404 });
  const bytes = bytesOf(found);
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "")?.[1] ?? 0);
  const headers = {
    etag: '"of-the-store"',
    "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
  };
  return new Response(bytes.subarray(from), { status: from > 0 ? 206 : 200, headers });
}

/** Runs `body` with a hub on this machine, an empty cache, and an environment that names both. */
export async function withHub(files: Files, body: (hub: Hub) => Promise<void>): Promise<void> {
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
    HF_TOKEN_PATH: undefined,
    HF_HUB_DOWNLOAD_TIMEOUT: undefined,
    HF_HUB_DISABLE_IMPLICIT_TOKEN: undefined,
    INIT_CWD: undefined,
    SCRATCH: undefined,
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

/** The path of a model's configuration. */
export const pathOf = async (spec: string, options?: ResolveOptions) =>
  (await resolveModel(spec, options)).path;

/** The names in a directory, sorted. */
export const filesIn = (directory: string) =>
  [...Deno.readDirSync(directory)].map(({ name }) => name).sort();

/** Asserts that a directory holds these files and nothing else. */
export async function assertHolds(
  directory: string,
  files: Files,
  names: readonly string[],
): Promise<void> {
  assertEquals(filesIn(directory), [...names].sort());
  for (const name of names) {
    assertEquals(await Deno.readFile(`${directory}/${name}`), bytesOf(files[name]), name);
  }
}
