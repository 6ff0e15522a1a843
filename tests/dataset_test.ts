import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { fileURLToPath } from "node:url";
import { type Dataset, openDataset } from "../blocklora/data/dataset.ts";
import { drawShots } from "../blocklora/data/shots.ts";
import { writeSplit } from "../blocklora/data/split.ts";
import { shared, skip } from "./fixtures.ts";

/**
 * Makes a directory with these files, empty unless their content is given, and runs `body` on it.
 */
async function withFiles(
  files: readonly (string | readonly [string, unknown])[],
  body: (root: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir();
  try {
    for (const file of files) {
      const [path, content] = typeof file === "string" ? [file, ""] : file;
      const full = `${root}/${path}`;
      await Deno.mkdir(full.slice(0, full.lastIndexOf("/")), { recursive: true });
      if (path.endsWith("/")) continue;
      await Deno.writeTextFile(
        full,
        typeof content === "string" ? content : JSON.stringify(content),
      );
    }
    await body(root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

/** `count` images of a class. */
const images = (folder: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${folder}/${i + 1}.png`);

const paths = (root: string, samples: Dataset["train"]) =>
  samples.map(({ path, label }) => `${label} ${path.slice(root.length + 1)}`);

/** Asserts that opening fails in one line with these words. */
async function assertRefused(
  files: Parameters<typeof withFiles>[0],
  words: string,
  options: (root: string) => Parameters<typeof openDataset>[1] = () => ({}),
): Promise<void> {
  await withFiles(files, async (root) => {
    const error = await assertRejects(() => openDataset(root, options(root)), Error, words);
    assert(error.message.startsWith("Cannot ") && !error.message.includes("\n"), error.message);
  });
}

Deno.test("openDataset() reads train/CLASS and test/CLASS in natural order", () =>
  withFiles([
    "train/sea_lake/b10.jpg",
    "train/sea_lake/b9.JPEG",
    "train/sea_lake/b.webp",
    "train/sea_lake/.hidden.png",
    "train/sea_lake/Thumbs.db",
    "train/sea_lake/notes.txt",
    "train/sea_lake/nested/x.png",
    "train/Annual-Crop/1.PNG",
    "train/10/1.png",
    "train/9/1.png",
    "train/.ipynb_checkpoints/1.png",
    "train/README.md",
    "test/9/2.png",
    "test/sea_lake/1.gif",
    "test/sea_lake/1.png",
    "val/9/7.png",
  ], async (root) => {
    const dataset = await openDataset(root);
    assertEquals(dataset.folders, ["9", "10", "Annual-Crop", "sea_lake"]);
    assertEquals(dataset.classes, ["9", "10", "Annual Crop", "sea lake"]);
    assertEquals(paths(root, dataset.train), [
      "0 train/9/1.png",
      "1 train/10/1.png",
      "2 train/Annual-Crop/1.PNG",
      "3 train/sea_lake/b9.JPEG",
      "3 train/sea_lake/b10.jpg",
      "3 train/sea_lake/b.webp",
    ]);
    assertEquals(paths(root, dataset.test), ["0 test/9/2.png", "3 test/sea_lake/1.png"]);
    assertEquals(dataset.ignored, 2);
    assertEquals(
      [dataset.root, dataset.name, dataset.template, dataset.drawn],
      [root, root.split("/").at(-1), null, false],
    );
  }));

Deno.test("openDataset() splits CLASS by seed, a share of each class", () =>
  withFiles([...images("cat", 10), ...images("dog", 21), ...images("train", 2)], async (root) => {
    const dataset = await openDataset(root);
    const counts = (samples: Dataset["train"]) =>
      [0, 1, 2].map((label) => samples.filter((sample) => sample.label === label).length);
    assertEquals(dataset.classes, ["cat", "dog", "train"]);
    assertEquals([counts(dataset.train), counts(dataset.test)], [[7, 15, 1], [3, 6, 1]]);
    assertEquals(new Set([...dataset.train, ...dataset.test].map(({ path }) => path)).size, 33);
    assert(dataset.drawn);
    assertEquals(await openDataset(root), dataset);
    assertEquals(await openDataset(root, { seed: 1, testShare: 0.3 }), dataset);
    assertNotEquals((await openDataset(root, { seed: 2 })).test, dataset.test);
    const mostly = await openDataset(root, { testShare: 0.99 });
    assertEquals([counts(mostly.train), counts(mostly.test)], [[1, 1, 1], [9, 20, 1]]);
    for (const testShare of [0, 1, NaN]) {
      await assertRejects(() => openDataset(root, { testShare }), RangeError, "within 0 and 1");
    }
    // Other classes do not change the split of a class.
    await Deno.mkdir(`${root}/ape`);
    for (const name of ["1.png", "2.png"]) await Deno.writeTextFile(`${root}/ape/${name}`, "");
    const more = await openDataset(root);
    const dogs = ({ test }: Dataset) =>
      test.map(({ path }) => path).filter((path) => /dog/.test(path));
    assertEquals(dogs(more), dogs(dataset));
  }));

Deno.test("writeSplit() writes what openDataset() reads again", () =>
  withFiles([...images("data/sea_lake", 5), ...images('data/it\'s "x"', 4)], async (root) => {
    const dataset = await openDataset(`${root}/data/`);
    const split = `${root}/split.json`;
    await writeSplit(dataset, split);
    const again = await openDataset(`${root}/data`, { split, seed: 7 });
    assertEquals(again.train, dataset.train);
    assertEquals(again.test, dataset.test);
    assertEquals(again.classes, dataset.classes);
    assertEquals(again.drawn, false);
    assertEquals(drawShots(again, 2, 1), drawShots(dataset, 2, 1));
    await writeSplit(again, `${root}/again.json`);
    assertEquals(await Deno.readTextFile(`${root}/again.json`), await Deno.readTextFile(split));
  }));

Deno.test("openDataset() reads split files of the root or a folder of it", async () => {
  const split = {
    train: [["a/1.jpg", 0, "Alpha"], ["b/1.jpg", 1, "Beta Max"], ["a/2.jpg", 0, "Alpha"]],
    val: [["a/none.jpg", 0, "Alpha"]],
    test: [["b/2.jpg", 1, "Beta Max"]],
  };
  for (const prefix of ["", "images/", "2750/"]) {
    const files = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"].map((path) => prefix + path);
    await withFiles([...files, ["split_zhou_X.json", split], "zzz/"], async (root) => {
      const dataset = await openDataset(root);
      assertEquals(dataset.classes, ["Alpha", "Beta Max"]);
      assertEquals(dataset.folders, dataset.classes);
      assertEquals(paths(root, dataset.train), [
        `0 ${prefix}a/1.jpg`,
        `1 ${prefix}b/1.jpg`,
        `0 ${prefix}a/2.jpg`,
      ]);
      assertEquals(paths(root, dataset.test), [`1 ${prefix}b/2.jpg`]);
      await Deno.rename(`${root}/split_zhou_X.json`, `${root}/other.json`);
      assertEquals(await openDataset(root, { split: `${root}/other.json` }), dataset);
    });
  }
});

Deno.test("openDataset() takes names, order and prompt from classnames.json", async () => {
  const folders = [...images("train/a_a", 1), ...images("train/b", 1), ...images("test/b", 1)];
  const forms: [unknown, string[], string[], string | null][] = [
    [
      {
        dataset: "Two",
        template: "a {} photo",
        classes: [{ folder: "b", name: "Bee" }, { folder: "a_a", name: "Double A" }],
      },
      ["b", "a_a"],
      ["Bee", "Double A"],
      "a {} photo",
    ],
    [{ b: "Bee", a_a: "Double A" }, ["b", "a_a"], ["Bee", "Double A"], null],
    [["Double A", "Bee"], ["a_a", "b"], ["Double A", "Bee"], null],
    [[{ folder: "b", name: "x" }, { folder: "a_a", name: "x" }], ["b", "a_a"], ["x", "x"], null],
  ];
  for (const [content, order, names, template] of forms) {
    await withFiles([...folders, ["classnames.json", content]], async (root) => {
      const dataset = await openDataset(root);
      assertEquals([dataset.folders, dataset.classes], [order, names]);
      assertEquals(dataset.template, template);
      assertEquals(dataset.name === "Two", template !== null);
      assertEquals(paths(root, dataset.test), [`${order.indexOf("b")} test/b/1.png`]);
    });
  }
});

Deno.test("openDataset() says what is wrong with classnames.json", async () => {
  const folders = [...images("a", 2), ...images("b", 2)];
  const refused: [unknown, string][] = [
    ["{", "it is not JSON"],
    ["3", "it must be"],
    ["null", "it must be"],
    [{ a: "A", b: "B", c: "C" }, 'there is no class folder "c"'],
    [{ a: "A" }, 'it lacks the class folder "b"'],
    [{ a: "A", b: "" }, "entry 2 must have a folder and a name"],
    [{ a: "A", b: 2 }, "entry 2 must have a folder and a name"],
    [["A"], "it has names for 1 of 2 class folders"],
    [["A", { folder: "b", name: "B" }], "entry 2 must have"],
    [["A", null], "entry 2 must have"],
    [{ classes: [{ folder: "a", name: "A" }, { folder: "b" }] }, "entry 2 must have"],
    [[..."aab"].map((folder) => ({ folder, name: folder })), "it names a class folder twice"],
    [{ template: "a photo", classes: ["A", "B"] }, 'a text with "{}"'],
    [{ template: 3, classes: ["A", "B"] }, 'a text with "{}"'],
    [{ classes: [] }, 'it lacks the class folder "a"'],
  ];
  for (const [content, words] of refused) {
    await assertRefused([...folders, ["classnames.json", content]], words);
  }
});

Deno.test("openDataset() says what is wrong with folders", async () => {
  await assertRejects(
    () => openDataset("/no/such/directory"),
    Error,
    "Cannot read /no/such/directory: no such file or directory",
  );
  await withFiles(["file"], async (root) => {
    await assertRejects(() => openDataset(`${root}/file`), Error, "not a directory");
  });
  await assertRefused([], "2 classes or more are needed, it has 0");
  await assertRefused(["a.png", "b.png"], "2 classes or more are needed, it has 0");
  await assertRefused(images("only", 3), "2 classes or more are needed, it has 1");
  await assertRefused([...images("train/a", 2), ...images("test/a", 2)], "it has 1");
  await assertRefused([...images("a", 3), "b/"], 'Cannot use class "b"');
  await assertRefused([...images("a", 3), "b/x.txt"], 'Cannot use class "b"');
  await assertRefused([...images("a", 3), "b/1.png"], 'Cannot split class "b"');
  const train = [...images("train/a", 2), ...images("train/b", 2)];
  await assertRefused([...train, ...images("test/a", 1), "test/b/"], 'Cannot use class "b"');
  await assertRefused([...train, "train/c/", ...images("test/a", 1)], 'Cannot use class "c"');
  await assertRefused(
    [...train, ...images("test/a", 1), ...images("test/c", 1)],
    'class "c" is in test but not in train',
  );
  await assertRefused(train, "it has train/CLASS but no test/CLASS");
});

Deno.test("openDataset() says what is wrong with a split file", async () => {
  const files = [...images("a", 3), ...images("b", 3)];
  const train = [["a/1.png", 0, "A"], ["b/1.png", 1, "B"]];
  const test = [["a/2.png", 0, "A"]];
  const refused: [unknown, string][] = [
    ["[", "it is not JSON"],
    ["null", '"train" must be a list'],
    [{ train }, '"test" must be a list'],
    [{ train: [], test }, '"train" must be a list'],
    [{ train: { a: 1 }, test }, '"train" must be a list'],
    [{ train: [...train, ["a/3.png", "0", "A"]], test }, "is not [path, label, class name]"],
    [{ train: [...train, ["a/3.png", -1, "A"]], test }, "is not [path, label, class name]"],
    [{ train: [...train, ["a/3.png", 0.5, "A"]], test }, "is not [path, label, class name]"],
    [{ train: [...train, ["a/3.png", 0]], test }, "is not [path, label, class name]"],
    [{ train: [...train, null], test }, "null is not [path, label, class name]"],
    [
      { train: [...train, ["a/3.png", 0, "Other"]], test },
      'label 0 is "A" and, for a/3.png, "Other"',
    ],
    [{ train: [...train, ["a/3.png", 3, "D"]], test }, "label 2 has no images"],
    [{ train: [...train, ["a/9.png", 0, "A"]], test }, "there is no file"],
    [{ train, test: [["a", 0, "A"]] }, "there is no file"],
    [{ train: [["x/1.png", 0, "A"], ...train], test }, "x/1.png is neither in"],
    [{ train, test: [...test, ["b/2.png", 2, "C"]] }, 'class "C" is in test but not in train'],
    [{ train, test: [...test, ["./a/../a/1.png", 0, "A"]] }, "is in both train and test"],
    [{ train: train.slice(0, 1), test }, "2 classes or more are needed, it has 1"],
  ];
  for (const [content, words] of refused) {
    await assertRefused([...files, ["split_zhou_X.json", content]], words);
    await assertRefused(
      [...files, ["s.json", content]],
      words,
      (root) => ({ split: `${root}/s.json` }),
    );
  }
  await assertRefused(files, "no such file", () => ({ split: "/no/split.json" }));
  await assertRefused(
    [...files, ["split_zhou_X.json", {}], ["split_zhou_Y.json", {}]],
    "Cannot choose between split_zhou_X.json and split_zhou_Y.json",
  );
});

Deno.test({
  name: "openDataset() follows links, and sees when they lead to the same image",
  ignore: Deno.build.os === "windows",
  fn: () =>
    withFiles([
      ...images("store/a", 2),
      ...images("data/train/b", 1),
      ...images("data/test/b", 2),
    ], async (root) => {
      await Deno.symlink(`${root}/store/a`, `${root}/data/train/a`);
      await Deno.symlink(`${root}/store/a/2.png`, `${root}/data/train/b/linked.png`);
      const data = `${root}/data`;
      const dataset = await openDataset(data);
      assertEquals(paths(data, dataset.train), [
        "0 train/a/1.png",
        "0 train/a/2.png",
        "1 train/b/1.png",
        "1 train/b/linked.png",
      ]);
      await Deno.symlink(`${root}/store/a/1.png`, `${data}/test/b/3.png`);
      await assertRejects(() => openDataset(data), Error, "test/b/3.png is in both train and test");
      await Deno.remove(`${data}/test/b/3.png`);
      await Deno.symlink(`${root}/none.png`, `${data}/test/b/4.png`);
      await assertRejects(() => openDataset(data), Error, "test/b/4.png: the link leads nowhere");
    }),
});

Deno.test("drawShots() draws by seed, in whatever order and folder the files are", () =>
  withFiles([...images("train/a", 30), ...images("train/b", 30), "test/a/x.png"], async (root) => {
    const dataset = await openDataset(root);
    const shots = drawShots(dataset, 4, 1);
    assertEquals(shots.map(({ label }) => label), [0, 0, 0, 0, 1, 1, 1, 1]);
    assertEquals(new Set(shots.map(({ path }) => path)).size, 8);
    const numbers = (samples: Dataset["train"]) =>
      samples.map(({ path }) => path.match(/\d+(?=\.)/)![0]);
    assertNotEquals(numbers(shots).slice(0, 4), numbers(shots).slice(4));
    assertNotEquals(drawShots(dataset, 4, 2), shots);

    const moved = dataset.train.map(({ path, label }) => ({
      path: path.replace(root, "/elsewhere/9"),
      label,
    }));
    const reversed = { ...dataset, root: "/elsewhere/9", train: moved.reverse() };
    assertEquals(paths("/elsewhere/9", drawShots(reversed, 4, 1)), paths(root, shots));
    const eight = drawShots(dataset, 8, 1);
    assertEquals([...eight.slice(0, 4), ...eight.slice(8, 12)], shots);
    assertEquals(new Set(drawShots(dataset, 30, 1)), new Set(dataset.train));
    assertThrows(
      () => drawShots(dataset, 31, 1),
      RangeError,
      'Cannot draw 31 shots of class "a": it has 30 training images',
    );
    for (const count of [0, -1, 1.5, NaN]) {
      assertThrows(() => drawShots(dataset, count, 1), RangeError);
    }
  }));

const eurosat = shared("data/eurosat-fewshot/");
if (!eurosat) skip("openDataset() reads EuroSAT");
else {
  Deno.test("openDataset() reads EuroSAT", async () => {
    const dataset = await openDataset(fileURLToPath(eurosat));
    assertEquals([dataset.train.length, dataset.test.length, dataset.ignored], [160, 500, 0]);
    assertEquals(dataset.classes[0], "Annual Crop Land");
    assertEquals(dataset.template, "a photo of a {}.");
    assertEquals(dataset.name, "EuroSAT RGB (few-shot subset)");
    assertEquals(drawShots(dataset, 16, 1).length, 160);
  });
}
