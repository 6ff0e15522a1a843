/**
 * Lists directories: follows links, leaves out hidden files, and sorts numbers by value.
 *
 * @module
 */

import { join, relative, sep } from "node:path";
import { reasonOf } from "../system/files.ts";

/** Matches the names of image files. */
export const IMAGE = /\.(jpe?g|png|webp)$/i;

/** An entry of a directory. A symbolic link is described by what it leads to. */
export interface Entry {
  /** Its name in the directory. */
  readonly name: string;
  /** Whether it is a directory. */
  readonly isDirectory: boolean;
  /** The path with all symbolic links resolved. */
  readonly real: string;
}

/**
 * The entries of a directory in natural order, without hidden ones.
 *
 * @throws {Error} If the directory cannot be read, or has a broken link.
 */
export async function list(directory: string): Promise<Entry[]> {
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

/** The folders among the entries. */
export function folderNames(entries: readonly Entry[]): string[] {
  return entries.filter(({ isDirectory }) => isDirectory).map(({ name }) => name);
}

/** The path of a file with all symbolic links resolved; null if there is no such file. */
export async function realFile(path: string): Promise<string | null> {
  try {
    return (await Deno.stat(path)).isFile ? await Deno.realPath(path) : null;
  } catch {
    return null;
  }
}

/** A path relative to `root`, with `/` as the separator. */
export function below(root: string, path: string): string {
  return relative(root, path).replaceAll(sep, "/");
}

/**
 * Compares strings in natural order, with numbers by value: `a2` comes before `a10`. The order is
 * the same in every locale.
 */
export function compareNaturally(a: string, b: string): number {
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
