import { existsSync } from "node:fs";
import { assertEquals, assertGreater, assertStringIncludes, assertThrows } from "@std/assert";
import { unescapeHtml } from "../clip/html_entities.ts";
import { repairText } from "../clip/repair.ts";
import { Tokenizer } from "../clip/tokenizer.ts";
import { addedTokens } from "../clip/tokenizer_json.ts";
import { fixtures, shared, skip } from "./fixtures.ts";

const START = "<|startoftext|>";
const END = "<|endoftext|>";

/**
 * A vocabulary of every byte, alone (0 to 255) and at the end of a word (256 to 511), as every
 * vocabulary of CLIP begins.
 */
function byteTokens(): string[] {
  const shown = Array.from({ length: 256 }, (_, byte) => byte)
    .filter((byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173));
  const characters: string[] = [];
  for (const byte of shown) characters[byte] = String.fromCharCode(byte);
  for (let byte = 0, next = 256; byte < 256; byte++) {
    characters[byte] ??= String.fromCharCode(next++);
  }
  return [...characters, ...characters.map((character) => `${character}</w>`)];
}

const MERGES = ["a t</w>", "t h", "th e</w>", "c at</w>", "a a", "aa a", "a b", "aaa a</w>"];
const TOKENS = [...byteTokens(), ...MERGES.map((merge) => merge.replace(" ", "")), START, END];
const VOCABULARY = Object.fromEntries(TOKENS.map((token, id) => [token, id]));
const SMALL = Tokenizer.fromVocabulary(VOCABULARY, `#version: 0.2\n${MERGES.join("\n")}\n`);

/** The tokens of a text, by name. */
function tokens(text: string): string {
  return SMALL.encode(text).map((id) => TOKENS[id]).join(" ");
}

/** The ids of words in which nothing merges. */
function unmerged(...words: string[]): number[] {
  return words.flatMap((word) => {
    const bytes = [...new TextEncoder().encode(word)];
    return bytes.map((byte, at) => byte + (at === bytes.length - 1 ? 256 : 0));
  });
}

function modelJson(changes: Record<string, unknown> = {}): unknown {
  const model = { type: "BPE", end_of_word_suffix: "</w>", vocab: VOCABULARY, merges: MERGES };
  return { version: "1.0", model: { ...model, ...changes } };
}

Deno.test("merges the earliest pair first, everywhere in the word, from the left", () => {
  assertEquals(tokens("the cat"), "the</w> cat</w>");
  assertEquals(tokens("at that"), "at</w> th at</w>");
  assertEquals(tokens("aaa"), "aa a</w>");
  assertEquals(tokens("aaaa"), "aaaa</w>");
  assertEquals(tokens("aaaaaa"), "aa aaaa</w>");
  assertEquals(tokens("aabx"), "aa b x</w>");
  assertEquals(tokens(""), "");
});

Deno.test("gives the same ids to a word that it remembers", () => {
  const first = SMALL.encode("the cat");
  first.fill(0);
  assertEquals(tokens("the cat the cat"), "the</w> cat</w> the</w> cat</w>");
});

Deno.test("forgets old words without getting new ones wrong", () => {
  for (let number = 0; number < 20_000; number++) {
    SMALL.encode(number.toString(2).replaceAll("0", "x").replaceAll("1", "y"));
  }
  assertEquals(tokens("xyx the"), "x y x</w> the</w>");
});

Deno.test("splits words as openai/CLIP's pattern does", () => {
  const same = (text: string, ...words: string[]) =>
    assertEquals(SMALL.encode(text), unmerged(...words), text);
  same("I'M we'Ll he'd", "i", "'m", "we", "'ll", "he", "'d");
  same("rock'n'roll's", "rock", "'", "n", "'", "roll", "'s");
  same("o'ſo", "o", "'ſ", "o");
  same("42x½", "4", "2", "x", "½");
  same("no!?...(yes", "no", "!?...(", "yes");
  same("ΟΔΟΣ ΣΟ", "οδος", "σο");
  same("İ", "i", "\u0307");
  same("e\u0301", "é");
  same("x\u0301", "x", "\u0301");
  same("x\u0345y", "x", "y");
  same("🐕🐈 猫", "🐕🐈", "猫");
});

