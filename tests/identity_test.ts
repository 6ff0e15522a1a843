/** How runs, models and prompts are told apart. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { promptOf, sameClasses } from "../blocklora/training/classifier.ts";
import { openDataset } from "../blocklora/data/dataset.ts";
import { ImageHashes } from "../blocklora/training/identity.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { encodeSafetensors, type TensorToSave } from "../tensor/encode_safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { copyData, copyModel, filesIn, octograd, withDirectory } from "./cli.ts";

const readText = (...path: string[]) => Deno.readTextFile(join(...path));
const readJson = async (...path: string[]) => JSON.parse(await readText(...path));

Deno.test("promptOf() puts every name into the template as it is", () => {
  const template = "a photo of a {}, {}.";
  for (const name of ["cat", "$", "$$", "$&", "$`", "$'", "$1", "$<x>", "\\\\", "{}", "{", "%s"]) {
    assertEquals(promptOf(name, template), `a photo of a ${name}, ${name}.`);
  }
  assertEquals(promptOf("ankle_boot", "{}"), "ankle boot");
  assertEquals(promptOf("cat", "$& {} $1"), "$& cat $1");
  const names = ["$", "$$", "$$$", "$&"];
  assertEquals(new Set(names.map((name) => promptOf(name, "a {}"))).size, names.length);
});

Deno.test("sameClasses() finds names that make the same prompt", () => {
  const template = "a {}.";
  assertEquals(sameClasses(["$", "$$", "cat", "cats"], template), null);
  assertEquals(sameClasses(["dog", "Cat", "cat"], template), ["Cat", "cat"]);
  assertEquals(sameClasses(["ankle_boot", "ankle  boot"], template), ["ankle_boot", "ankle  boot"]);
  assertEquals(sameClasses(["café", "cafe\u0301"], template), ["café", "cafe\u0301"]);
});

Deno.test("ImageHashes identifies images by their contents, labels and order, in any folder", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const hashOf = async (root: string) => {
      const dataset = await openDataset(root);
      return await new ImageHashes(dataset).of(dataset.test);
    };
    const hash = await hashOf(data);
    const moved = join(directory, "elsewhere", "of another name");
    await Deno.mkdir(join(directory, "elsewhere"));
    await Deno.rename(data, moved);
    assertEquals(await hashOf(moved), hash);
    const dataset = await openDataset(moved);
    const images = new ImageHashes(dataset);
    const [first, second, ...rest] = dataset.test;
    assertEquals(await images.of(dataset.test), hash);
    const hashes = await Promise.all(
      [
        [second, first, ...rest],
        [first, ...rest],
        [{ ...first, label: 1 }, second, ...rest],
        [{ ...first, path: `${first.path}.gone` }, second, ...rest],
      ].map((samples) => images.of(samples)),
    );
    const classes = dataset.classes.map((name) => `${name}s`);
    hashes.push(await new ImageHashes({ ...dataset, classes }).of(dataset.test));
    // Changes one byte of one image, and neither its name nor its size.
    const bytes = await Deno.readFile(first.path);
    bytes[bytes.length - 20] ^= 1;
    await Deno.writeFile(first.path, bytes);
    hashes.push(await hashOf(moved));
    assertEquals(new Set([hash, ...hashes]).size, hashes.length + 1);
  }));

/** Makes the weights of every layer a little larger, but not the projections. */
async function otherWeights(path: string): Promise<void> {
  const file = await SafetensorsFile.open(bytesSource(await Deno.readFile(path), path));
  const tensors: Record<string, TensorToSave> = {};
  for (const { name, shape } of file.tensors.values()) {
    const factor = name.includes("layers") ? 1.25 : 1;
    const data = (await file.floats(name)).map((value) => factor * value);
    tensors[name] = { dtype: "F16", shape, data };
  }
  await Deno.writeFile(path, encodeSafetensors(tensors, { format: "pt" }));
}

