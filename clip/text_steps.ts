/**
 * What is done to a text before its words are encoded, in openai/CLIP and in Hugging Face's
 * tokenizers.
 *
 * @module
 */

import { unescapeHtml } from "./html_entities.ts";
import { repairText } from "./repair.ts";

/**
 * What Python's `str.strip` takes off: Unicode's white space and four separators that only Python
 * counts as such. Within a text white space needs no tidying, as no word holds any.
 */
const MARGIN = "[\\p{White_Space}\\x1C-\\x1F]";
const MARGINS = new RegExp(`^${MARGIN}+|(?<!${MARGIN})${MARGIN}+$`, "gu");

/** The steps from a text to the words that are encoded apart. */
export interface TextSteps {
  /** What the text becomes first. */
  readonly normalize: (text: string) => string;
  /** What a word is. */
  readonly words: RegExp;
}

/**
 * openai/CLIP's steps. Its pattern of words ignores case, which in lower-case text leaves two
 * traces: the long s (ſ) counts as an s, and U+0345, whose upper case is the letter iota, matches
 * nothing and is dropped.
 */
export const OPENAI: TextSteps = {
  normalize: (text) =>
    unescapeHtml(unescapeHtml(repairText(text))).replace(MARGINS, "").toLowerCase(),
  words:
    /<\|[sſ]tartoftext\|>|<\|endoftext\|>|'(?:[sſtmd]|re|ve|ll)|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}\u0345]+/gu,
};

/**
 * The steps that a CLIP's `tokenizer.json` names. Lower case is taken letter by letter: a sigma is
 * the same at the end of a word.
 */
export const HUGGING_FACE: TextSteps = {
  normalize: (text) =>
    Array.from(text.normalize("NFC"), (character) => character.toLowerCase()).join(""),
  words: /'(?:[stmd]|re|ve|ll)|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu,
};