Deno.test("counts as white space what Python does", () => {
  assertEquals(SMALL.encode(" \t\x1C \x85\u3000x\u2028\xA0y\x1F\n"), unmerged("x", "y"));
  assertEquals(SMALL.encode("x\u200By\u180E"), unmerged("x", "\u200B", "y", "\u180E"));
});

Deno.test("repairs a text as ftfy does before openai/CLIP sees it", () => {
  const same = (text: string, ...words: string[]) =>
    assertEquals(SMALL.encode(text), unmerged(...words), JSON.stringify(text));
  same("cafe\u0301 A\u030Angstro\u0308m", "café", "ångström");
  same("\u212B\u2126 \u1112\u1161\u11AB", "åω", "한");
  same("don’t “so”", "don", "'t", '"', "so", '"');
  same("‘n’ ‛x‟", "'", "n", "'", "'", "x", '"');
  same("oﬃce ﬁsh ﬅ Ǆ Ĳ ŉ", "office", "fish", "ſt", "dž", "ij", "'", "n");
  same("ｆｕｌｌ　ｗｉｄｔｈ！ ｶﾞ", "full", "width", "!", "ガ");
  same("x\x1Cy \uFEFFz\x00\x7F\u206A\uFFFC", "xy", "z");
  same("\x1B[31mred\x1B[0m", "red");
  same("x\u2028y\x85z\r\nw", "x", "y", "z", "w");
  same("&EACUTE; &eacute;\n<&eacute; &EACUTE;>", "é", "é", "<", "é", "&", "eacute", ";>");
  // Other Unicode forms would change these; ftfy does not.
  same("½ ² Ⅷ ™ ａ", "½", "²", "ⅷ", "™", "a");
});

Deno.test("finds special tokens within a text, but not right after punctuation", () => {
  const { start, end } = SMALL;
  assertEquals(SMALL.encode(`${START}x${END}`), [start, ...unmerged("x"), end]);
  assertEquals(SMALL.encode("x <|EndOfText|>!"), [...unmerged("x"), end, ...unmerged("!")]);
  assertEquals(SMALL.encode(`!${END}`), unmerged("!<|", "endoftext", "|>"));
  assertEquals(SMALL.encode("<|ſtartoftext|>"), unmerged("<|ſtartoftext|>"));
});

Deno.test("encodes half a surrogate pair as U+FFFD", () => {
  assertEquals(SMALL.encode("x\uD83D"), unmerged("x", "\uFFFD"));
});

Deno.test("stays quick on long runs of one character", () => {
  const run = (character: string) => character.repeat(100_000);
  // A quadratic step would take hours for these.
  const ids = SMALL.encode(`x${run(" ")}y${run("\x1C")}z${run("&")} ${run("\x85")}${run("é")}`);
  assertEquals(ids.length, 1 + 2 + 100_000 + 200_000);
});

Deno.test("replaces character references as HTML has them, twice", () => {
  const cases = {
    "&lt;&LT;&lt &amp;lt;": "<<< &lt;",
    "&notit; &notin; &NotAName; &;& &": "¬it; ∉ &NotAName; &;& &",
    "&acE; &fjlig;": "\u223E\u0333 fj",
    "&#65;&#x42;&#X63 &#;&#x;": "ABc &#;&#x;",
    "&#0;&#xD800;&#x110000;&#99999999999999999999;": "\uFFFD\uFFFD\uFFFD\uFFFD",
    "&#128;&#x99;&#x81;": "€™\x81",
    "&#1;&#11;&#127;&#xFDD0;&#x1FFFF;": "",
    "&#9;&#10;&#12;&#13;": "\t\n\f\r",
    "&CounterClockwiseContourIntegral;": "∳",
    "&copyé&eacute\u{1F600};": "©éé\u{1F600};",
  };
  for (const [text, wanted] of Object.entries(cases)) {
    assertEquals(unescapeHtml(text), wanted, text);
  }
  assertEquals(SMALL.encode("&amp;lt;"), unmerged("<"));
  // ftfy replaces them until none is left, unless the line may be HTML.
  assertEquals(SMALL.encode("&amp;amp;amp;lt;"), unmerged("<"));
  assertEquals(SMALL.encode("<&amp;amp;amp;lt;"), unmerged("<&", "amp", ";", "lt", ";"));
});

