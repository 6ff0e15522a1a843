/**
 * Mutants of files: what a disk, a download, another program or an attacker makes of them.
 *
 * @module
 */

import type { Random } from "../../tensor/random.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** Values that a field of JSON hardly ever has, each with its trap. */
const ODD: readonly unknown[] = [
  ...[null, true, false, "", "abc", "0", [], {}, [[]], [null], { a: 1 }],
  ...[0, -1, 1, 2, 0.5, 255, 65536, 1e9, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, -1e308, 5e-324],
  ...["../../secret", "/etc/hostname", "a\u0000b", "\u001b[31m", "\ud800", "a\nb", "é", "ﬁ"],
  ...["(a+)+$", "((a*)*)*b", "(", "__proto__", "constructor", "</script>", "{}", "$&"],
  "a".repeat(10_000),
  Array.from({ length: 10_000 }, (_, i) => i),
  nested(2_000),
];

function nested(depth: number): unknown {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = [value];
  return value;
}

/** One mutant of a file, by what its name says that it is. */
export function mutant(name: string, file: Bytes, random: Random): Bytes {
  const structured = random.below(5) > 0;
  if (structured && name.endsWith(".json")) {
    return encode(mutantOfJson(JSON.parse(decode(file)), random));
  }
  if (structured && name.endsWith(".safetensors")) return mutantOfHeader(file, random);
  let mutated = file;
  for (let times = 1 + random.below(3); times > 0; times--) {
    mutated = mutantOfBytes(mutated, random);
  }
  return mutated;
}

const decode = (bytes: Bytes) => new TextDecoder().decode(bytes);
const encode = (value: unknown): Bytes => new TextEncoder().encode(JSON.stringify(value));

/** A safetensors file whose header is another; its length is stated rightly. */
function mutantOfHeader(file: Bytes, random: Random): Bytes {
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = encode(mutantOfJson(JSON.parse(decode(file.slice(8, 8 + length))), random));
  const mutated = new Uint8Array(8 + header.length + file.length - 8 - length);
  new DataView(mutated.buffer).setBigUint64(0, BigInt(header.length), true);
  mutated.set(header, 8);
  mutated.set(file.subarray(8 + length), 8 + header.length);
  return mutated;
}

/** JSON with one to three other values or keys. */
function mutantOfJson(json: unknown, random: Random): unknown {
  let mutated = json;
  for (let times = 1 + random.below(3); times > 0; times--) mutated = changedOnce(mutated, random);
  return mutated;
}

function changedOnce(json: unknown, random: Random): unknown {
  const isBranch = typeof json === "object" && json !== null && Object.keys(json).length > 0;
  if (!isBranch || random.below(5) === 0) return ODD[random.below(ODD.length)];
  if (Array.isArray(json)) {
    const at = random.below(json.length);
    const act = random.below(8);
    if (act === 0) return json.toSpliced(at, 1);
    if (act === 1) return json.toSpliced(at, 0, json[at]);
    return json.with(at, changedOnce(json[at], random));
  }
  const entries = Object.entries(json);
  const at = random.below(entries.length);
  const [key, value] = entries[at];
  const act = random.below(8);
  if (act === 0) return Object.fromEntries(entries.toSpliced(at, 1));
  if (act === 1) {
    const names = ["__proto__", "", "constructor", key + key, key.toUpperCase()];
    return Object.fromEntries(entries.with(at, [names[random.below(names.length)], value]));
  }
  if (act === 2) {
    // The value of another key.
    const [, other] = entries[random.below(entries.length)];
    return Object.fromEntries(entries.with(at, [key, other]));
  }
  return Object.fromEntries(entries.with(at, [key, changedOnce(value, random)]));
}

function mutantOfBytes(file: Bytes, random: Random): Bytes {
  const at = random.below(file.length + 1);
  const length = Math.min(1 + random.below(64), file.length - at);
  const mutated = file.slice();
  switch (random.below(7)) {
    case 0:
      if (at < file.length) mutated[at] ^= 1 << random.below(8);
      return mutated;
    case 1:
      return file.slice(0, at);
    case 2:
      return joined(file.subarray(0, at), file.subarray(at + length));
    case 3:
      return joined(file.subarray(0, at + length), file.subarray(at));
    case 4: // a number, or four letters, of no meaning here
      for (let i = at; i < Math.min(at + 4, file.length); i++) mutated[i] = random.below(256);
      return mutated;
    case 5: // the largest number, or the smallest
      return mutated.fill(random.below(2) * 255, at, at + Math.min(8, length));
    default: {
      const from = random.below(file.length + 1);
      mutated.copyWithin(at, from, from + length);
      return mutated;
    }
  }
}

function joined(first: Uint8Array, second: Uint8Array): Bytes {
  const bytes = new Uint8Array(first.length + second.length);
  bytes.set(first);
  bytes.set(second, first.length);
  return bytes;
}
