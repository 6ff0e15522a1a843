/**
 * The names of classes, from `classnames.json` or from their folders.
 *
 * @module
 */

import { join } from "node:path";
import { exists, readJson } from "../system/files.ts";

/** The content of `classnames.json`. */
export interface ClassNames {
  /** The name of the data set. */
  readonly dataset?: string;
  /** The prompt template, with `{}` for the class name; null if the file has none. */
  readonly template: string | null;
  /**
   * Pairs of a folder and its class name, in the order of the labels; or only names, in the order
   * of the folders. Null if there is no such file.
   */
  readonly names: readonly (readonly [folder: string, name: string])[] | readonly string[] | null;
}

/**
 * Puts the folders into the order of their labels, and names the classes.
 *
 * @throws {Error} If the names do not fit the folders.
 */
export function nameClasses(
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
  const [known, present] = [pairs.map(([folder]) => folder), new Set(folders)];
  const unknown = known.find((folder) => !present.has(folder));
  if (unknown !== undefined) fail(`there is no class folder "${unknown}"`);
  const named = new Set(known);
  const unnamed = folders.find((folder) => !named.has(folder));
  if (unnamed !== undefined) fail(`it lacks the class folder "${unnamed}"`);
  if (named.size < known.length) fail("it names a class folder twice");
  return { folders: known, classes: pairs.map(([, name]) => name) };
}

/** The name of a folder in readable form: underscores and hyphens become spaces. */
function readable(folder: string): string {
  return folder.replace(/[_-]+/g, " ").trim() || folder;
}

/**
 * Reads `classnames.json`: `{dataset?, template?, classes: [{folder, name}]}`, a map of folders to
 * names, or a list of names.
 *
 * @throws {Error} If it is none of these, or a name is empty.
 */
export async function readClassNames(root: string): Promise<ClassNames> {
  const path = join(root, "classnames.json");
  if (!await exists(path)) return { template: null, names: null };
  const parsed = await readJson(path) as Record<string, unknown>;
  const fail = (reason: string): never => {
    throw new Error(`Cannot use ${path}: ${reason}`);
  };
  if (typeof parsed !== "object" || parsed === null) {
    fail(
      'it must be {"classes": [{"folder": …, "name": …}]}, a map of folders to names, ' +
        "or a list of names",
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

/** Whether a value is a string with something other than white space in it. */
export function isName(value: unknown): value is string {
  return typeof value === "string" && value.trim() !== "";
}
