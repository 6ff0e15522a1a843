/**
 * CLIP's byte-pair encoding of prompts. From a vocabulary and its merges, it gives the ids of
 * openai/CLIP's `SimpleTokenizer` (https://github.com/openai/CLIP, `clip/simple_tokenizer.py`),
 * except that it does not repair mojibake. From a `tokenizer.json`, it gives the ids of Hugging
 * Face's tokenizers.
 *
 * @module
 */

import { HUGGING_FACE, OPENAI, type TextSteps } from "./text_steps.ts";
import { type AddedToken, readTokenizerJson, splitter } from "./tokenizer_json.ts";
import { BYTES, CHARACTERS, inBytes, specialToken, tokensById } from "./vocabulary.ts";

/** Prompts as a text tower takes them, one row of ids each. */
export interface TokenBatch {
  /** `[rows, context]`, row by row. A row holds the start, the text, the end, then padding. */
  readonly ids: Int32Array<ArrayBuffer>;
  /** Number of texts. */
  readonly rows: number;
  /** Number of ids in each row. */
  readonly context: number;
  /** Number of ids of the longest text, including its start and end. */
  readonly longest: number;
}

/** How {@linkcode Tokenizer.tokenize} frames texts. */
export interface TokenizeOptions {
  /** Whether to cut a text that is too long instead of throwing; false by default. */
  readonly truncate?: boolean;
  /** The id that fills a row after the end of its text; 0 by default, as in openai/CLIP. */
  readonly pad?: number;
}

const START = "<|startoftext|>";
const END = "<|endoftext|>";
const END_OF_WORD = "</w>";

/** How many words to remember the ids of. Beyond that, the oldest word is forgotten. */
const REMEMBERED = 16_384;

/** Two adjacent tokens that become one. Merges with a smaller `rank` are applied earlier. */
interface Merge {
  readonly rank: number;
  readonly left: number;
  readonly right: number;
  readonly joined: number;
}

/**
 * Turns texts into token ids and back.
 *
 * ```ts
 * import { Tokenizer } from "./tokenizer.ts";
 *
 * const tokenizer = Tokenizer.fromVocabulary(
 *   {
 *     ...{ c: 0, a: 1, "t</w>": 2, "at</w>": 3, "cat</w>": 4 },
 *     ...{ "<|startoftext|>": 5, "<|endoftext|>": 6 },
 *   },
 *   "a t</w>\nc at</w>",
 * );
 * tokenizer.encode("Cat"); // [4]
 * tokenizer.tokenize(["cat"], 5).ids; // [5, 4, 6, 0, 0]
 * ```
 */
export class Tokenizer {
  /** The id before each text. */
  readonly start: number;
  /** The id after each text. */
  readonly end: number;
  /** The number of rows in a table of these tokens: the largest id, plus one. */
  readonly size: number;

  readonly #ids: ReadonlyMap<string, number>;
  readonly #tokens: readonly string[];
  readonly #merges: ReadonlyMap<number, Merge>;
  readonly #steps: TextSteps;
  /**
   * Patterns of the added tokens at which a text is split: before it is normalized, and afterwards.
   */
  readonly #added: readonly [written: RegExp | null, normalized: RegExp | null];
  /** The ids of the tokens that are found afterwards, by their normalized text. */
  readonly #normalized: ReadonlyMap<string, number>;
  readonly #remembered: Map<string, readonly number[]> = new Map();

