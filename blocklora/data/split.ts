/**
 * Split files in the format of CoOp (github.com/KaiyangZhou/CoOp), which list the training images
 * and the test images.
 *
 * @module
 */

import { join } from "node:path";
import { exists, readJson, writeAtomically } from "../system/files.ts";
import { isName } from "./class_names.ts";
import type { Content, Dataset, FoundSample, Sample } from "./dataset.ts";
import { below, type Entry, folderNames, leadsBelow, realFile } from "./folders.ts";

/** `[path below the root, label, class name]`, as in CoOp's split files. */
type SplitEntry = readonly [path: string, label: number, name: string];

/**
 * Writes the split of a data set in the format of CoOp's split files. The file can be passed to
 * {@linkcode openDataset} as `split`.
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

/**
 * The path of the split file in a directory; undefined if there is none.
 *
 * @throws {Error} If there are several.
 */
export function findSplit(root: string, entries: readonly Entry[]): string | undefined {
  const found = entries.filter(({ name }) => /^split_zhou_.*\.json$/.test(name));
  if (found.length < 2) return found[0] && join(root, found[0].name);
  throw new Error(
    `Cannot choose between ${
      found.map(({ name }) => name).join(" and ")
    } in ${root}: pass one as the split`,
  );
}

/**
 * Reads a split file. Its paths are relative to the root, or to one folder in it.
 *
 * @throws {Error} If it is not a split file, does not fit the images, or has a path that leads out
 * of the root.
 */
export async function readSplit(
  root: string,
  entries: readonly Entry[],
  file: string,
): Promise<Content> {
  const fail = (reason: string): never => {
    throw new Error(`Cannot use the split ${file}: ${reason}`);
  };
  if (!await exists(file)) fail("no such file or directory");
  const parsed = await readJson(file) as { train?: unknown; test?: unknown } | null;
  const [train, test] = (["train", "test"] as const).map((side) => {
    const list = parsed?.[side];
    if (!Array.isArray(list) || list.length === 0) {
      return fail(`"${side}" must be a list of [path, label, class name]`);
    }
    for (const [i, entry] of list.entries()) {
      const [path, label, name] = Array.isArray(entry) ? entry : [];
      if (typeof path === "string" && Number.isInteger(label) && label >= 0 && isName(name)) {
        if (!leadsBelow(path)) fail(`its path ${path} leads out of ${root}`);
        continue;
      }
      const shown = Object(entry) === entry ? "" : `, ${JSON.stringify(entry)},`;
      fail(`entry ${i + 1} of "${side}"${shown} is not [path, label, class name]`);
    }
    return list as SplitEntry[];
  });

  const classes: string[] = [];
  for (const [path, label, name] of [...train, ...test]) {
    if (label >= train.length + test.length) {
      fail(`label ${label} is above the number of images, labels must count from 0`);
    }
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
  const prefix = folders.findIndex((folder) => realFile(join(root, folder, first)) !== null);
  if (prefix < 0) fail(`${first} is neither in ${root} nor in a folder of it`);
  const find = ([relative, label]: SplitEntry): FoundSample => {
    const path = join(root, folders[prefix], relative);
    return { path, label, real: realFile(path) ?? fail(`there is no file ${path}`) };
  };
  return {
    classes,
    folders: classes,
    train: train.map(find),
    test: test.map(find),
    drawn: false,
    leftOut: [],
  };
}
