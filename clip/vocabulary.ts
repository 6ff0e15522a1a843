/**
 * The tokens of a byte-pair vocabulary: how they are spelled, and their ids.
 *
 * @module
 */

/** Ids are below it: a list by id has as many places as the largest id. */
const MOST_TOKENS = 2 ** 24;

/**
 * The character that stands for each byte in a vocabulary: the one with that code if it is visible,
 * otherwise one from U+0100 on.
 */
export const CHARACTERS: readonly string[] = byteCharacters();

/** The byte of each character. */
export const BYTES: ReadonlyMap<string, number> = new Map(
  CHARACTERS.map((character, byte) => [character, byte]),
);

function byteCharacters(): string[] {
  let hidden = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const shows = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte !== 0xAD);
    return String.fromCharCode(shows ? byte : 256 + hidden++);
  });
}

/** A text as the vocabulary spells it: a character for each byte of its UTF-8. */
export function inBytes(text: string): string {
  return Array.from(new TextEncoder().encode(text), (byte) => CHARACTERS[byte]).join("");
}

/**
 * The token of each id.
 *
 * @throws {RangeError} If an id is not a small non-negative integer, or two tokens have it.
 */
export function tokensById(ids: ReadonlyMap<string, number>): string[] {
  const tokens: string[] = [];
  for (const [token, id] of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= MOST_TOKENS) {
      throw new RangeError(`Cannot use the vocabulary: "${token}" has ${id} for its id`);
    }
    if (tokens[id] !== undefined) {
      throw new RangeError(
        `Cannot use the vocabulary: "${tokens[id]}" and "${token}" both have id ${id}`,
      );
    }
    tokens[id] = token;
  }
  return tokens;
}

/**
 * The id of a token that every vocabulary has.
 *
 * @throws {RangeError} If the vocabulary lacks it.
 */
export function specialToken(ids: ReadonlyMap<string, number>, token: string): number {
  const id = ids.get(token);
  if (id !== undefined) return id;
  throw new RangeError(
    `Cannot use a vocabulary of ${ids.size} tokens: it has no ${token}, use that of a CLIP model`,
  );
}
