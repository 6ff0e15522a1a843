/**
 * Reads the files of Hugging Face's tokenizers, and checks that they ask for CLIP's steps.
 *
 * @module
 */

import { isObject, type Json } from "./json.ts";

/** A token at which a text is split before it is split into words. */
export interface AddedToken {
  /** The text of the token. */
  readonly content: string;
  /** Its id. */
  readonly id: number;
  /**
   * Whether to look for it in the normalized text, which is in lower case, instead of the original.
   */
  readonly normalized: boolean;
  /** Whether it counts only where no letter, digit or underscore is next to it. */
  readonly singleWord: boolean;
}

/** What differs between the `tokenizer.json` files of CLIP models. */
export interface TokenizerParts {
  /** The id of each token. */
  readonly vocab: Readonly<Record<string, number>>;
  /** Pairs of tokens that become one, the earliest first. Each is a line or a pair. */
  readonly merges: readonly unknown[];
  /** Tokens that were added to the vocabulary, including those that begin and end a text. */
  readonly added: readonly AddedToken[];
}

const START = "<|startoftext|>";
const END = "<|endoftext|>";

/**
 * CLIP's word pattern, without and with the two tokens that frame a text. Older files leave these
 * to `added_tokens`.
 */
const SPLITS = ["", "<\\|startoftext\\|>|<\\|endoftext\\|>|"].map((tokens) =>
  `${tokens}'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+`
);

/** Makes a pattern that captures any of the tokens; null if there are none. */
export function splitter(tokens: readonly AddedToken[]): RegExp | null {
  // If several tokens begin at the same character, the longest wins.
  const patterns = tokens.toSorted((a, b) => b.content.length - a.content.length)
    .map(({ content, singleWord }) => {
      const literal = RegExp.escape(content);
      return singleWord ? `(?<![\\p{L}\\p{N}_])${literal}(?![\\p{L}\\p{N}_])` : literal;
    });
  return patterns.length > 0 ? new RegExp(`(${patterns.join("|")})`, "u") : null;
}

/**
 * Reads a parsed `tokenizer.json`.
 *
 * @throws {TypeError} If it holds a model other than byte pairs with `</w>` at the end of words, or
 * names steps other than CLIP's, which would give other ids.
 */
export function readTokenizerJson(json: unknown): TokenizerParts {
  const root = isObject(json) ? json : {};
  const model = isObject(root.model) ? root.model : {};
  const { type = "BPE", vocab, merges } = model;
  if (type !== "BPE") refuse(`its model is ${JSON.stringify(type)}`);
  if (!isVocabulary(vocab)) refuse("it has no vocabulary of tokens and ids");
  if (!Array.isArray(merges)) refuse("it has no list of merges");
  if (model.end_of_word_suffix !== "</w>") refuse("its words do not end with </w>");
  if (model.continuing_subword_prefix) refuse("it has a prefix for what continues a word");
  if (model.byte_fallback) refuse("it falls back to bytes");
  if (model.ignore_merges) refuse("it looks up words before merging");
  if (model.dropout) refuse("it leaves out merges at random");
  checkSteps("normalizer", root.normalizer, "normalizers", isNormalizer);
  checkSteps("pre_tokenizer", root.pre_tokenizer, "pretokenizers", isPreTokenizer);
  checkFrame(root.post_processor);
  const added = root.added_tokens ?? [];
  if (!Array.isArray(added)) refuse("its added_tokens are no list");
  return { vocab, merges, added: added.map((token) => addedToken(token, token?.id)) };
}

/**
 * The tokens that were added to a vocabulary in `vocab.json`. They come from the list in the parsed
 * `tokenizer_config.json`, or else from `added_tokens.json`. Either argument may be null.
 *
 * @throws {TypeError} If an entry is not a token, or the files are for another kind of tokenizer.
 */
export function addedTokens(config: unknown, tokens: unknown): AddedToken[] {
  checkTokenizerConfig(config);
  const listed = isObject(config) ? config.added_tokens_decoder : undefined;
  if (isObject(listed)) {
    return Object.entries(listed).map(([id, token]) => addedToken(token, Number(id)));
  }
  return Object.entries(isObject(tokens) ? tokens : {})
    .map(([content, id]) => addedToken({ content, normalized: true }, id));
}

