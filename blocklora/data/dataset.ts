/**
 * A folder of images as a classification task: which files train, which test, and what the classes are called.
 *
 * @module
 */

import { basename, join, relative, resolve, sep } from "node:path";
import { Random } from "../../tensor/random.ts";
import { exists, readJson, reasonOf, writeAtomically } from "../system/files.ts";

/** An image and its class. */
export interface Sample {
  /** The image file, below the data set's root. */
  readonly path: string;
  /** The number of its class. */
  readonly label: number;
}

/** Images to train and to test on. */
export interface Dataset {
  /** The directory that all paths start with. */
  readonly root: string;
  /** What to call it: `dataset` of `classnames.json`, or the directory's name. */
  readonly name: string;
  /** The name of each class, to be put into prompts. */
  readonly classes: readonly string[];
  /** The folder of each class; with a split file, the name again. */
  readonly folders: readonly string[];
  /** Images to draw shots from. */
  readonly train: readonly Sample[];
  /** Images to measure accuracy on. */
  readonly test: readonly Sample[];
  /** The prompt that `classnames.json` asks for, `{}` standing for the name. */
  readonly template: string | null;
  /** Whether train and test were told apart here: write the split down with {@linkcode writeSplit}. */
  readonly drawn: boolean;
  /** How many files in the folders are no images; hidden ones are not counted. */
  readonly ignored: number;
}

/** How {@linkcode openDataset} reads a directory. */
export interface DatasetOptions {
  /** Seed of the split that is made where there is none. Default 1. */
  readonly seed?: number;
  /** Share of each class that this split keeps for testing. Default 0.3. */
  readonly testShare?: number;
  /** A split file: CoOp's, or one from {@linkcode writeSplit}. */
  readonly split?: string;
}

/** `[path below the root, label, class name]`, as in CoOp's split files. */
type SplitEntry = readonly [path: string, label: number, name: string];

/** A sample, and the file that it really is: one that is linked to twice counts once. */
interface Found extends Sample {
  readonly real: string;
}

/** Names and prompt from `classnames.json`. */
interface ClassNames {
  readonly dataset?: string;
  readonly template: string | null;
  /** Pairs of folder and name, in the order of the labels; or names alone, in the order of the folders. */
  readonly names: readonly (readonly [folder: string, name: string])[] | readonly string[] | null;
}

/** What a directory's images and classes are. */
type Content = Pick<Dataset, "classes" | "folders" | "drawn" | "ignored"> & {
  readonly train: readonly Found[];
  readonly test: readonly Found[];
};

const IMAGE = /\.(jpe?g|png|webp)$/i;

/**
 * Reads a directory of images in one of these layouts:
 *
 * - a split file, given or found as the only `split_zhou_*.json` (the format of CoOp, github.com/KaiyangZhou/CoOp);
 *   its paths start at the root or at one folder in it, its `val` part is not used;
 * - `train/CLASS/*` and `test/CLASS/*`;
 * - `CLASS/*` alone: a split is made for each class by seed.
 *
 * `classnames.json` beside the folders gives readable names, their order and a prompt; without it classes are in
 * natural order, and underscores and hyphens of the folders become spaces.
 *
 * @throws {Error} If there is no such directory, a class is empty, there are less than two classes, one is tested but
 *   never trained, an image is on both sides, or a file that describes the images does not fit them.
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
  const plain = ({ path, label }: Sample): Sample => ({ path, label });
  return {
    ...content,
    root,
    name: named.dataset ?? basename(resolve(root)),
    train: content.train.map(plain),
    test: content.test.map(plain),
    template: named.template,
  };
}

/**
 * Draws `shots` training images of each class, class by class. The draw depends on the seed, the class's name and the
 * images' paths below the root, not on the order in which a directory lists them; fewer shots of the same seed are the
 * first of more.
 *
 * @throws {RangeError} If a class has fewer images than `shots`.
 */