  private constructor(
    vocab: Readonly<Record<string, number>>,
    merges: readonly (readonly string[])[],
    added: readonly AddedToken[],
    steps: TextSteps,
  ) {
    this.#steps = steps;
    this.#ids = new Map([
      ...Object.entries(vocab),
      ...added.map(({ content, id }) => [content, id] as const),
    ]);
    const normalized = added.filter((token) => token.normalized)
      .map((token) => ({ ...token, content: steps.normalize(token.content) }))
      .filter(({ content }) => content !== ""); // white space alone, which no text has then
    this.#added = [splitter(added.filter((token) => !token.normalized)), splitter(normalized)];
    this.#normalized = new Map(normalized.map(({ content, id }) => [content, id]));
    const tokens = tokensById(this.#ids);
    this.size = tokens.length;
    // Unlike the vocabulary's, added tokens are spelled in characters and not in bytes.
    for (const { content, id } of added) tokens[id] = inBytes(content);
    this.#tokens = tokens;
    this.start = specialToken(this.#ids, START);
    this.end = specialToken(this.#ids, END);
    this.#merges = new Map(merges.map((pair, rank) => {
      const [left, right, joined] = [pair[0], pair[1], pair.join("")].map((token) => {
        const id = this.#ids.get(token);
        if (id !== undefined) return id;
        throw new RangeError(
          `Cannot use merge ${rank + 1}, "${pair.join(" ")}": the vocabulary has no "${token}", ` +
            "give the two that belong together",
        );
      });
      return [this.#pairKey(left, right), { rank, left, right, joined }];
    }));
  }

  /**
   * Reads the contents of `vocab.json` and `merges.txt`. The `#version` line of `merges.txt` may be
   * missing. `added` are tokens at which a text is split, such as those of textual inversion. They
   * need not include the start and end tokens.
   *
   * @throws {RangeError} If the vocabulary is empty, lacks `<|startoftext|>` or `<|endoftext|>`,
   * gives an id twice, or lacks a token that the merges name.
   */
  static fromVocabulary(
    vocab: Record<string, number>,
    merges: string,
    added: readonly AddedToken[] = [],
  ): Tokenizer {
    const lines = merges.split(/\r?\n/);
    if (lines[0].startsWith("#version")) lines.shift();
    const pairs = lines.filter((line) => line !== "").map(splitMerge);
    const more = added.filter(({ content }) => content !== START && content !== END);
    return new Tokenizer(vocab, pairs, more, OPENAI);
  }

  /**
   * Reads the parsed `tokenizer.json` of Hugging Face's tokenizers. Its steps must be those of a
   * CLIP: NFC and lower case, without openai/CLIP's repairs. `more` are added tokens from other
   * files beside it. Those that the `tokenizer.json` also has are ignored.
   *
   * @throws {TypeError} If it names steps other than CLIP's, or a model other than byte pairs with
   * `</w>` at the end of words.
   * @throws {RangeError} If {@linkcode Tokenizer.fromVocabulary} would throw for its contents.
   */
  static fromTokenizerJson(json: unknown, more: readonly AddedToken[] = []): Tokenizer {
    const { vocab, merges, added } = readTokenizerJson(json);
    const held = new Set(added.map(({ content }) => content));
    const all = [...added, ...more.filter(({ content }) => !held.has(content))];
    return new Tokenizer(vocab, merges.map(splitMerge), all, HUGGING_FACE);
  }

  /**
   * The ids of a text, without start and end. Case and white space do not matter. A letter with a
   * separate accent counts as the accented letter, `<|endoftext|>` within a text is its token, and
   * half a surrogate pair is U+FFFD. Without a `tokenizer.json`, the text is repaired first
   * (`repair.ts`): curly quotes become straight ones, for example, and HTML character references
   * are replaced.
   *
   * @throws {RangeError} If the vocabulary lacks a byte of the text.
   */
  encode(text: string): number[] {
    const { normalize, words } = this.#steps;
    const [written, normalized] = this.#added;
    return this.#split(text, written, (piece) =>
      this.#split(
        normalize(piece),
        normalized,
        (piece) => [...piece.matchAll(words)].flatMap(([word]) => this.#encodeWord(word)),
      ));
  }

  /** Splits a text at `tokens`, and encodes the pieces between them with `encode`. */
  #split(
    text: string,
    tokens: RegExp | null,
    encode: (piece: string) => readonly number[],
  ): number[] {
    if (tokens === null) return [...encode(text)];
    // The pattern is a capturing group, so every other piece is a token.
    return text.split(tokens).flatMap((piece, i) =>
      i % 2 === 1 ? [this.#normalized.get(piece) ?? this.#ids.get(piece)!] : encode(piece)
    );
  }

  /**
   * The text of ids, in lower case and with a space after each word. Bytes that are not UTF-8
   * become U+FFFD.
   *
   * @throws {RangeError} If the vocabulary lacks one of the ids.
   */
  decode(ids: ArrayLike<number>): string {
    const characters = Array.from(ids, (id) => {
      const token = this.#tokens[id];
      if (token !== undefined) return token;
      throw new RangeError(`Cannot decode token ${id}: the vocabulary ends at ${this.size - 1}`);
    }).join("");
    const bytes = Uint8Array.from(characters, (character) => BYTES.get(character) ?? 0x3F);
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes)
      .replaceAll(END_OF_WORD, " ");
  }

  /**
   * Frames texts for a model of `context` positions as `clip.tokenize` does: start, ids, end, then
   * padding. With `truncate`, a longer text is cut after `context - 1` ids, its start included, and
   * the end is added.
   *
   * @throws {RangeError} If a text does not fit and `truncate` is not set, or `context` is not a
   * positive integer.
   */
  tokenize(
    texts: readonly string[],
    context: number,
    { truncate = false, pad = 0 }: TokenizeOptions = {},
  ): TokenBatch {
    if (!Number.isInteger(context) || context < 1) {
      throw new RangeError(
        `Cannot tokenize to ${context} positions: it must be a positive integer`,
      );
    }
    const ids = new Int32Array(texts.length * context).fill(pad);
    let longest = 0;
    texts.forEach((text, row) => {
      const framed = [this.start, ...this.encode(text), this.end];
      if (framed.length > context) {
        if (!truncate) throw tooLong(text, framed.length, context);
        framed.splice(context - 1, Infinity, this.end);
      }
      longest = Math.max(longest, framed.length);
      ids.set(framed, row * context);
    });
    return { ids, rows: texts.length, context, longest };
  }

  #encodeWord(word: string): readonly number[] {
    if (word === START) return [this.start];
    if (word === END) return [this.end];
    const known = this.#remembered.get(word);
    if (known !== undefined) return known;
    const ids = this.#merge(this.#pieces(word));
    if (this.#remembered.size === REMEMBERED) {
      this.#remembered.delete(this.#remembered.keys().next().value!);
    }
    this.#remembered.set(word, ids);
    return ids;
  }

  /** The ids of a word's bytes. The token of the last byte also marks the end of the word. */
  #pieces(word: string): number[] {
    const bytes = new TextEncoder().encode(word);
    return Array.from(bytes, (byte, at) => {
      const token = CHARACTERS[byte] + (at === bytes.length - 1 ? END_OF_WORD : "");
      const id = this.#ids.get(token);
      if (id !== undefined) return id;
      throw new RangeError(
        `Cannot encode "${word}": the vocabulary has no "${token}", use one that has every byte`,
      );
    });
  }

  /**
   * Finds the earliest merge that applies and joins its pair everywhere, until no merge applies.
   */
  #merge(ids: number[]): number[] {
    for (;;) {
      let merge: Merge | undefined;
      for (let at = 1; at < ids.length; at++) {
        const candidate = this.#merges.get(this.#pairKey(ids[at - 1], ids[at]));
        if (candidate !== undefined && (merge === undefined || candidate.rank < merge.rank)) {
          merge = candidate;
        }
      }
      if (merge === undefined) return ids;
      let length = 0;
      for (let at = 0; at < ids.length; at++) {
        const joins = ids[at] === merge.left && ids[at + 1] === merge.right;
        ids[length++] = joins ? merge.joined : ids[at];
        if (joins) at++;
      }
      ids.length = length;
    }
  }

  #pairKey(left: number, right: number): number {
    return left * this.size + right;
  }
}

/** Splits a merge into its two tokens. It may be a line or already a pair. */
function splitMerge(merge: unknown, index: number): readonly string[] {
  const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge;
  if (isPair(pair)) return pair;
  throw new RangeError(
    `Cannot use merge ${index + 1}, ${JSON.stringify(merge)}: it must be two tokens`,
  );
}

function isPair(value: unknown): value is readonly [string, string] {
  return Array.isArray(value) && value.length === 2 &&
    value.every((token) => typeof token === "string" && token !== "");
}

function tooLong(text: string, length: number, context: number): RangeError {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return new RangeError(
    `Cannot tokenize "${shown}": it has ${length} tokens with start and end and the context is ` +
      `${context}, shorten it, or pass { truncate: true }`,
  );
}
