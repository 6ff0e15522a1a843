/**
 * Directories as people have them: links followed, hidden files left out, numbers in their order.
 *
 * @module
 */

import { join, relative, sep } from "node:path";
import { reasonOf } from "../system/files.ts";

/** Files that are images, by their names. */
export const IMAGE = /\.(jpe?g|png|webp)$/i;

/** One of the things that a directory holds, links followed. */
export interface Entry {
  /** What the directory calls it. */
  readonly name: string;
  /** Whether it is a directory too. */
  readonly isDirectory: boolean;
  /** The path that it has without any link. */
  readonly real: string;
}

/** The entries of a directory in natural order, without hidden ones. */
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

/** The file that a path leads to; null where there is none. */
export async function realFile(path: string): Promise<string | null> {
  try {
    return (await Deno.stat(path)).isFile ? await Deno.realPath(path) : null;
  } catch {
    return null;
  }
}

/** A path from `root` on, with `/` everywhere. */
export function below(root: string, path: string): string {
  return relative(root, path).replaceAll(sep, "/");
}

/** Orders texts with their numbers by value, `a2` before `a10`, the same in every locale. */
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