export function drawShots(dataset: Dataset, shots: number, seed: number): Sample[] {
  if (!Number.isInteger(shots) || shots < 1) {
    throw new RangeError(`Cannot draw ${shots} shots: it must be a whole number above 0`);
  }
  const random = new Random(seed, "shots");
  const classes: Sample[][] = dataset.classes.map(() => []);
  for (const sample of dataset.train) classes[sample.label].push(sample);
  return classes.flatMap((samples, label) => {
    if (samples.length < shots) {
      throw new RangeError(
        `Cannot draw ${shots} shots of class "${
          dataset.classes[label]
        }": it has ${samples.length} ` +
          "training images, add some or ask for fewer shots",
      );
    }
    const sorted = samples.toSorted((a, b) => compareNaturally(a.path, b.path));
    return random.fork(dataset.classes[label]).shuffle(sorted).slice(0, shots);
  });
}

/**
 * Writes which images train and which test, in the format of CoOp's split files, for {@linkcode openDataset}'s
 * `split`.
 *
 * @throws {Error} If the file cannot be written.
 */
export async function writeSplit(dataset: Dataset, path: string): Promise<void> {
  const lines = (samples: readonly Sample[]) =>
    samples.map(({ path, label }) => {
      const entry: SplitEntry = [below(dataset.root, path), label, dataset.classes[label]];
      return `    ${JSON.stringify(entry)}`;
    }).join(",\n");
  await writeAtomically(
    path,
    `{\n  "train": [\n${lines(dataset.train)}\n  ],\n  "val": [],\n  "test": [\n${
      lines(dataset.test)
    }\n  ]\n}\n`,
  );
}

/** Whether `train` or `test` is a folder of classes; one that has images itself is a class of that name. */
async function isSide(
  root: string,
  entries: readonly Entry[],
  side: "train" | "test",
): Promise<boolean> {
  if (!folderNames(entries).includes(side)) return false;
  return !(await list(join(root, side))).some(({ name }) => IMAGE.test(name));
}

