/**
 * The model and the data set that come with the project, and the scripts that made them.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertLess,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
import { fileURLToPath, pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { decodeImage } from "../blocklora/data/decode.ts";
import { encodePng, makeFashionMnist, PACKAGE } from "../blocklora/data/make_fashion_mnist.ts";
import { EMBEDDED_MODEL } from "../blocklora/models/open_model.ts";
import { EMBEDDED_DATA } from "../blocklora/data/open_data.ts";
import { makeEmbedded } from "../clip/make_embedded.ts";
import { existsSync, filesIn, withDirectory } from "./cli.ts";
import { shared, skip } from "./fixtures.ts";
import { directoriesIn, openSafetensors, readJson } from "./reference.ts";

/** Folders in the order of Fashion-MNIST's labels. */
const FOLDERS = [
  ...["t-shirt", "trouser", "pullover", "dress", "coat"],
  ...["sandal", "shirt", "sneaker", "bag", "ankle-boot"],
];

/** The grey values of a 28 × 28 PNG, read by a decoder that is not ours. */
async function greyPixels(png: Uint8Array, name: string): Promise<Uint8Array> {
  const { width, height, pixels } = await decodeImage(new Uint8Array(png), name);
  assertEquals([width, height], [28, 28], name);
  assert(pixels.every((value, i) => value === pixels[i - i % 3]), `${name} is not grey`);
  return Uint8Array.from({ length: width * height }, (_, i) => pixels[3 * i]);
}

/** The contents of a directory's files, by their paths in it. */
function contents(directory: string): Map<string, Uint8Array> {
  const read = (name: string) => Deno.readFileSync(`${directory}/${name}`);
  return new Map(filesIn(directory).map((name) => [name, read(name)]));
}

/**
 * The files of a new directory that differ from the committed ones; JSON is compared by its values.
 */
function differences(made: string, committed: URL): string[] {
  const ours = contents(fileURLToPath(committed));
  const plain = (name: string, bytes: Uint8Array) => {
    if (!name.endsWith(".json")) return bytes.toHex();
    return JSON.stringify(JSON.parse(new TextDecoder().decode(bytes)));
  };
  return [...contents(made)]
    .filter(([name, bytes]) =>
      !ours.has(name) || plain(name, bytes) !== plain(name, ours.get(name)!)
    )
    .map(([name]) => name);
}

Deno.test("embedded images are 16 and 50 a class, 28 × 28, grey, and all different", async () => {
  const names = await readJson(new URL("classnames.json", EMBEDDED_DATA));
  assertEquals(names.classes.map(({ folder }: { folder: string }) => folder), FOLDERS);
  assertStringIncludes(names.template, "{}");
  const seen = new Set<string>();
  let total = 0;
  for (const [split, count] of [["train", 16], ["test", 50]] as const) {
    const directory = new URL(`${split}/`, EMBEDDED_DATA);
    assertEquals(directoriesIn(directory), [...FOLDERS].sort());
    for (const folder of FOLDERS) {
      const files = filesIn(fileURLToPath(new URL(folder, directory)));
      assertEquals(files.length, count, `${split}/${folder}`);
      for (const name of files) {
        const png = await Deno.readFile(new URL(`${folder}/${name}`, directory));
        const pixels = await greyPixels(png, `${folder}/${name}`);
        assertEquals(await greyPixels(encodePng(pixels, 28), "again"), pixels);
        seen.add(pixels.join());
        total += png.length;
      }
    }
  }
  assertEquals(seen.size, 660);
  assertLess(total, 500_000);
});

Deno.test("makeFashionMnist() files images by label, pixel for pixel, the same each time", () =>
  withDirectory(async (directory) => {
    const source = `${directory}/source`;
    await Deno.mkdir(source);
    const images = 800;
    const pixels = Uint8Array.from({ length: images * 784 }, (_, i) => Math.imul(i, 40503) >> 7);
    const labels = Uint8Array.from({ length: images }, (_, i) => (i * 7 + (i >> 5)) % 10);
    for (const prefix of ["train", "t10k"]) {
      const write = (name: string, axes: number[], values: Uint8Array) =>
        Deno.writeFile(`${source}/${prefix}-${name}.gz`, gzipSync(idx(axes, values)));
      await write("images-idx3-ubyte", [images, 28, 28], pixels);
      await write("labels-idx1-ubyte", [images], labels);
    }
    const [first, second] = ["first", "second"].map((name) =>
      pathToFileURL(`${directory}/${name}/`)
    );
    const total = await makeFashionMnist(first, source);
    await makeFashionMnist(second, source);
    assertEquals(differences(fileURLToPath(first), second), []);
    const made = contents(fileURLToPath(first));
    made.delete("classnames.json");
    assertEquals(made.size, 660);
    assertEquals([...made.values()].reduce((sum, { length }) => sum + length, 0), total);
    for (const [name, png] of made) {
      const [split, folder, file] = name.split("/");
      assert(split === "train" || split === "test");
      const image = parseInt(file);
      assertEquals(FOLDERS[labels[image]], folder, name);
      const original = pixels.subarray(image * 784, (image + 1) * 784);
      assertEquals(await greyPixels(png, name), original, name);
    }
  }));