Deno.test("decodes to lower case with a space after each word", () => {
  assertEquals(SMALL.decode(SMALL.encode("The CAT 猫!")), "the cat 猫 ! ");
  assertEquals(SMALL.decode(Int32Array.of(SMALL.start, 0xE7 + 256, 0x78)), `${START}\uFFFD x`);
  const mark = unmerged("\uFEFF", "x"); // which encode() removes, and decode() may not
  assertEquals(SMALL.decode(mark), "\uFEFF x ");
  assertEquals(SMALL.decode([]), "");
  for (const id of [-1, 0.5, SMALL.size]) {
    assertThrows(() => SMALL.decode([id]), RangeError, `${id}`);
  }
});

Deno.test("frames, pads and cuts", () => {
  const { start, end } = SMALL;
  const cat = VOCABULARY["cat</w>"];
  const batch = SMALL.tokenize(["cat", "cat cat", ""], 5);
  assertEquals([batch.rows, batch.context, batch.longest], [3, 5, 4]);
  assertEquals([...batch.ids], [
    start,
    cat,
    end,
    0,
    0,
    start,
    cat,
    cat,
    end,
    0,
    start,
    end,
    0,
    0,
    0,
  ]);
  assertEquals([...SMALL.tokenize(["cat"], 4, { pad: end }).ids], [start, cat, end, end]);
  const cut = SMALL.tokenize(["cat cat cat"], 3, { truncate: true });
  assertEquals([...cut.ids], [start, cat, end]);
  assertEquals(cut.longest, 3);
  assertEquals(SMALL.tokenize(["cat"], 3).ids.length, 3);
  assertEquals(SMALL.tokenize([], 77).ids.length, 0);
});

Deno.test("refuses a text that does not fit, and says which", () => {
  const { message } = assertThrows(() => SMALL.tokenize(["cat", "cat cat"], 3), RangeError);
  assertEquals(
    message,
    'Cannot tokenize "cat cat": it has 4 tokens with start and end and the context is 3, ' +
      "shorten it, or pass { truncate: true }",
  );
  for (const context of [0, -1, 2.5]) {
    assertThrows(() => SMALL.tokenize([], context), RangeError, `${context} positions`);
  }
});

Deno.test("reads vocabulary and merges however they are written", () => {
  const text = "the cat's aaaa";
  const wanted = SMALL.encode(text);
  const pairs = MERGES.map((merge) => merge.split(" "));
  for (
    const tokenizer of [
      Tokenizer.fromVocabulary(VOCABULARY, MERGES.join("\n")),
      Tokenizer.fromVocabulary(VOCABULARY, `#version: 0.2\r\n${MERGES.join("\r\n")}\r\n`),
      Tokenizer.fromTokenizerJson(modelJson()),
      Tokenizer.fromTokenizerJson(
        modelJson({ merges: pairs, type: undefined, byte_fallback: false }),
      ),
    ]
  ) {
    assertEquals(tokenizer.encode(text), wanted);
    const { start, end, size } = tokenizer;
    assertEquals([start, end, size], [TOKENS.length - 2, TOKENS.length - 1, TOKENS.length]);
  }
  const hashes = { ...VOCABULARY, "##": 9000 };
  assertEquals(Tokenizer.fromVocabulary(hashes, "# #").encode("##x").length, 3);
  assertEquals(Tokenizer.fromVocabulary(hashes, "# #").encode("###x")[0], 9000);
  assertEquals(Tokenizer.fromVocabulary(hashes, "").size, 9001);
});

