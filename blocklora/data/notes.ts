/**
 * What the user of a data set should know of it, and would not see in its numbers.
 *
 * @module
 */

import { extname } from "node:path";
import type { Content } from "./dataset.ts";
import { compareNaturally, type Entry } from "./folders.ts";

/** The {@linkcode kindOf} a folder. */
export const FOLDER = "folder";

/** How many kinds of files, or groups of classes, a note lists. */
const LISTED = 5;

/** Notes on what was left out and on classes that read alike, each of one line. */
export function notesOf(content: Content): string[] {
  return [...noteOnLeftOut(content), ...noteOnAlike(content)];
}

/** What an entry that is left out is called: its extension, or {@linkcode FOLDER}. */
export function kindOf({ name, isDirectory }: Entry): string {
  return isDirectory ? FOLDER : extname(name).toLowerCase() || "without an extension";
}

/** How many there are of each kind, the most frequent first: `2 .bmp, 1 folder`. */
export function countsOf(kinds: readonly string[]): string {
  const counts = [...Map.groupBy(kinds, (kind) => kind)]
    .map(([kind, { length }]) => ({ kind, length }))
    .sort((a, b) => b.length - a.length || compareNaturally(a.kind, b.kind));
  const rest = counts.slice(LISTED).reduce((sum, { length }) => sum + length, 0);
  const listed = counts.slice(0, LISTED).map(({ kind, length }) => `${length} ${kind}`);
  return [...listed, ...(rest > 0 ? [`${rest} more`] : [])].join(", ");
}

function noteOnLeftOut({ leftOut }: Content): string[] {
  if (leftOut.length === 0) return [];
  const remedy = leftOut.includes(".jfif") ? "; a .jfif is a JPEG, rename it to .jpg" : "";
  return [
    `left out ${countsOf(leftOut)}: ` +
    `only jpg, jpeg, png and webp files in class folders are used${remedy}`,
  ];
}

function noteOnAlike({ classes, folders }: Content): string[] {
  const groups = readAlike(classes);
  if (groups.length === 0) return [];
  const named = groups.slice(0, LISTED).map((labels) =>
    labels.map((label) =>
      quoted(classes[label]) + (folders[label] === classes[label] ? "" : ` (${folders[label]})`)
    ).join(" and ")
  );
  const rest = groups.length - named.length;
  return [`classes read alike: ${named.join("; ")}${rest > 0 ? `; and ${rest} more` : ""}`];
}

/** A name in quotes. Invisible characters and all spaces but the usual one are shown as escapes. */
function quoted(name: string): string {
  return JSON.stringify(name).replace(
    /[^\S ]|\p{Cf}/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

/** Letters of other scripts, each before the Latin letter that looks like it. */
const TWINS = new Map(
  "аa еe оo рp сc уy хx іi јj ѕs һh ԁd ԛq ԝw οo νv αa ρp".split(" ")
    .map(([letter, latin]) => [letter, latin]),
);

/**
 * Groups of classes, given by their labels, whose names a reader takes for the same: they differ at
 * most in case, spaces, hyphens and underscores, in invisible characters, or in characters that
 * look alike.
 */
function readAlike(classes: readonly string[]): number[][] {
  const seenAs = (name: string) =>
    name.normalize("NFKC").toLowerCase().replace(/\p{Cf}/gu, "")
      .replace(/[\s_\p{Pd}]+/gu, " ").trim()
      .replace(/[α-ԝ]/g, (letter) => TWINS.get(letter) ?? letter);
  return [...Map.groupBy(classes.keys(), (label) => seenAs(classes[label])).values()]
    .filter(({ length }) => length > 1);
}
