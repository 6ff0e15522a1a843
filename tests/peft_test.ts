import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Adapters } from "../blocklora/methods/adapters.ts";
import { loadAdapters } from "../blocklora/methods/lookup.ts";
import { openAdapted } from "../blocklora/training/adapted_model.ts";
import { Console } from "../blocklora/system/console.ts";
import { openFile } from "../blocklora/system/files.ts";
import { EMBEDDED_MODEL } from "../blocklora/models/open_model.ts";
import { openedClip } from "./reference.ts";
import { openTensors } from "../blocklora/models/tensor_files.ts";
import type { Clip } from "../clip/clip.ts";
import { tensor } from "../tensor/create.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { copyModel, withDirectory } from "./cli.ts";
import { gpuTest } from "./gpu.ts";

/** Adapters that PEFT 0.20.0 saved, and their features in transformers 5.12.1 (see `make.py`). */
const FIXTURES = fileURLToPath(new URL("./fixtures/peft/", import.meta.url));
const CASES = {
  all_linear: "adapter_model.safetensors",
  pickle: "adapter_model.bin",
} as const;

const PIXELS = Float32Array.from(
  { length: 3 * 3 * 48 * 48 },
  (_, i) => ((i * 37) % 101 - 50) / 32,
);
const IDS = Int32Array.of(2046, 5, 700, 2047, 2046, 1200, 2047, 2047, 2046, 31, 32, 2047);

async function valuesOf(make: () => Tensor): Promise<Float32Array> {
  const made = scope(make);
  const values = await made.data();
  made.release();
  return values as Float32Array;
}

async function featuresOf(clip: Clip): Promise<Record<string, Float32Array>> {
  const prompts = clip.text.prompts(IDS, 3);
  const features = {
    image_features: await valuesOf(() => clip.imageFeatures(tensor(PIXELS, [3, 3, 48, 48]))),
    text_features: await valuesOf(() => clip.textFeatures(prompts)),
  };
  prompts.release();
  return features;
}

async function load(clip: Clip, name: keyof typeof CASES): Promise<Adapters> {
  using source = await openFile(join(FIXTURES, name, CASES[name]));
  const text = await Deno.readTextFile(join(FIXTURES, name, "adapter_config.json"));
  return (await loadAdapters(clip, await openTensors(source), JSON.parse(text))).adapters;
}

for (const name of Object.keys(CASES) as (keyof typeof CASES)[]) {
  gpuTest(`adapters that PEFT has saved give the features of PEFT: ${name}`, async () => {
    const { clip } = await openedClip(fileURLToPath(EMBEDDED_MODEL), { precision: "f32" });
    const plain = await featuresOf(clip);
    const adapters = await load(clip, name);
    using source = await openFile(join(FIXTURES, name, "features.safetensors"));
    const expected = await openTensors(source);
    for (const state of ["beside the weights", "merged"]) {
      if (state === "merged") adapters.merge();
      for (const [what, values] of Object.entries(await featuresOf(clip))) {
        const wanted = await expected.floats(what);
        assertEquals(values.length, wanted.length);
        values.forEach((value, i) =>
          assertAlmostEquals(value, wanted[i], 5e-5, `${state}: ${what}`)
        );
        assert(values.some((value, i) => Math.abs(value - plain[what][i]) > 0.1), what);
      }
    }
    adapters.release();
    assertEquals(await featuresOf(clip), plain);
    clip.release();
  });
}

/** Runs `body` with paths that begin in a directory, and without a hub. */
async function from(directory: string, body: () => Promise<void>): Promise<void> {
  const changed = {
    INIT_CWD: directory,
    HF_HOME: directory,
    HF_ENDPOINT: "http://127.0.0.1:9",
    HF_HUB_CACHE: "",
  };
  const before = Object.keys(changed).map((name) => [name, Deno.env.get(name)] as const);
  for (const [name, value] of Object.entries(changed)) Deno.env.set(name, value);
  try {
    await body();
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) Deno.env.delete(name);
      else Deno.env.set(name, value);
    }
  }
}

gpuTest(
  "the model that a PEFT adapter names is opened, or refused by its name",
  () =>
    withDirectory((directory) =>
      from(directory, async () => {
        const model = await copyModel(join(directory, "some", "model"));
        const other = await copyModel(join(directory, "other"));
        const adapter = join(directory, "adapter");
        await Deno.mkdir(adapter);
        for (const name of ["adapter_model.bin", "adapter_config.json"]) {
          await Deno.copyFile(join(FIXTURES, "pickle", name), join(adapter, name));
        }
        const path = join(adapter, "adapter_config.json");
        const config = JSON.parse(await Deno.readTextFile(path));
        const console = new Console(true);
        /** Opens an adapter of a model of some name, and gives the path of the model. */
        const open = async (name: unknown, named?: string) => {
          const renamed = { ...config, base_model_name_or_path: name };
          await Deno.writeTextFile(path, JSON.stringify(renamed));
          const chosen = {
            model: named,
            revision: undefined,
            offline: false,
            tokenizer: undefined,
          };
          const { adapters, model: clip, path: found } = await openAdapted(
            adapter,
            chosen,
            console,
          );
          assertEquals(adapters.byModule.size, 13);
          adapters.release();
          clip.release();
          return found;
        };
        assertEquals(await open("emoji-clip-tiny"), resolve(fileURLToPath(EMBEDDED_MODEL)));
        // The path itself; a path from where the command is typed; a name on the hub or elsewhere.
        for (
          const [name, named] of [
            [model],
            ["some/model"],
            ["some/model", model],
            ["/elsewhere/model", model],
            ["someone/Model", "some/model"],
            ["/elsewhere/tiny", model],
            ["", model],
            [null, model],
          ] as [unknown, string?][]
        ) {
          assertEquals(await open(name, named), model, `${name}, ${named}`);
        }
        for (
          const [reason, name, named] of [
            ["it does not name its model, give --model", null],
            ["it does not name its model, give --model", ""],
            ["/elsewhere/tiny, is not there, say with --model", "/elsewhere/tiny"],
            ['Cannot fetch "someone/model"', "someone/model"],
            ["was made for someone/model, and --model is other", "someone/model", "other"],
            [`was made for ${model}, and --model is ${other}`, model, other],
          ] as [string, unknown, string?][]
        ) {
          await assertRejects(() => open(name, named), Error, reason);
        }
        const settings = join(other, "config.json");
        const saved = JSON.parse(await Deno.readTextFile(settings));
        await Deno.writeTextFile(
          settings,
          JSON.stringify({ ...saved, _name_or_path: "someone/model" }),
        );
        assertEquals(await open("someone/model", other), other);
      })
    ),
);