Deno.test("refuses vocabularies that are not CLIP's, and says why", () => {
  const refused = (vocab: Record<string, number>, merges: string, why: string) =>
    assertThrows(() => Tokenizer.fromVocabulary(vocab, merges), RangeError, why);
  refused({}, "", "a vocabulary of 0 tokens");
  refused({ [START]: 0 }, "", `no ${END}`);
  refused({ [END]: 0 }, "", `no ${START}`);
  refused({ a: 1, b: 1 }, "", '"a" and "b" both have id 1');
  refused({ a: -1 }, "", "-1");
  refused(VOCABULARY, "a t</w>\na q", 'merge 2, "a q": the vocabulary has no "aq"');
  refused(VOCABULARY, "a foreign", 'no "foreign"');
  refused(VOCABULARY, "a t h", "merge 1");
  refused(VOCABULARY, "nonsense", "it must be two tokens");
  const bare = Tokenizer.fromVocabulary({ [START]: 0, [END]: 1, x: 2 }, "");
  const { message } = assertThrows(() => bare.encode("xx"), RangeError);
  assertStringIncludes(message, 'the vocabulary has no "x</w>"');
});

Deno.test("refuses a tokenizer.json of another kind, and says why", () => {
  const refused = (json: unknown, why: string) =>
    assertThrows(() => Tokenizer.fromTokenizerJson(json), TypeError, why);
  for (const json of [null, 7, [], {}, { model: null }, modelJson({ vocab: [["a", -1]] })]) {
    refused(json, "no vocabulary");
  }
  refused(modelJson({ type: "Unigram" }), '"Unigram"');
  refused(modelJson({ type: "WordPiece" }), '"WordPiece"');
  refused(modelJson({ vocab: { a: "1" } }), "no vocabulary");
  refused(modelJson({ merges: undefined }), "no list of merges");
  refused(modelJson({ end_of_word_suffix: null }), "</w>");
  refused(modelJson({ continuing_subword_prefix: "##" }), "prefix");
  refused(modelJson({ byte_fallback: true }), "falls back to bytes");
  refused(modelJson({ ignore_merges: true }), "looks up words");
  for (const merge of [7, ["a"], ["a", "b", "c"], ["a", 1]]) {
    assertThrows(
      () => Tokenizer.fromTokenizerJson(modelJson({ merges: [merge] })),
      RangeError,
      "two tokens",
    );
  }
});

const CLIPS = {
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "NFC" },
      { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
      { type: "Lowercase" },
    ],
  },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      {
        type: "Split",
        pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
        behavior: "Removed",
        invert: true,
      },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    ],
  },
  post_processor: {
    type: "RobertaProcessing",
    sep: [END, SMALL.end],
    cls: [START, SMALL.start],
    trim_offsets: false,
    add_prefix_space: false,
  },
};

function wholeJson(changes: Record<string, unknown> = {}): unknown {
  return { ...modelJson() as Record<string, unknown>, ...CLIPS, ...changes };
}

Deno.test("takes the steps that a tokenizer.json names: NFC and lower case, no repairs", () => {
  const { NFC, Lowercase } = { NFC: { type: "NFC" }, Lowercase: { type: "Lowercase" } };
  for (
    const normalizer of [
      CLIPS.normalizer,
      { type: "Sequence", normalizers: [NFC, Lowercase] },
    ]
  ) {
    const tokenizer = Tokenizer.fromTokenizerJson(wholeJson({ normalizer }));
    const same = (text: string, ...words: string[]) =>
      assertEquals(tokenizer.encode(text), unmerged(...words), JSON.stringify(text));
    same("Cafe\u0301 ΟΔΟΣ", "café", "οδοσ");
    same("don’t ﬁsh &LT;", "don", "’", "t", "ﬁsh", "&", "lt", ";");
    same("o'ſ ｗ", "o", "'", "ſ", "ｗ");
  }
});

