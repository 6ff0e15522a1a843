import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertThrows,
} from "@std/assert";
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
  await assertRefused([...train, "test/"], "it has no test images");
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
    [{ train: [...train, null], test }, 'entry 3 of "train", null, is not [path, label, class'],
    [{ train: [...train, ["../secret.png", 0, "A"]], test }, "path ../secret.png leads out of"],
    [{ train: [...train, ["a/../../secret.png", 0, "A"]], test }, "leads out of"],
    [{ train, test: [["/etc/hostname", 0, "A"]] }, "its path /etc/hostname leads out of"],
    [{ train: [...train, ["a/3.png", 2 ** 40, "A"]], test }, "is above the number of images"],
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

Deno.test({
  name: "openDataset() refuses pipes, devices and links to themselves instead of waiting for them",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withFiles([
      ...images("data/train/a", 2),
      ...images("data/train/b", 2),
      ...images("data/test/b", 1),
    ], async (root) => {
      const sh = async (script: string) =>
        assert(
          (await new Deno.Command("sh", { args: ["-c", script], cwd: root }).output()).success,
        );
      const refused = async (path: string, make: string, reason: string, remove = `rm ${path}`) => {
        await sh(make);
        const error = await assertRejects(() => openDataset(`${root}/data`), Error, reason);
        assertMatch(error.message, /^Cannot .*\/data/);
        await sh(remove);
      };
      const image = "data/train/a/x.png";
      await refused(image, `mkfifo ${image}`, "x.png: it is not a file, remove it");
      await refused(image, `ln -s /dev/zero ${image}`, "x.png: it is not a file");
      await refused(image, `ln -s x.png ${image}`, "x.png: the link leads nowhere (too many");
      await refused("data/train/c", "ln -s . data/train/c", 'class "c"');
      for (const file of ["classnames.json", "split_zhou_X.json"]) {
        const path = `data/${file}`;
        await refused(path, `mkfifo ${path}`, `${file}: it is not a file`);
        await refused(path, `mkdir ${path}`, `${file}: it is not a file`, `rmdir ${path}`);
      }
      // Deno shows such a name with U+FFFD in it, and finds no file of that name.
      const odd = `"$(printf 'data/train/a/caf\\351.png')"`;
      await refused(odd, `touch ${odd}`, "caf\ufffd.png: its name is not UTF-8, rename or remove");
      const folder = `"$(printf 'data/train/caf\\351')"`;
      await refused(folder, `mkdir ${folder}`, "its name is not UTF-8", `rmdir ${folder}`);
      // A pipe that is not named like an image is only left out.
      await sh("mkfifo data/train/a/pipe data/pipe");
      await Deno.writeTextFile(`${root}/data/train/a/\ufffd.png`, "");
      const { ignored, train } = await openDataset(`${root}/data`);
      assertEquals([ignored, train.length], [1, 5]);
    }),
});

Deno.test("openDataset() takes a folder that is named like an image for a class", () =>
  withFiles([
    ...["train/a.png", "train/b.jpg", "test/a.png"].flatMap((folder) => images(folder, 1)),
  ], async (root) => {
    assertEquals((await openDataset(root)).classes, ["a.png", "b.jpg"]);
  }));

Deno.test("openDataset() notes what it leaves out, and classes that read alike", async () => {
  const notes = async (files: Parameters<typeof withFiles>[0]) => {
    let found: readonly string[] = [];
    await withFiles(files, async (root) => {
      found = (await openDataset(root)).notes;
    });
    return found;
  };
  const used = "only jpg, jpeg, png and webp files in class folders are used";
  const two = [...images("a", 2), ...images("b", 2)];
  assertEquals(await notes([...two, "a/.DS_Store", "b/Thumbs.db", "notes.txt"]), []);
  assertEquals(
    await notes([...two, "a/x.BMP", "b/x.bmp", "b/x.txt", "b/none", "b/folder/1.png", "x.png"]),
    [
      "left out 2 .bmp, 1 .txt, 1 beside the class folders, 1 folder, " +
      `1 without an extension: ${used}`,
    ],
  );
  assertEquals(
    await notes([...two, ..."abcdefg".split("").map((kind) => `a/x.${kind}`)]),
    [`left out 1 .a, 1 .b, 1 .c, 1 .d, 1 .e, 2 more: ${used}`],
  );
  assertEquals(
    await notes([...two, "a/x.jfif"]),
    [`left out 1 .jfif: ${used}; a .jfif is a JPEG, rename it to .jpg`],
  );
  await assertRefused([...two, "c/x.jfif", "c/x.gif"], "webp) but 1 .gif, 1 .jfif, add some");

  const alike = async (a: string, b: string) =>
    await notes([...two, ["classnames.json", { a, b }]]);
  const same = [
    ["Cat", "cat"],
    ["sea_lake", "Sea  lake "],
    ["t-shirt", "t shirt"],
    ["caf\u00e9", "cafe\u0301"],
    ["cat", "c\u0430t"],
    ["\uff43at", "cat"],
  ];
  for (const [a, b] of same) {
    assertEquals(await alike(a, b), [
      `classes read alike: ${JSON.stringify(a)} (a) and ${JSON.stringify(b)} (b)`,
    ]);
  }
  assertEquals(await alike("cat", "cat\u200b\u00a0"), [
    'classes read alike: "cat" (a) and "cat\\u{200b}\\u{a0}" (b)',
  ]);
  for (const [a, b] of [["cat", "cats"], ["r\u00e9sum\u00e9", "resume"], ["1", "10"]]) {
    assertEquals(await alike(a, b), []);
  }
  assertEquals(await notes([...images("Cat", 2), ...images("cat ", 2), ...images("b", 2)]), [
    'classes read alike: "Cat" and "cat" (cat )',
  ]);
});

Deno.test("classnames.json and split files may begin with a byte order mark", async () => {
  const marked = (content: unknown) => `\ufeff${JSON.stringify(content)}`;
  await withFiles([
    ...images("a", 2),
    ...images("b", 2),
    ["classnames.json", marked(["A", "B"])],
  ], async (root) => {
    assertEquals((await openDataset(root)).classes, ["A", "B"]);
    const [train, test] = [[["a/1.png", 0, "C"], ["b/1.png", 1, "D"]], [["a/2.png", 0, "C"]]];
    await Deno.writeTextFile(`${root}/split_zhou_X.json`, marked({ train, test }));
    assertEquals((await openDataset(root)).classes, ["C", "D"]);
  });
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