Deno.test("a sweep repeats a run whose model or images have changed, and says so", () =>
  withDirectory(async (directory) => {
    const model = await copyModel(join(directory, "model"));
    const data = await copyData(join(directory, "data"));
    const args = ["sweep", "--model", "model", "--shots", "1", "--seeds", "1", "--iterations", "1"]
      .concat("--batch-size", "4", "--methods", "zero-shot,lora-r2", "--output", "out", "--json");
    const sweep = async (...more: string[]) => {
      const { code, stdout, stderr } = await octograd([...args, ...more], { from: directory });
      return { ...(code === 0 ? JSON.parse(stdout) : {}), code, said: stderr };
    };
    const done = async (...more: string[]) => (await sweep(...more)).done;
    assertEquals(await done("--data", "data"), 2);
    assertEquals(await done("--data", "data"), 0);
    const { identity } = await readJson(directory, "out/data/lora-r2-1shots-seed1/result.json");
    assertEquals((await readJson(directory, "out/data/zero-shot/result.json")).identity, {
      ...identity,
      train: null,
    });

    // Changes images that are trained on, and not tested.
    const { train } = await openDataset(data);
    const other = train.find(({ label }) => label === 1)!;
    for (const { path } of train.filter(({ label }) => label === 0)) {
      await Deno.copyFile(other.path, path);
    }
    const trained = await sweep("--data", "data");
    assertEquals([trained.done, trained.skipped], [1, 1]);
    assertMatch(trained.said, /lora-r2-1shots-seed1 is of another training images: run again/);
    assertEquals(await done("--data", "data"), 0);

    // Another data set with the same folder name.
    const another = await copyData(join(directory, "other", "data"));
    await Deno.remove(join(another, "test", "bag"), { recursive: true });
    assertEquals(await done("--data", "other/data"), 2);
    const { images } = await readJson(directory, "out/data/zero-shot/result.json");
    assertEquals(images.length, 8);
    assertEquals(await done("--data", "other/data"), 0);
    assertEquals(filesIn(join(directory, "out")).filter((name) => /\/\./.test(name)), []);

    // Another model at the same path, then another precision of the same model.
    await otherWeights(join(model, "model.safetensors"));
    const again = await sweep("--data", "other/data");
    assertEquals(again.done, 2);
    assertMatch(again.said, /zero-shot is of another model: run again/);
    const rounded = await sweep("--data", "other/data", "--precision", "f32");
    assertEquals(rounded.code, 1);
    assertMatch(rounded.said, /its precision is "f16", now it would be "f32"/);

    // A directory that holds no run is not touched.
    const path = join(directory, "out/data/zero-shot");
    await Deno.remove(join(path, "result.json"));
    await Deno.writeTextFile(join(path, "mine.txt"), "mine");
    const refused = await sweep("--data", "other/data");
    assertEquals(refused.code, 1);
    assertMatch(refused.said, /zero-shot: it holds no finished run, remove it/);
    assertEquals(await readText(path, "mine.txt"), "mine");
  }));

Deno.test("an adapter is used with the model that it was trained on, or not at all", () =>
  withDirectory(async (directory) => {
    // This server would answer whatever is asked of the hub.
    let asked = 0;
    await using server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => {
      asked++;
      return new Response(null, { status: 404 });
    });
    const env = { HF_ENDPOINT: `http://127.0.0.1:${server.addr.port}`, HF_HOME: directory };
    const data = await copyData(join(directory, "data"));
    const model = await copyModel(join(directory, "here", "models", "tiny"));
    const adapter = join(directory, "adapter");
    const trained = await octograd(
      ["train", "--data", data, "--model", "models/tiny", "--shots", "1", "--iterations", "1"]
        .concat("--output", adapter),
      { from: join(directory, "here"), env },
    );
    assertEquals(trained.code, 0, trained.stderr);
    const { octograd: saved, base_model_name_or_path } = await readJson(
      adapter,
      "adapter_config.json",
    );
    assertEquals([saved.model, base_model_name_or_path], [model, model]);
    assertMatch(saved.fingerprint, /^[0-9a-f]{32}$/);

    await Deno.mkdir(join(directory, "there"));
    const evaluate = async (...args: string[]) => {
      const { code, stdout, stderr } = await octograd(
        ["evaluate", "--data", data, "--adapter", adapter, "--json", ...args],
        { from: join(directory, "there"), env },
      );
      return { correct: code === 0 ? JSON.parse(stdout).correct : null, said: stderr };
    };
    const { correct, said } = await evaluate();
    assert(correct !== null, said);

    // The path now holds another model; only the user may decide to use it.
    const weights = join(model, "model.safetensors");
    await Deno.copyFile(weights, join(directory, "saved"));
    await otherWeights(weights);
    assertMatch(
      (await evaluate()).said,
      /tiny is not the model any more that it was trained on.*--model/,
    );
    await Deno.copyFile(join(directory, "saved"), weights);

    const moved = join(directory, "there", "models", "small");
    await Deno.mkdir(join(directory, "there", "models"));
    await Deno.rename(model, moved);
    assertMatch(
      (await evaluate()).said,
      /trained on, .*models\/tiny, is not there, say with --model/,
    );
    assertEquals((await evaluate("--model", "models/small")).correct, correct);

    // Version 0.1 wrote the path as it was typed, which may look like a repository's name.
    const path = join(adapter, "adapter_config.json");
    const config = await readJson(path);
    const { fingerprint: _, ...octograd01 } = { ...config.octograd, model: "models/tiny" };
    await Deno.writeTextFile(path, JSON.stringify({ ...config, octograd: octograd01 }));
    assertMatch(
      (await evaluate()).said,
      /trained on, models\/tiny, is not there, say with --model/,
    );
    assertEquals(asked, 0);
  }));