Deno.test("refuses steps in a tokenizer.json that are not CLIP's, and says which", () => {
  const refused = (changes: Record<string, unknown>, ...why: string[]) => {
    const json = wholeJson(changes);
    const { message } = assertThrows(() => Tokenizer.fromTokenizerJson(json), TypeError);
    for (const words of why) assertStringIncludes(message, words);
  };
  for (
    const normalizer of [
      null,
      { type: "NFKC" },
      { type: "Lowercase" },
      { type: "NFC" },
      { type: "BertNormalizer", lowercase: true },
      { type: "Precompiled", precompiled_charsmap: "AAAA" },
      { type: "Sequence", normalizers: [] },
      { type: "Sequence", normalizers: [{ type: "Lowercase" }, { type: "NFC" }] },
      {
        type: "Sequence",
        normalizers: [{ type: "NFC" }, { type: "StripAccents" }, { type: "Lowercase" }],
      },
      {
        type: "Sequence",
        normalizers: [...CLIPS.normalizer.normalizers, { type: "Prepend", prepend: "▁" }],
      },
      {
        type: "Sequence",
        normalizers: [
          { type: "NFC" },
          { type: "Replace", pattern: { Regex: "\\s+" }, content: "" },
          { type: "Lowercase" },
        ],
      },
      {
        type: "Sequence",
        normalizers: [
          { type: "NFC" },
          { type: "Replace", pattern: { String: "x" }, content: " " },
          { type: "Lowercase" },
        ],
      },
    ]
  ) {
    refused({ normalizer }, "normalizer", JSON.stringify(normalizer).slice(0, 40));
  }
  for (
    const pre_tokenizer of [
      null,
      { type: "Whitespace" },
      { type: "ByteLevel", add_prefix_space: false },
      {
        type: "Sequence",
        pretokenizers: [
          { ...CLIPS.pre_tokenizer.pretokenizers[0], pattern: { Regex: "\\p{L}+" } },
          CLIPS.pre_tokenizer.pretokenizers[1],
        ],
      },
      {
        type: "Sequence",
        pretokenizers: [CLIPS.pre_tokenizer.pretokenizers[0], {
          type: "ByteLevel",
          add_prefix_space: true,
        }],
      },
    ]
  ) {
    refused({ pre_tokenizer }, "pre_tokenizer");
  }
  const { post_processor } = CLIPS;
  refused({ post_processor: { ...post_processor, sep: [START, 0] } }, "post_processor", "RobertaP");
  refused({ post_processor: { type: "ByteLevel" } }, "post_processor", "ByteLevel");
});

Deno.test("splits a text at added tokens", () => {
  const heart = { content: "<Heart>", id: 9000, normalized: false };
  const added = [
    heart,
    { content: "<HEART>x", id: 9001, normalized: false },
    { content: "Sks", id: 9002, normalized: true },
    { content: "dog", id: 9003, normalized: false, single_word: true },
    { content: "<my é>", id: 9004, normalized: false },
  ];
  const fromJson = Tokenizer.fromTokenizerJson(wholeJson({ added_tokens: added }));
  const plain = Tokenizer.fromVocabulary(
    VOCABULARY,
    MERGES.join("\n"),
    added.map((token) => ({ ...token, singleWord: "single_word" in token })),
  );
  for (const tokenizer of [fromJson, plain]) {
    assertEquals(tokenizer.size, 9005);
    const same = (text: string, ...ids: number[]) =>
      assertEquals(tokenizer.encode(text), ids, text);
    same("a<Heart>a", ...unmerged("a"), 9000, ...unmerged("a"));
    same("<heart>", ...unmerged("<", "heart", ">"));
    same("<HEART>x<HEART>", 9001, ...unmerged("<", "heart", ">"));
    same("SKSy sks", 9002, ...unmerged("y"), 9002);
    same("dog dogs, dog", 9003, ...unmerged("dogs", ","), 9003);
    assertEquals(tokenizer.decode([9000, VOCABULARY["cat</w>"]]), "<Heart>cat ");
    assertEquals(tokenizer.decode(tokenizer.encode("a<my é>cat")), "a <my é>cat ");
    const { ids } = tokenizer.tokenize(["sks"], 4);
    assertEquals([...ids], [tokenizer.start, 9002, tokenizer.end, 0]);
  }
  const blank = { content: " ", id: 9000, normalized: true, singleWord: false };
  const withBlank = Tokenizer.fromVocabulary(VOCABULARY, MERGES.join("\n"), [blank]);
  assertEquals(withBlank.encode("the cat"), plain.encode("the cat"));
  // Two tokens with one id, or an id that another token has, would make two texts equal.
  for (const id of [0, -1, 0.5, "7", undefined]) {
    const json = wholeJson({ added_tokens: [{ ...heart, id }] });
    const kind: typeof Error = typeof id === "number" && Number.isInteger(id)
      ? RangeError
      : TypeError;
    assertThrows(() => Tokenizer.fromTokenizerJson(json), kind);
  }
});

