import { assert, assertEquals, assertLess, assertStringIncludes } from "@std/assert";
import { openDataset } from "../blocklora/dataset.ts";
import { decodeImage } from "../blocklora/decode.ts";
import { openFile } from "../blocklora/file_source.ts";
import { EMBEDDED_MODEL } from "../blocklora/open_model.ts";
import { EMBEDDED_DATA } from "../blocklora/workspace.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { fileURLToPath } from "node:url";

/** Fashion-MNIST's labels 0 to 9; its README calls the first "T-shirt/top". */
const CLASSES = [
  ...["t-shirt", "trouser", "pullover", "dress", "coat"],
  ...["sandal", "shirt", "sneaker", "bag", "ankle boot"],
];

Deno.test("the embedded images are 16 to train on and 50 to test on of each class, in half a megabyte", async () => {
  const dataset = await openDataset(fileURLToPath(EMBEDDED_DATA));
  assertEquals(dataset.classes, CLASSES);
  assertEquals([dataset.drawn, dataset.ignored], [false, 0]);
  assertEquals(dataset.template, "a photo of a {}.");
  let total = 0;
  const seen = new Set<string>();
  for (const [samples, each] of [[dataset.train, 16], [dataset.test, 50]] as const) {
    for (const label of CLASSES.keys()) {
      assertEquals(samples.filter((sample) => sample.label === label).length, each);
    }
    for (const { path } of samples) {
      const bytes = await Deno.readFile(path);
      total += bytes.length;
      const { width, height, pixels } = await decodeImage(bytes, path);
      assertEquals([path.slice(-4), width, height], [".png", 28, 28]);
      seen.add(pixels.join());
    }
  }
  assertLess(total, 500_000);
  assertEquals(seen.size, 660, "no image is there twice");
});

Deno.test("the embedded images come with their licence and their source", async () => {
  const read = (name: string) => Deno.readTextFile(new URL(name, EMBEDDED_DATA));
  assertStringIncludes(await read("LICENSE"), "MIT");
  const readme = await read("README.md");
  for (const fact of ["Zalando", "1708.07747", "dataset-fashion-mnist", "make_fashion_mnist.ts"]) {
    assert(readme.toLowerCase().includes(fact.toLowerCase()), fact);
  }
});

Deno.test("the embedded model is stored in half precision, with its attributions and no samples", async () => {
  assertEquals(Array.from(Deno.readDirSync(EMBEDDED_MODEL), ({ name }) => name).sort(), [
    "README.md",
    "config.json",
    "merges.txt",
    "model.safetensors",
    "preprocessor_config.json",
    "vocab.json",
  ]);
  using source = await openFile(fileURLToPath(new URL("model.safetensors", EMBEDDED_MODEL)));
  const { tensors } = await SafetensorsFile.open(source);
  const dtypes = new Set(Array.from(tensors.values(), ({ dtype }) => dtype));
  assertEquals([...dtypes], ["F16"]);
  assertEquals(tensors.size, 16 * 6 + 14);

  const readme = await Deno.readTextFile(new URL("README.md", EMBEDDED_MODEL));
  const attributions = [
    ...["Noto Emoji", "Apache-2.0", "Twemoji", "CC BY 4.0", "Fluent Emoji", "EmojiOne"],
    ...["FxEmoji", "openclipart", "emojibase-data", "Miles Johnson", "MIT"],
  ];
  for (const attribution of attributions) assertStringIncludes(readme, attribution);
});
