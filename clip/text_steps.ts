/**
 * What happens to a text before its words are encoded, in openai/CLIP and in Hugging Face's
 * tokenizers.
 *
 * @module
 */

import { unescapeHtml } from "./html_entities.ts";
import { repairText } from "./repair.ts";

/**
 * The characters that Python's `str.strip` removes: Unicode's white space, and four separators that
 * only Python counts as white space. White space inside a text needs no tidying, because no word
 * contains any.
 */
const MARGIN = "[\\p{White_Space}\\x1C-\\x1F]";
const MARGINS = new RegExp(`^${MARGIN}+|(?<!${MARGIN})${MARGIN}+$`, "gu");

/** The steps from a text to the words that are encoded separately. */
export interface TextSteps {
  /** Changes the text before it is split into words. */
  readonly normalize: (text: string) => string;
  /** Matches a word. */
  readonly words: RegExp;
}

/**
 * openai/CLIP's steps. Its word pattern ignores case. In lower-case text this has two effects: the
 * long s (ſ) counts as an s, and U+0345, whose upper case is the letter iota, matches nothing and
 * is dropped.
 */
export const OPENAI: TextSteps = {
  normalize: (text) =>
    unescapeHtml(unescapeHtml(repairText(text))).replace(MARGINS, "").toLowerCase(),
  words:
    /<\|[sſ]tartoftext\|>|<\|endoftext\|>|'(?:[sſtmd]|re|ve|ll)|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}\u0345]+/gu,
};

/**
 * The steps that a CLIP's `tokenizer.json` names. Each character is put into lower case by itself,
 * so a sigma at the end of a word is like any other.
 */
export const HUGGING_FACE: TextSteps = {
  normalize: (text) =>
    Array.from(text.normalize("NFC"), (character) => character.toLowerCase()).join(""),
  words: /'(?:[stmd]|re|ve|ll)|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu,
};