Deno.test("finds added tokens in the files of a tokenizer without tokenizer.json", () => {
  const listed = {
    tokenizer_class: "CLIPTokenizer",
    added_tokens_decoder: {
      "9000": { content: "<cat-toy>", normalized: false, single_word: true, special: false },
    },
  };
  assertEquals(addedTokens(listed, { other: 1 }), [
    { content: "<cat-toy>", id: 9000, normalized: false, singleWord: true },
  ]);
  assertEquals(addedTokens({ tokenizer_class: "CLIPTokenizer" }, { "<X>": 9001 }), [
    { content: "<X>", id: 9001, normalized: true, singleWord: false },
  ]);
  assertEquals(addedTokens(null, null), []);
  for (const tokenizer_class of ["SiglipTokenizer", "BertTokenizerFast", 7]) {
    assertThrows(() => addedTokens({ tokenizer_class }, null), TypeError, `${tokenizer_class}`);
  }
  assertThrows(() => addedTokens(null, { "<X>": "9" }), TypeError);
});

interface Case {
  readonly id: string;
  readonly group: string;
  readonly text: string;
  readonly ids: number[];
  readonly ids_without_ftfy?: number[];
  readonly needs_ftfy?: boolean;
}

interface Framed {
  readonly texts: string[];
  readonly context_length: number;
  readonly truncate: boolean;
  readonly result?: number[][];
  readonly error?: unknown;
}

async function readJson<T>(file: URL): Promise<T> {
  return JSON.parse(await Deno.readTextFile(file));
}

async function readCases(directory: URL): Promise<Case[]> {
  const lines = (await Deno.readTextFile(new URL("cases.jsonl", directory))).trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line));
}

const read = new Map<string, Promise<Tokenizer>>();

/** The tokenizer in a directory; each directory is read once. */
function readTokenizer(directory: URL): Promise<Tokenizer> {
  const known = read.get(directory.href);
  if (known !== undefined) return known;
  const reading = (async () =>
    Tokenizer.fromVocabulary(
      await readJson(new URL("vocab.json", directory)),
      await Deno.readTextFile(new URL("merges.txt", directory)),
    ))();
  read.set(directory.href, reading);
  return reading;
}

const directory = fixtures("tokenizer");
const openai = shared("models/openai-clip-tokenizer/");
/** The directory of OpenAI's vocabulary: not every directory of cases has one. */
const vocabulary = directory !== null && existsSync(new URL("vocab.json", directory))
  ? directory
  : openai;

