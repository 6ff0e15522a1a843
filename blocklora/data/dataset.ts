/**
 * Reads a folder of images as a classification task: the training images, the test images and the
 * class names.
 *
 * @module
 */

import { basename, join, resolve } from "node:path";
import { Random } from "../../tensor/random.ts";
import { type ClassNames, nameClasses, readClassNames } from "./class_names.ts";
import { type Entry, folderNames, IMAGE, list } from "./folders.ts";
import { countsOf, FOLDER, kindOf, notesOf } from "./notes.ts";
import { findSplit, readSplit } from "./split.ts";

/** An image and its class. */
export interface Sample {
  /** The path of the image file. It starts with the data set's root. */
  readonly path: string;
  /** The index of its class. */
  readonly label: number;
}

/** A classification task: images to train on and images to test on. */
export interface Dataset {
  /** The directory that all paths start with. */
  readonly root: string;
  /** The name of the data set: `dataset` in `classnames.json`, or the name of the directory. */
  readonly name: string;
  /** The name of each class, as used in prompts. */
  readonly classes: readonly string[];
  /** The folder of each class. With a split file, the class names again. */
  readonly folders: readonly string[];
  /** Images to draw shots from. */
  readonly train: readonly Sample[];
  /** Images to measure accuracy on. */
  readonly test: readonly Sample[];
  /**
   * The prompt template of `classnames.json`, with `{}` for the class name; null if there is none.
   */
  readonly template: string | null;
  /** Whether the split was drawn at random here. It can be saved with {@linkcode writeSplit}. */
  readonly drawn: boolean;
  /** How many files are left out because they are not images of a class, without hidden files. */
  readonly ignored: number;
  /** What its user should know: what was left out, and classes that read alike. One line each. */
  readonly notes: readonly string[];
}

/** How {@linkcode openDataset} reads a directory. */
export interface DatasetOptions {
  /** Seed of the random split, which is drawn if the directory has no split. Default 1. */
  readonly seed?: number;
  /** The fraction of each class that the random split sets aside for testing. Default 0.3. */
  readonly testShare?: number;
  /** A split file: CoOp's, or one from {@linkcode writeSplit}. */
  readonly split?: string;
}

/** A sample, and the file that its path leads to. Two links to the same file count as one image. */
export interface FoundSample extends Sample {
  /** The path with all symbolic links resolved. */
  readonly real: string;
}

/** The images and classes of a directory. */
export type Content = Pick<Dataset, "classes" | "folders" | "drawn"> & {
  readonly train: readonly FoundSample[];
  readonly test: readonly FoundSample[];
  /** The kind of each file and folder that is left out: {@linkcode kindOf}. */
  readonly leftOut: readonly string[];
};

/**
 * Reads a directory of images in one of these layouts:
 *
 * - a split file, given or found as the only `split_zhou_*.json` (the format of CoOp,
 *   github.com/KaiyangZhou/CoOp); its paths are relative to the root or to one folder in it, and
 *   its `val` list is not used;
 * - `train/CLASS/*` and `test/CLASS/*`;
 * - only `CLASS/*`: the images of each class are split at random, depending on the seed.
 *
 * `classnames.json` beside the folders gives the class names, their order and a prompt template.
 * Without it, the classes are the folders in natural order, with underscores and hyphens turned
 * into spaces.
 *
 * @throws {Error} If there is no such directory, a class is empty, there are fewer than two
 * classes, a class has test images but no training images, there are no test images, an image is in
 * both train and test or is not a file, or `classnames.json` or the split file does not fit the
 * images.
 */
export async function openDataset(root: string, options: DatasetOptions = {}): Promise<Dataset> {
  const { seed = 1, testShare = 0.3 } = options;
  if (!(testShare > 0 && testShare < 1)) {
    throw new RangeError(
      `Cannot keep a share of ${testShare} for testing: it must be within 0 and 1`,
    );
  }
  const entries = await list(root);
  const named = await readClassNames(root);
  const split = options.split ?? findSplit(root, entries);
  const content = split !== undefined
    ? await readSplit(root, entries, split)
    : await isSide(root, entries, "train")
    ? await readTrainAndTest(root, entries, named)
    : await readClasses(root, entries, named, seed, testShare);
  if (content.classes.length < 2) {
    throw new Error(
      `Cannot use ${root}: 2 classes or more are needed, it has ${content.classes.length} ` +
        "(train/CLASS/* and test/CLASS/*, or CLASS/*)",
    );
  }
  const train = new Set(content.train.map(({ real }) => real));
  const twice = content.test.find(({ real }) => train.has(real));
  if (twice) throw new Error(`Cannot use ${root}: ${twice.path} is in both train and test`);
  if (content.test.length === 0) {
    throw new Error(`Cannot use ${root}: it has no test images, add test/CLASS/*`);
  }
  const plain = ({ path, label }: Sample): Sample => ({ path, label });
  const { classes, folders, drawn, leftOut } = content;
  return {
    ...{ classes, folders, drawn },
    ignored: leftOut.filter((kind) => kind !== FOLDER).length,
    notes: notesOf(content),
    root,
    name: named.dataset ?? basename(resolve(root)),
    train: content.train.map(plain),
    test: content.test.map(plain),
    template: named.template,
  };
}

