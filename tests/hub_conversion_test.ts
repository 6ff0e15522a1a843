import { assertEquals } from "@std/assert";
import { resolveModel } from "../blocklora/models/hub.ts";
import {
  assertHolds,
  COMMIT,
  type Files,
  type Hub,
  ID,
  isLarge,
  LARGE,
  OTHER_COMMIT,
  pathOf,
  type Pull,
  SINGLE,
  withHub,
} from "./hub.ts";

/** A repository like openai/clip-vit-base-patch32, whose readable weights are a pickle alone. */
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
    // Everything but the weights comes from the revision itself.
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

    // With both commits known, it is found again, however the hub has changed.
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
    // Of several conversions, the one that fits is taken.
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
