/**
 * Repairs text as openai/CLIP's tokenizer does first, with `fix_text` of the ftfy package. It
 * replaces curly quotes, ligatures, full-width forms, letters with separate accents, and other
 * characters that look like another one or are invisible. Only mojibake, text that was decoded with
 * the wrong table, stays as it is.
 *
 * @module
 */

import { unescapeHtml } from "./html_entities.ts";

/**
 * Repairs a text. The steps and their order are those of ftfy 6.3 (github.com/rspeer/python-ftfy,
 * `ftfy/fixes.py`), which repeats them until nothing changes.
 */
export function repairText(text: string): string {
  // From the first line that contains `<`, the text may be HTML. Replace character references only
  // before it.
  const tag = text.indexOf("<");
  const plain = tag < 0 ? text.length : text.lastIndexOf("\n", tag) + 1;
  return repeated(text.slice(0, plain), [unescapeReferences, ...STEPS]) +
    repeated(text.slice(plain), STEPS);
}

type Step = (text: string) => string;

function repeated(text: string, steps: readonly Step[]): string {
  const repaired = steps.reduce((before, step) => step(before), text);
  return repaired === text ? text : repeated(repaired, steps);
}

/**
 * Replaces character references that have their semicolon, even if their names were turned into
 * upper case.
 */
function unescapeReferences(text: string): string {
  return text.replace(/&#?[0-9A-Za-z]{1,24};/g, (reference) => {
    const [plain, lower] = [unescapeHtml(reference), reference.toLowerCase()];
    if (plain !== reference) return plain.includes(";") ? reference : plain;
    const isUpper = reference === reference.toUpperCase();
    return isUpper && unescapeHtml(lower) !== lower ? unescapeHtml(lower).toUpperCase() : reference;
  });
}

const LIGATURES: Readonly<Record<string, string>> = {
  ...{
    "Ĳ": "IJ",
    "ĳ": "ij",
    "ŉ": "ʼn",
    "Ǳ": "DZ",
    "ǲ": "Dz",
    "ǳ": "dz",
    "Ǆ": "DŽ",
    "ǅ": "Dž",
    "ǆ": "dž",
  },
  ...{ "Ǉ": "LJ", "ǈ": "Lj", "ǉ": "lj", "Ǌ": "NJ", "ǋ": "Nj", "ǌ": "nj" },
  ...{ "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ſt", "ﬆ": "st" },
};

const STEPS: readonly Step[] = [
  (text) =>
    text.replace(/[Ĳĳŉ\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06]/g, (letter) => LIGATURES[letter]),
  (text) => text.replace(/[\u3000\uff01-\uffef]/g, (wide) => wide.normalize("NFKC")),
  (text) => text.replace(/[“-‟]/g, '"').replace(/[ʼ‘-‛]/g, "'"),
  (text) => text.replace(/\r\n|[\r\u2028\u2029\x85]/g, "\n"),
  // deno-lint-ignore no-control-regex -- terminal colours
  (text) => text.replace(/\x1b\[[\d;]*[a-zA-Z]/g, ""),
  // deno-lint-ignore no-control-regex -- control characters
  (text) => text.replace(/[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g, ""),
  (text) => text.normalize("NFC"),
];