/** A file of bytes in the IDX format. */
function idx(axes: readonly number[], values: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + 4 * axes.length + values.length);
  bytes.set([0, 0, 8, axes.length]);
  for (const [i, size] of axes.entries()) new DataView(bytes.buffer).setUint32(4 + 4 * i, size);
  bytes.set(values, 4 + 4 * axes.length);
  return bytes;
}

Deno.test("encodePng() takes the filter that makes the file smallest", async () => {
  /**
   * Each pixel is made from those to the left and above: seven more than what a filter predicts.
   */
  const rules: Record<string, (left: number, up: number) => number> = {
    nothing: () => 0,
    left: (left) => left,
    up: (_, up) => up,
    average: (left, up) => (left + up) >> 1,
  };
  for (const [name, rule] of Object.entries(rules)) {
    const pixels = new Uint8Array(784);
    for (let i = 0; i < pixels.length; i++) {
      pixels[i] = rule(i % 28 === 0 ? 0 : pixels[i - 1], pixels[i - 28] ?? 0) + 7;
    }
    const png = encodePng(pixels, 28);
    assertEquals(await greyPixels(png, name), pixels);
    // After the right filter all rows are alike, and take a dozen bytes besides the headers.
    assertLess(png.length, 57 + 30);
  }
});

if (!existsSync(PACKAGE)) skip("the embedded images against Debian's dataset-fashion-mnist");
else {
  Deno.test("makeFashionMnist() gives the embedded images", () =>
    withDirectory(async (directory) => {
      await makeFashionMnist(pathToFileURL(`${directory}/`));
      assertEquals(differences(directory, EMBEDDED_DATA), []);
    }));
}

Deno.test("the embedded model is f16, in Hugging Face's layout, and names its source", async () => {
  const file = await openSafetensors(new URL("model.safetensors", EMBEDDED_MODEL));
  assertEquals(new Set([...file.tensors.values()].map(({ dtype }) => dtype)), new Set(["F16"]));
  assertEquals([...file.tensors.keys()].filter((name) => name.includes("position_ids")), []);
  assertEquals(file.metadata.format, "pt");
  for (const name of file.tensors.keys()) {
    const values = await file.floats(name);
    assert(values.every(Number.isFinite), name);
    assertNotEquals(values.find((value) => value !== 0), undefined, name);
  }
  assertEquals((await readJson(new URL("config.json", EMBEDDED_MODEL))).torch_dtype, "float16");
  const readme = await Deno.readTextFile(new URL("README.md", EMBEDDED_MODEL));
  const sources = [
    ...["Noto Emoji", "Twemoji", "Fluent Emoji", "EmojiOne 2", "FxEmoji", "openclipart"],
    ...["emojibase-data", "CC BY 4.0", "Apache-2.0", "MIT"],
  ];
  for (const source of sources) assertStringIncludes(readme, source);
});

const checkpoint = shared("models/emoji-clip-tiny/");
if (!checkpoint) skip("the embedded model against its float32 checkpoint");
else {
  Deno.test("makeEmbedded() gives the embedded model, each weight the nearest half", () =>
    withDirectory(async (directory) => {
      const made = pathToFileURL(`${directory}/`);
      await makeEmbedded(made, checkpoint);
      assertEquals(differences(directory, EMBEDDED_MODEL), []);
      const [full, half] = await Promise.all(
        [checkpoint, made].map((url) => openSafetensors(new URL("model.safetensors", url))),
      );
      assertEquals([...half.tensors.keys()].sort(), [...full.tensors.keys()].sort());
      for (const name of full.tensors.keys()) {
        const [values, rounded] = [await full.floats(name), await half.floats(name)];
        const wrong = values.findIndex((value, i) => !Object.is(Math.f16round(value), rounded[i]));
        assertEquals(wrong, -1, name);
      }
    }));
}