/**
 * Whether `train` or `test` is a folder of classes. If it contains images directly, it is itself a
 * class.
 */
async function isSide(
  root: string,
  entries: readonly Entry[],
  side: "train" | "test",
): Promise<boolean> {
  if (!folderNames(entries).includes(side)) return false;
  return !(await list(join(root, side))).some(isImage);
}

/** Reads `train/CLASS/*` and `test/CLASS/*`. */
async function readTrainAndTest(
  root: string,
  entries: readonly Entry[],
  named: ClassNames,
): Promise<Content> {
  const [trainRoot, testRoot] = [join(root, "train"), join(root, "test")];
  const training = folderNames(await list(trainRoot));
  if (!await isSide(root, entries, "test")) {
    throw new Error(
      `Cannot use ${root}: it has train/CLASS but no test/CLASS, ` +
        `add it, or pass ${trainRoot} to split that`,
    );
  }
  const testing = folderNames(await list(testRoot));
  const { folders, classes } = nameClasses(root, training, named);
  const unknown = testing.find((folder) => !folders.includes(folder));
  if (unknown !== undefined) {
    throw new Error(`Cannot use ${root}: class "${unknown}" is in test but not in train`);
  }
  const train = await readFolders(trainRoot, folders);
  const test = await readFolders(testRoot, folders, testing);
  return {
    classes,
    folders,
    train: train.samples,
    test: test.samples,
    drawn: false,
    leftOut: [...train.leftOut, ...test.leftOut],
  };
}

/** Reads `CLASS/*`, and sets some images of each class aside for testing. */
async function readClasses(
  root: string,
  entries: readonly Entry[],
  named: ClassNames,
  seed: number,
  testShare: number,
): Promise<Content> {
  const { folders, classes } = nameClasses(root, folderNames(entries), named);
  const { samples, leftOut } = await readFolders(root, folders);
  const byLabel = Map.groupBy(samples, ({ label }) => label);
  const random = new Random(seed, "split");
  const tested = new Set<FoundSample>();
  for (const [label, folder] of folders.entries()) {
    const images = byLabel.get(label)!;
    if (images.length < 2) {
      throw new Error(
        `Cannot split class "${folder}" of ${root}: it has 1 image, ` +
          "one to train and one to test are needed",
      );
    }
    const count = Math.min(Math.max(Math.round(images.length * testShare), 1), images.length - 1);
    for (const sample of random.fork(folder).shuffle(images).slice(0, count)) tested.add(sample);
  }
  return {
    classes,
    folders,
    train: samples.filter((sample) => !tested.has(sample)),
    test: samples.filter((sample) => tested.has(sample)),
    drawn: true,
    leftOut: [...leftOut, ...entries.filter(isImage).map(() => "beside the class folders")],
  };
}

/** The images of the class folders that are `present`, in natural order. */
async function readFolders(
  root: string,
  folders: readonly string[],
  present: readonly string[] = folders,
): Promise<Pick<Content, "leftOut"> & { samples: FoundSample[] }> {
  const samples: FoundSample[] = [];
  const leftOut: string[] = [];
  const read = new Set(present);
  for (const [label, folder] of folders.entries()) {
    if (!read.has(folder)) continue;
    const directory = join(root, folder);
    const entries = await list(directory);
    const images = entries.filter(isImage);
    const rest = entries.filter((entry) => !isImage(entry)).map(kindOf);
    if (images.length === 0) {
      throw new Error(
        `Cannot use class "${folder}": ${directory} has no images (jpg, jpeg, png or webp)` +
          `${rest.length > 0 ? ` but ${countsOf(rest)}` : ""}, add some or remove it`,
      );
    }
    for (const kind of rest) leftOut.push(kind);
    for (const { name, real, isFile } of images) {
      const path = join(directory, name);
      if (!isFile) throw new Error(`Cannot use ${path}: it is not a file, remove it`);
      samples.push({ path, label, real });
    }
  }
  return { samples, leftOut };
}

function isImage({ name, isDirectory }: Entry): boolean {
  return !isDirectory && IMAGE.test(name);
}