if (directory === null || vocabulary === null) {
  skip("agrees with openai/CLIP's tokenizer");
} else {
  /** Text decoded by the wrong table, which ftfy repairs and octograd leaves as it is. */
  const isMojibake = ({ group, text, needs_ftfy }: Case) =>
    needs_ftfy === true && (group === "mojibake" || /[\x80-\x9F]/.test(text));

  Deno.test("encodes as openai/CLIP does", async () => {
    const tokenizer = await readTokenizer(vocabulary);
    const cases = await readCases(directory);
    const compared = cases.filter((one) => !isMojibake(one));
    for (const { id, text, ids } of compared) assertEquals(tokenizer.encode(text), ids, id);
    const repaired = compared.filter(({ needs_ftfy }) => needs_ftfy).length;
    console.log(
      `tokenizer fixtures: ${compared.length} cases, ${repaired} of them with ftfy's repairs; ` +
        `${cases.length - compared.length} of mojibake left out`,
    );
    assertGreater(compared.length, 0);
  });

  const json = new URL("tokenizer.json", directory);
  const differences = new URL("hf_fast.json", directory);
  if (!existsSync(json) || !existsSync(differences)) {
    skip("encodes as Hugging Face's tokenizers do");
  } else {
    Deno.test("encodes as Hugging Face's tokenizers do", async () => {
      const tokenizer = Tokenizer.fromTokenizerJson(await readJson(json));
      const { library, different } = await readJson<
        { library: string; different: Record<string, number[]> }
      >(differences);
      const cases = await readCases(directory);
      for (const { id, text, ids } of cases) {
        const framed = [tokenizer.start, ...tokenizer.encode(text), tokenizer.end];
        assertEquals(framed, different[id] ?? [tokenizer.start, ...ids, tokenizer.end], id);
      }
      console.log(
        `tokenizer fixtures: ${cases.length} cases of ${library}, ${
          Object.keys(different).length
        } of them not as openai/CLIP has them`,
      );
      assertGreater(cases.length, 0);
    });
  }

  Deno.test("frames as clip.tokenize does", async () => {
    const tokenizer = await readTokenizer(vocabulary);
    const batches = await readJson<Framed[]>(new URL("tokenize.json", directory));
    for (const { texts, context_length, truncate, result } of batches) {
      const tokenize = () => tokenizer.tokenize(texts, context_length, { truncate });
      if (result === undefined) {
        assertThrows(tokenize, RangeError, `the context is ${context_length}`);
      } else {
        const { ids, rows, longest } = tokenize();
        assertEquals(Array.from(ids), result.flat(), texts.join());
        assertEquals(rows, result.length);
        assertEquals(longest, Math.max(...result.map((row) => row.lastIndexOf(tokenizer.end) + 1)));
      }
    }
    const refused = batches.filter(({ result }) => result === undefined).length;
    console.log(`tokenizer fixtures: ${batches.length} batches framed, ${refused} of them refused`);
    assertGreater(batches.length, 0);
  });

  Deno.test("decodes as openai/CLIP does", async () => {
    const tokenizer = await readTokenizer(vocabulary);
    const cases = await readJson<Omit<Case, "id">[]>(new URL("decode.json", directory));
    for (const { ids, text } of cases) assertEquals(tokenizer.decode(ids), text);
    console.log(`tokenizer fixtures: ${cases.length} lists of ids decoded`);
    assertGreater(cases.length, 0);
  });
}

if (openai === null) {
  skip("reads the published files of CLIP's tokenizer");
} else {
  Deno.test("reads the published files of CLIP's tokenizer", async () => {
    const file = new URL("tokenizer.json", openai);
    const tokenizers = [
      await readTokenizer(openai),
      Tokenizer.fromTokenizerJson(await readJson(file)),
    ];
    const { cases } = await readJson<
      { cases: { text: string; ids: number[]; context77: number[]; truncated: boolean }[] }
    >(new URL("expected_tokens.json", openai));
    // These were made without ftfy, and a tokenizer.json does not unescape HTML.
    const same = [
      (text: string) => repairText(text) === text || text.startsWith("&"),
      (text: string) => unescapeHtml(text) === text,
    ];
    tokenizers.forEach((tokenizer, i) => {
      assertEquals([tokenizer.start, tokenizer.end, tokenizer.size], [49406, 49407, 49408]);
      const compared = cases.filter(({ text }) => same[i](text));
      assertGreater(compared.length, cases.length - 3);
      for (const { text, ids, context77, truncated } of compared) {
        assertEquals(tokenizer.encode(text), ids, text);
        const framed = tokenizer.tokenize([text], 77, { truncate: truncated });
        assertEquals([...framed.ids], context77, text);
      }
    });
    console.log(`tokenizer files: ${cases.length} texts, from vocab.json and from tokenizer.json`);
  });
}

const emoji = shared("models/emoji-clip-tiny/");
if (emoji === null) {
  skip("reads the vocabulary of another CLIP");
} else {
  Deno.test("reads the vocabulary of another CLIP", async () => {
    const expected = await readJson<{ prompts: string[]; input_ids: number[][] }>(
      new URL("expected.json", emoji),
    );
    const json = await readJson(new URL("tokenizer.json", emoji));
    for (const one of [await readTokenizer(emoji), Tokenizer.fromTokenizerJson(json)]) {
      assertEquals([one.start, one.end, one.size], [2046, 2047, 2048]);
      const { ids } = one.tokenize(expected.prompts, 24, { pad: one.end });
      assertEquals(Array.from(ids), expected.input_ids.flat());
    }
  });
}