/** The tokenizer classes that `tokenizer_config.json` may name for a CLIP. */
const CLASSES: readonly unknown[] = [
  ...[undefined, null, "CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast"],
  "TokenizersBackend",
];

function checkTokenizerConfig(config: unknown): void {
  if (!isObject(config)) return;
  const { tokenizer_class: kind, bos_token, eos_token } = config;
  const expect = (name: string, value: unknown, isKnown: boolean) => {
    if (isKnown) return;
    throw new TypeError(
      `Cannot read tokenizer_config.json as CLIP's: its ${name} is ${JSON.stringify(value)}, ` +
        "use the files of a CLIP model",
    );
  };
  expect("tokenizer_class", kind, CLASSES.includes(kind));
  for (
    const [name, token, expected] of [["bos", bos_token, START], ["eos", eos_token, END]] as const
  ) {
    const content = isObject(token) ? token.content : token;
    expect(`${name}_token`, content, content == null || content === expected);
  }
}

function addedToken(token: unknown, id: unknown): AddedToken {
  const { content, normalized = false, single_word = false } = isObject(token) ? token : {};
  const known = typeof content === "string" && content !== "" && Number.isSafeInteger(id) &&
    typeof normalized === "boolean" && typeof single_word === "boolean";
  if (!known) refuse(`its added token ${JSON.stringify(token)} has no content or no id`);
  return { content, id: id as number, normalized, singleWord: single_word };
}

/**
 * Throws unless `steps`, one step or a sequence of them under `list`, are CLIP's. They may be
 * missing: version 5 of Transformers then assumes CLIP's.
 */
function checkSteps(
  name: string,
  steps: unknown,
  list: string,
  isClips: (steps: readonly Json[]) => boolean,
): void {
  if (steps === undefined) return;
  const all = isObject(steps) && steps.type === "Sequence" ? steps[list] : [steps];
  if (Array.isArray(all) && all.every(isObject) && isClips(all)) return;
  refuse(`its ${name} is not CLIP's but ${JSON.stringify(steps).slice(0, 300)}`);
}

/**
 * Whether the steps are NFC and lower case. A step that turns runs of white space into one space is
 * allowed too, because no word contains white space.
 */
function isNormalizer(steps: readonly Json[]): boolean {
  const known = steps.filter(({ type, pattern, content }) =>
    !(type === "Replace" && isObject(pattern) && pattern.Regex === "\\s+" && content === " ")
  );
  return known.map(({ type }) => type).join() === "NFC,Lowercase";
}

function isPreTokenizer(steps: readonly Json[]): boolean {
  const [split, bytes] = steps;
  return steps.length === 2 && split.type === "Split" && isObject(split.pattern) &&
    SPLITS.includes(split.pattern.Regex as string) && split.invert === true &&
    split.behavior === "Removed" && bytes.type === "ByteLevel" && !bytes.add_prefix_space;
}

/** Throws unless a post-processor, if there is one, frames a text with CLIP's two tokens. */
function checkFrame(step: unknown): void {
  if (step === undefined || step === null) return;
  const frame = isObject(step) ? frameOf(step) : undefined;
  if (frame?.[0] === START && frame[1] === END) return;
  refuse(`its post_processor is not CLIP's but ${JSON.stringify(step).slice(0, 300)}`);
}

function frameOf({ type, cls, sep, single }: Json): unknown[] | undefined {
  if (type === "RobertaProcessing" || type === "BertProcessing") {
    return [cls, sep].map((token) => Array.isArray(token) ? token[0] : token);
  }
  if (type !== "TemplateProcessing" || !Array.isArray(single) || single.length !== 3) return;
  const special = (piece: Json) => isObject(piece.SpecialToken) ? piece.SpecialToken.id : undefined;
  return "Sequence" in single[1] ? [special(single[0]), special(single[2])] : undefined;
}

function isVocabulary(value: unknown): value is Record<string, number> {
  return isObject(value) && Object.values(value).every((id) => typeof id === "number");
}

function refuse(why: string): never {
  throw new TypeError(
    `Cannot read tokenizer.json as CLIP's byte pairs: ${why}, use the file of a CLIP model`,
  );
}