/** `train/CLASS/*` and `test/CLASS/*`. */
async function readTrainAndTest(
  root: string,
  entries: readonly Entry[],
  named: ClassNames,
): Promise<Content> {
  const [trainRoot, testRoot] = [join(root, "train"), join(root, "test")];
  const training = folderNames(await list(trainRoot));
  if (!await isSide(root, entries, "test")) {
    throw new Error(
      `Cannot use ${root}: it has train/CLASS but no test/CLASS, add it, or pass ${trainRoot} to split that`,
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
    ignored: train.ignored + test.ignored,
  };
}

/** `CLASS/*`, of which some are kept for testing. */
async function readClasses(
  root: string,
  entries: readonly Entry[],
  named: ClassNames,
  seed: number,
  testShare: number,
): Promise<Content> {
  const { folders, classes } = nameClasses(root, folderNames(entries), named);
  const { samples, ignored } = await readFolders(root, folders);
  const random = new Random(seed, "split");
  const tested = new Set<Found>();
  for (const [label, folder] of folders.entries()) {
    const own = samples.filter((sample) => sample.label === label);
    if (own.length < 2) {
      throw new Error(
        `Cannot split class "${folder}" of ${root}: it has 1 image, one to train and one to test are needed`,
      );
    }
    const count = Math.min(Math.max(Math.round(own.length * testShare), 1), own.length - 1);
    for (const sample of random.fork(folder).shuffle(own).slice(0, count)) tested.add(sample);
  }
  return {
    classes,
    folders,
    train: samples.filter((sample) => !tested.has(sample)),
    test: samples.filter((sample) => tested.has(sample)),
    drawn: true,
    ignored,
  };
}

/** The images of each class folder, in natural order; of those not `present`, none. */
async function readFolders(
  root: string,
  folders: readonly string[],
  present: readonly string[] = folders,
): Promise<{ samples: Found[]; ignored: number }> {
  const samples: Found[] = [];
  let ignored = 0;
  for (const [label, folder] of folders.entries()) {
    if (!present.includes(folder)) continue;
    const directory = join(root, folder);
    const files = (await list(directory)).filter(({ isDirectory }) => !isDirectory);
    const images = files.filter(({ name }) => IMAGE.test(name));
    if (images.length === 0) {
      throw new Error(
        `Cannot use class "${folder}": ${directory} has no images (jpg, jpeg, png or webp), add some or remove it`,
      );
    }
    ignored += files.length - images.length;
    for (const { name, real } of images) samples.push({ path: join(directory, name), label, real });
  }
  return { samples, ignored };
}

function findSplit(root: string, entries: readonly Entry[]): string | undefined {
  const found = entries.filter(({ name }) => /^split_zhou_.*\.json$/.test(name));
  if (found.length < 2) return found[0] && join(root, found[0].name);
  throw new Error(
    `Cannot choose between ${
      found.map(({ name }) => name).join(" and ")
    } in ${root}: pass one as the split`,
  );
}

async function readSplit(
  root: string,
  entries: readonly Entry[],
  file: string,
): Promise<Content> {
  const fail = (reason: string): never => {
    throw new Error(`Cannot use the split ${file}: ${reason}`);
  };
  if (!await exists(file)) fail("no such file or directory");
  const parsed = await readJson(file) as { train?: unknown; test?: unknown } | null;
  const parts = [parsed?.train, parsed?.test].map((part, i) => {
    if (!Array.isArray(part) || part.length === 0) {
      return fail(`"${["train", "test"][i]}" must be a list of [path, label, class name]`);
    }
    for (const entry of part) {
      const [path, label, name] = Array.isArray(entry) ? entry : [];
      if (typeof path === "string" && Number.isInteger(label) && label >= 0 && isName(name)) {
        continue;
      }
      fail(`${JSON.stringify(entry)} is not [path, label, class name]`);
    }
    return part as SplitEntry[];
  });
  const [train, test] = parts;

  const classes: string[] = [];
  for (const [path, label, name] of [...train, ...test]) {
    classes[label] ??= name;
    if (classes[label] !== name) {
      fail(`label ${label} is "${classes[label]}" and, for ${path}, "${name}"`);
    }
  }
  const trained = new Set(train.map(([, label]) => label));
  for (let label = 0; label < classes.length; label++) {
    if (classes[label] === undefined) {
      fail(`label ${label} has no images, labels must count from 0`);
    }
    if (!trained.has(label)) fail(`class "${classes[label]}" is in test but not in train`);
  }

  const folders = ["", ...folderNames(entries)];
  const [[first]] = train;
  const prefix = (await Promise.all(folders.map((folder) => realFile(join(root, folder, first)))))
    .findIndex((real) => real !== null);
  if (prefix < 0) fail(`${first} is neither in ${root} nor in a folder of it`);
  const find = async ([relative, label]: SplitEntry): Promise<Found> => {
    const path = join(root, folders[prefix], relative);
    return { path, label, real: await realFile(path) ?? fail(`there is no file ${path}`) };
  };
  return {
    classes,
    folders: classes,
    train: await Promise.all(train.map(find)),
    test: await Promise.all(test.map(find)),
    drawn: false,
    ignored: 0,
  };
}

/** Brings the folders into the order of their labels, and names them. */
function nameClasses(
  root: string,
  folders: readonly string[],
  { names }: ClassNames,
): { folders: string[]; classes: string[] } {
  if (!names) return { folders: [...folders], classes: folders.map(readable) };
  const fail = (reason: string): never => {
    throw new Error(`Cannot use ${join(root, "classnames.json")}: ${reason}`);
  };
  if (typeof names[0] === "string" && names.length !== folders.length) {
    fail(`it has names for ${names.length} of ${folders.length} class folders`);
  }
  const pairs = names.map((entry, i) => typeof entry === "string" ? [folders[i], entry] : entry);
  const known = pairs.map(([folder]) => folder);
  const unknown = known.find((folder) => !folders.includes(folder));
  if (unknown !== undefined) fail(`there is no class folder "${unknown}"`);
  const unnamed = folders.find((folder) => !known.includes(folder));
  if (unnamed !== undefined) fail(`it lacks the class folder "${unnamed}"`);
  if (new Set(known).size < known.length) fail("it names a class folder twice");
  return { folders: known, classes: pairs.map(([, name]) => name) };
}

/** A folder's name as people would write it. */
function readable(folder: string): string {
  return folder.replace(/[_-]+/g, " ").trim() || folder;
}

/**
 * `classnames.json` as `{dataset?, template?, classes: [{folder, name}]}`, as a map of folders to names, or as a list
 * of names.
 */
async function readClassNames(root: string): Promise<ClassNames> {
  const path = join(root, "classnames.json");
  if (!await realFile(path)) return { template: null, names: null };
  const parsed = await readJson(path) as Record<string, unknown>;
  const fail = (reason: string): never => {
    throw new Error(`Cannot use ${path}: ${reason}`);
  };
  if (typeof parsed !== "object" || parsed === null) {
    fail(
      'it must be {"classes": [{"folder": …, "name": …}]}, a map of folders to names, or a list of names',
    );
  }
  const structured = Array.isArray(parsed.classes);
  const listed = structured ? parsed.classes : parsed;
  const names = Array.isArray(listed)
    ? listed.map((entry) => isName(entry) ? entry : [entry?.folder, entry?.name])
    : Object.entries(listed as object);
  for (const [i, entry] of names.entries()) {
    if (typeof entry === typeof names[0] && [entry].flat().every(isName)) continue;
    fail(`entry ${i + 1} must have a folder and a name`);
  }
  const { dataset, template = null } = structured ? parsed : {};
  if (template !== null && !(isName(template) && template.includes("{}"))) {
    fail('its template must be a text with "{}" in it');
  }
  return {
    dataset: isName(dataset) ? dataset : undefined,
    template: template as string | null,
    names: names as ClassNames["names"],
  };
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value.trim() !== "";
}

/** What a directory holds, links followed. */
interface Entry {
  readonly name: string;
  readonly isDirectory: boolean;
  readonly real: string;
}

/** The entries of a directory in natural order, without hidden ones. */
async function list(directory: string): Promise<Entry[]> {
  const entries: Entry[] = [];
  try {
    const parent = await Deno.realPath(directory);
    for await (const { name, isDirectory, isSymlink } of Deno.readDir(directory)) {
      if (name.startsWith(".") || name === "Thumbs.db") continue;
      entries.push({ name, isDirectory, real: isSymlink ? "" : join(parent, name) });
    }
  } catch (error) {
    throw new Error(
      `Cannot read ${directory}: ${
        reasonOf(error)
      }, name a directory with train/CLASS/* and test/CLASS/*, or CLASS/*`,
      { cause: error },
    );
  }
  const followed = entries.map(async (entry) =>
    entry.real ? entry : await follow(directory, entry)
  );
  return (await Promise.all(followed)).sort((a, b) => compareNaturally(a.name, b.name));
}

async function follow(directory: string, { name }: Entry): Promise<Entry> {
  const path = join(directory, name);
  try {
    const { isDirectory } = await Deno.stat(path);
    return { name, isDirectory, real: await Deno.realPath(path) };
  } catch (error) {
    throw new Error(
      `Cannot read ${path}: the link leads nowhere (${reasonOf(error)}), mend or remove it`,
    );
  }
}

function folderNames(entries: readonly Entry[]): string[] {
  return entries.filter(({ isDirectory }) => isDirectory).map(({ name }) => name);
}

/** The file that a path leads to; null where there is none. */
async function realFile(path: string): Promise<string | null> {
  try {
    return (await Deno.stat(path)).isFile ? await Deno.realPath(path) : null;
  } catch {
    return null;
  }
}

function below(root: string, path: string): string {
  return relative(root, path).replaceAll(sep, "/");
}

/** Orders texts with their numbers by value: `a2` before `a10`. No locale has a say in it. */
function compareNaturally(a: string, b: string): number {
  const [x, y] = [a, b].map((text) => text.match(/\d+|\D+/g) ?? []);
  const isNumber = (piece: string) => /^\d/.test(piece);
  for (let i = 0; i < x.length && i < y.length; i++) {
    if (isNumber(x[i]) && isNumber(y[i])) {
      const difference = Number(x[i]) - Number(y[i]);
      if (difference) return difference;
    } else if (x[i] !== y[i]) return x[i] < y[i] ? -1 : 1;
  }
  return x.length - y.length || (a < b ? -1 : Number(a > b));
}
