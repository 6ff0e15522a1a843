import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { encodeSafetensors, type TensorToSave } from "../tensor/encode_safetensors.ts";
import { type ByteSource, bytesSource } from "../tensor/tensor_file.ts";
import { fixtures, shared, skip } from "./fixtures.ts";

/** A file of a header, given as an object or as text, and `dataBytes` bytes 0, 1, 2, … after it. */
function fileOf(header: unknown, dataBytes = 0): Uint8Array<ArrayBuffer> {
  const text = typeof header === "string" ? header : JSON.stringify(header);
  const json = new TextEncoder().encode(text);
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  for (let i = 0; i < dataBytes; i++) file[8 + json.length + i] = i;
  return file;
}

const open = (bytes: Uint8Array<ArrayBuffer>) => SafetensorsFile.open(bytesSource(bytes, "x.st"));

async function refused(bytes: Uint8Array<ArrayBuffer>, why: string): Promise<void> {
  const { message } = await assertRejects(
    () => open(bytes),
    RangeError,
    `Cannot read x.st: ${why}`,
  );
  assert(!/[\n.]$|\n/.test(message), `not one line without a full stop: ${message}`);
}

/** The header of a one-tensor file whose bytes are `data`. */
const one = (dtype: string, shape: number[], bytes: number) => ({
  x: { dtype, shape, data_offsets: [0, bytes] },
});

async function oneTensor(
  dtype: string,
  data: ArrayBufferView<ArrayBuffer>,
): Promise<SafetensorsFile> {
  const length = data.byteLength / ({ F64: 8, I64: 8, U64: 8, F32: 4, I32: 4, U32: 4 }[dtype] ??
    (/16/.test(dtype) ? 2 : 1));
  const file = fileOf(one(dtype, [length], data.byteLength), data.byteLength);
  file.set(
    new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    file.length - data.byteLength,
  );
  return await open(file);
}

const SPECIALS = [
  0,
  -0,
  1,
  -1,
  0.1,
  65504,
  65519.996,
  65520,
  1e-7,
  5.96e-8,
  3e38,
  Infinity,
  -Infinity,
];

/**
 * The value of the bits of a binary number that has `fraction` bits of fraction and `exponent` bits
 * of exponent.
 */
function valueOf(bits: number, exponent: number, fraction: number): number {
  const e = bits >> fraction & (1 << exponent) - 1;
  const f = bits & (1 << fraction) - 1;
  const bias = (1 << exponent - 1) - 1;
  const view = new DataView(new ArrayBuffer(8));
  const sign = bits >> exponent + fraction & 1;
  if (e === 0) return (sign ? -1 : 1) * f * 2 ** (1 - bias - fraction);
  // A float64 of the same sign and fraction, with its exponent moved to float64's bias.
  const moved = e === (1 << exponent) - 1 ? 2047 : e - bias + 1023;
  view.setUint32(0, (sign << 31 | moved << 20) >>> 0);
  view.setBigUint64(0, view.getBigUint64(0) | BigInt(f) << BigInt(52 - fraction));
  return view.getFloat64(0);
}

/**
 * Finds by search the bits of the finite number nearest to `value` among all non-negative ones,
 * ties to even.
 */
function nearest(value: number, table: Float64Array, infinity: number): number {
  let [floor, ceiling] = [0, infinity];
  while (ceiling - floor > 1) {
    const middle = floor + ceiling >> 1;
    if (table[middle] <= value) floor = middle;
    else ceiling = middle;
  }
  // Rounding treats infinity as the number that would come next.
  const above = ceiling === infinity
    ? 2 * table[infinity - 1] - table[infinity - 2]
    : table[ceiling];
  const [down, up] = [value - table[floor], above - value];
  return down < up || (down === up && floor % 2 === 0) ? floor : ceiling;
}

for (
  const { dtype, exponent, fraction } of [
    { dtype: "F16", exponent: 5, fraction: 10 },
    { dtype: "BF16", exponent: 8, fraction: 7 },
  ] as const
) {
  const table = Float64Array.from(
    { length: 65536 },
    (_, bits) => valueOf(bits, exponent, fraction),
  );
  const infinity = (1 << exponent) - 1 << fraction;

  Deno.test(`floats() reads all 65536 bit patterns of ${dtype}`, async () => {
    const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const file = await oneTensor(dtype, patterns);
    const floats = await file.floats("x");
    assertEquals(floats.length, 65536);
    for (let i = 0; i < 65536; i++) {
      assert(Object.is(floats[i], table[i]), `${i}: ${floats[i]} instead of ${table[i]}`);
    }
  });

  Deno.test(`encodeSafetensors() writes every number of ${dtype} as its bits`, async () => {
    const data = Float32Array.from(table);
    const file = await open(encodeSafetensors({ x: { dtype, shape: [65536], data } }));
    const bits = new Uint16Array((await file.bytes("x")).buffer);
    for (let i = 0; i < 65536; i++) {
      if (Number.isNaN(table[i])) assert((bits[i] & 0x7fff) > infinity, `${i} is a NaN`);
      else assertEquals(bits[i], i);
    }
  });

  Deno.test(`encodeSafetensors() rounds to the nearest ${dtype}, ties to even`, async () => {
    const values: number[] = [...SPECIALS];
    // Between each two neighbours: the middle, the f32 just below it and the one just above.
    const step = new Float32Array(1);
    const stepBits = new Uint32Array(step.buffer);
    for (let bits = 0; bits < infinity; bits++) {
      const next = bits + 1 === infinity ? 2 * table[bits] - table[bits - 1] : table[bits + 1];
      step[0] = (table[bits] + next) / 2;
      assertEquals(step[0], (table[bits] + next) / 2, "the middle is an f32");
      for (const [move, sign] of [[0, 1], [-1, -1], [2, 1]]) {
        stepBits[0] += move;
        values.push(sign * step[0]);
      }
    }
    const becomesInfinite = (value: number) =>
      Math.abs(value) < Infinity && nearest(Math.abs(value), table, infinity) === infinity;
    const beyond = values.filter(becomesInfinite);
    assert(beyond.length >= 2);
    for (const value of [...beyond, dtype === "F16" ? 1e5 : 3.4e38, -1e300]) {
      assertThrows(
        () => encodeSafetensors({ x: { dtype, shape: [2], data: [1, value] } }),
        RangeError,
        `Cannot save "x" as ${dtype}: element 1 is ${value}`,
      );
    }
    const data = Float32Array.from(values.filter((value) => !becomesInfinite(value)));
    const file = await open(encodeSafetensors({ x: { dtype, shape: [data.length], data } }));
    const stored = new Uint16Array((await file.bytes("x")).buffer);
    for (let i = 0; i < data.length; i++) {
      const size = Math.abs(data[i]);
      const sign = Object.is(Math.sign(data[i]), -0) || data[i] < 0 ? 0x8000 : 0;
      const wanted = sign | (size === Infinity ? infinity : nearest(size, table, infinity));
      assert(stored[i] === wanted, `${data[i]}: bits ${stored[i]} instead of ${wanted}`);
    }
  });
}

Deno.test("floats() reads F32 bit for bit, and rounds F64", async () => {
  const f32 = Float32Array.of(...SPECIALS, 1e-45, NaN);
  assertEquals(await (await oneTensor("F32", f32)).floats("x"), f32);
  const f64 = Float64Array.of(...SPECIALS, Math.PI, 1e-300, NaN);
  const rounded = Float32Array.from(f64, Math.fround);
  assertEquals(await (await oneTensor("F64", f64)).floats("x"), rounded);
});

Deno.test("a number beyond F32 is neither read nor saved as infinity", async () => {
  for (const value of [1e300, -3.41e38]) {
    const file = await oneTensor("F64", Float64Array.of(1, value));
    await assertRejects(
      () => file.floats("x"),
      RangeError,
      `Cannot read "x" of x.st as f32: element 1 is ${value}`,
    );
    assertThrows(
      () => encodeSafetensors({ x: { dtype: "F32", shape: [1], data: [value] } }),
      RangeError,
      `Cannot save "x" as F32: element 0 is ${value}`,
    );
  }
});

Deno.test("integers() reads integers of every width", async () => {
  const cases: [string, ArrayBufferView<ArrayBuffer>, number[]][] = [
    ["I64", BigInt64Array.of(0n, -1n, 2147483647n, -2147483648n), [0, -1, 2147483647, -2147483648]],
    ["U64", BigUint64Array.of(0n, 2147483647n), [0, 2147483647]],
    ["I32", Int32Array.of(-2147483648, 7), [-2147483648, 7]],
    ["U32", Uint32Array.of(0, 2147483647), [0, 2147483647]],
    ["I16", Int16Array.of(-32768, 32767), [-32768, 32767]],
    ["U16", Uint16Array.of(0, 65535), [0, 65535]],
    ["I8", Int8Array.of(-128, 127), [-128, 127]],
    ["U8", Uint8Array.of(0, 255), [0, 255]],
    ["BOOL", Uint8Array.of(0, 1, 1), [0, 1, 1]],
  ];
  for (const [dtype, data, expected] of cases) {
    assertEquals(await (await oneTensor(dtype, data)).integers("x"), Int32Array.from(expected));
  }
});

Deno.test("integers() throws when a number is beyond i32", async () => {
  const cases: [string, ArrayBufferView<ArrayBuffer>, string][] = [
    ["I64", BigInt64Array.of(5n, 2147483648n), "element 1 is 2147483648"],
    ["I64", BigInt64Array.of(-2147483649n), "element 0 is -2147483649"],
    ["I64", BigInt64Array.of(9007199254740993n), "element 0 is 9007199254740993"],
    ["U64", BigUint64Array.of(2n ** 64n - 1n), "element 0 is 18446744073709551615"],
    ["U32", Uint32Array.of(1, 2, 4294967295), "element 2 is 4294967295"],
  ];
  for (const [dtype, data, why] of cases) {
    const file = await oneTensor(dtype, data);
    await assertRejects(() => file.integers("x"), RangeError, why);
  }
});

Deno.test("floats() refuses integers, integers() floats, and both unknown names", async () => {
  for (const dtype of ["I64", "U64", "I32", "U32", "I16", "U16", "I8", "U8", "BOOL"]) {
    const file = await oneTensor(dtype, new Uint8Array(8));
    const why = `Cannot read "x" of x.st as floats: it is ${dtype}`;
    await assertRejects(() => file.floats("x"), TypeError, why);
    await assertRejects(() => file.pieces("x").next(), TypeError, why);
  }
  for (const dtype of ["F64", "F32", "F16", "BF16"]) {
    const file = await oneTensor(dtype, new Uint8Array(8));
    const why = `Cannot read "x" of x.st as integers: it is ${dtype}`;
    await assertRejects(() => file.integers("x"), TypeError, why);
    const absent = 'Cannot find "y" in x.st';
    await assertRejects(() => file.bytes("y"), RangeError, absent);
    await assertRejects(() => file.floats("y"), RangeError, absent);
    await assertRejects(() => file.integers("y"), RangeError, absent);
    await assertRejects(() => file.pieces("y").next(), RangeError, absent);
  }
});

Deno.test("pieces() gives what floats() gives, whatever the size of a piece", async () => {
  const data = Float32Array.from({ length: 257 }, (_, i) => i - 128);
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    const file = await open(encodeSafetensors({
      a: { dtype: "F32", shape: [3], data: [1, 2, 3] },
      x: { dtype, shape: [257, 1], data },
    }));
    for (const [pieceBytes, most] of [[1, 1], [7, 0], [64, 0], [1028, 0], [1e9, 257]]) {
      const joined = new Float32Array(257);
      let at = 0;
      for await (const { start, values } of file.pieces("x", pieceBytes)) {
        assertEquals(start, at);
        if (most) assertEquals(values.length, most);
        assert(values.length * (dtype === "F32" ? 4 : 2) <= Math.max(4, pieceBytes));
        joined.set(values, start);
        at += values.length;
      }
      assertEquals(at, 257);
      assertEquals(joined, await file.floats("x"));
    }
  }
});

Deno.test("pieces() never reads more than a piece, and open() only the header", async () => {
  const bytes = encodeSafetensors({
    x: { dtype: "F32", shape: [1000], data: new Float32Array(1000) },
  });
  const reads: [number, number][] = [];
  const inner = bytesSource(bytes);
  const source: ByteSource = {
    name: "x.st",
    size: inner.size,
    read(offset, length) {
      reads.push([offset, length]);
      return inner.read(offset, length);
    },
  };
  const file = await SafetensorsFile.open(source);
  const start = bytes.length - 4000;
  assertEquals(reads, [[0, 8], [8, start - 8]]);
  reads.length = 0;
  for await (const _ of file.pieces("x", 1600));
  assertEquals(reads, [[start, 1600], [start + 1600, 1600], [start + 3200, 800]]);
});

Deno.test("a source may give views at any offset, but not fewer bytes than asked for", async () => {
  const data = Float32Array.from({ length: 9 }, Math.sqrt);
  const bytes = encodeSafetensors({ x: { dtype: "F32", shape: [9], data } });
  const shifted = new Uint8Array(bytes.length + 1);
  shifted.set(bytes, 1);
  const file = await SafetensorsFile.open({
    name: "shifted",
    size: bytes.length,
    read: (from, length) => Promise.resolve(shifted.subarray(1 + from, 1 + from + length)),
  });
  assertEquals(await file.floats("x"), data);
  const short = (missing: (offset: number) => number): ByteSource => ({
    name: "short",
    size: bytes.length,
    read: (from, length) => Promise.resolve(bytes.slice(from, from + length - missing(from))),
  });
  const early = await assertRejects(() => SafetensorsFile.open(short(() => 3)), RangeError);
  assertEquals(early.message, "Cannot read short: it gave 5 of 8 bytes from 0 on");
  const late = await SafetensorsFile.open(short((from) => from > 8 ? 1 : 0));
  await assertRejects(() => late.floats("x"), RangeError, "it gave 35 of 36 bytes");
});

Deno.test("open() refuses files that are too short, or whose header is impossible", async () => {
  await refused(new Uint8Array(0), "0 bytes are too few for a safetensors file");
  await refused(new Uint8Array(7), "7 bytes are too few");
  await refused(new Uint8Array(8), "its header is not JSON");
  const claims = (length: bigint) => {
    const file = fileOf({}, 100);
    new DataView(file.buffer).setBigUint64(0, length, true);
    return file;
  };
  await refused(claims(103n), "it is truncated, its header claims 103 bytes and the file has 110");
  await refused(claims(100_000_000n), "it is truncated, its header claims 100000000 bytes");
  await refused(claims(100_000_001n), "its header claims 100000001 bytes, it is no safetensors");
  await refused(claims(2n ** 64n - 1n), "its header claims 18446744073709552000 bytes");
  await refused(new TextEncoder().encode("not a safetensors file"), "its header claims");
});

Deno.test("open() refuses headers that are not a JSON object of tensors", async () => {
  await refused(fileOf("{"), "its header is not JSON");
  await refused(fileOf("\ufeff{}"), "its header is not JSON");
  const latin = fileOf('{"__metadata__":{"a":"?"}}');
  latin[latin.indexOf(0x3f)] = 0xff;
  await refused(latin, "its header is not JSON");
  for (const value of [[], null, 1, "x"]) {
    await refused(fileOf(JSON.stringify(value)), "its header is not a JSON object");
  }
  for (const value of [null, 1, [], "F32"]) {
    await refused(fileOf({ x: value }), 'tensor "x" is not described by a JSON object');
  }
  for (const value of ["a", [], { a: 1 }, { a: null }]) {
    await refused(fileOf({ __metadata__: value }), "its __metadata__ is not an object of strings");
  }
  const complete = { dtype: "F32", shape: [1], data_offsets: [0, 4] };
  for (const key of ["dtype", "shape", "data_offsets"]) {
    await refused(fileOf({ x: { ...complete, [key]: undefined } }, 4), `tensor "x" has no ${key}`);
  }
  for (const dtype of ["F31", "f32", "toString", 4, null, ["F32"]]) {
    await refused(
      fileOf({ x: { ...complete, dtype } }, 4),
      `tensor "x" has dtype ${JSON.stringify(dtype)}, which is not known`,
    );
  }
  for (const shape of [4, "1", null, [-1], [1.5], ["1"], [null], [2 ** 53]]) {
    await refused(
      fileOf({ x: { ...complete, shape } }, 4),
      `tensor "x" has shape ${JSON.stringify(shape)}, sizes are integers from 0 on`,
    );
  }
  await refused(fileOf({ "a\nb": { ...complete, dtype: "?" } }, 4), 'tensor "a\\nb" has dtype "?"');
});

Deno.test("open() refuses impossible offsets", async () => {
  const at = (data_offsets: unknown) =>
    fileOf({ x: { dtype: "F32", shape: [1], data_offsets } }, 4);
  for (
    const offsets of [[-4, 0], [0.5, 4.5], [4, 0], [0], [0, 4, 8], [], 4, null, "04", ["0", "4"], {
      0: 0,
      1: 4,
    }]
  ) {
    await refused(
      at(offsets),
      `tensor "x" has data_offsets ${JSON.stringify(offsets)}, not a begin and an end`,
    );
  }
  await refused(at([0, 3]), 'tensor "x" is F32 [1], which takes 4 bytes, and holds 3');
  await refused(at([0, 8]), 'tensor "x" is F32 [1], which takes 4 bytes, and holds 8');
  const product = { x: { dtype: "U8", shape: [2 ** 40, 2 ** 40], data_offsets: [0, 4] } };
  await refused(fileOf(product, 4), 'tensor "x" is U8');
  const [start, size] = [at([0, 4]).length - 4, at([0, 4]).length];
  await refused(
    at([0, 4]).slice(0, -1),
    `it is truncated, its header promises ${size} bytes and the file has ${size - 1}`,
  );
  await refused(at([0, 4]).slice(0, start), "it is truncated, its header promises");
});

Deno.test("open() refuses overlaps, holes, and bytes after the last tensor", async () => {
  const two = (a: number[], b: number[], bytes: number) =>
    fileOf({
      a: { dtype: "U8", shape: [a[1] - a[0]], data_offsets: a },
      b: { dtype: "U8", shape: [b[1] - b[0]], data_offsets: b },
    }, bytes);
  await refused(two([0, 4], [3, 8], 8), 'tensor "b" overlaps the one before it');
  await refused(two([0, 4], [0, 4], 4), 'tensor "b" overlaps the one before it');
  await refused(two([2, 3], [0, 8], 8), 'tensor "a" overlaps the one before it');
  await refused(two([0, 4], [5, 8], 8), 'there is a hole of 1 bytes before tensor "b"');
  await refused(two([1, 4], [4, 8], 8), 'there is a hole of 1 bytes before tensor "a"');
  await refused(two([0, 4], [4, 8], 11), "3 bytes follow its last tensor");
  await refused(fileOf({}, 1), "1 bytes follow its last tensor");
  const file = await open(two([4, 8], [0, 4], 8));
  assertEquals([...await file.integers("a")], [4, 5, 6, 7]);
  assertEquals([...await file.integers("b")], [0, 1, 2, 3]);
});

Deno.test("open() refuses duplicate keys", async () => {
  const entry = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';
  await refused(fileOf(`{"x":${entry},"x":${entry}}`, 1), 'its header has the key "x" twice');
  await refused(
    fileOf(`{"x":${entry},"\\u0078":${entry}}`, 1),
    'its header has the key "\\u0078" twice',
  );
  await refused(
    fileOf(`{"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
    'its header has the key "dtype" twice',
  );
  await refused(
    fileOf('{"__metadata__":{"a":"1","b":"2","a" : "3"}}'),
    'its header has the key "a"',
  );
  // The same key in another object is allowed, and so are quotes, brackets and colons within
  // strings.
  const names = ["dtype", 'a":"b', "}{", "\\", '\\"', "é😀", "__proto__", "constructor", "10", "2"];
  const entries = names.map((name, i) => [
    name,
    { dtype: "U8", shape: [1], data_offsets: [i, i + 1] },
  ]);
  const metadata = Object.fromEntries(names.map((name) => [name, name]));
  const header = Object.fromEntries([["__metadata__", metadata], ...entries]);
  const file = await open(fileOf(header, names.length));
  for (const [i, name] of names.entries()) assertEquals([...await file.bytes(name)], [i]);
  assertEquals(Object.keys(file.metadata).sort(), [...names].sort());
});

Deno.test("open() reads empty files, empty tensors, scalars, and headers with spaces", async () => {
  const empty = await open(fileOf("{}   "));
  assertEquals([empty.tensors.size, empty.metadata], [0, {}]);
  assertEquals((await open(fileOf({ __metadata__: null }))).metadata, {});
  const file = await open(fileOf({
    first: { dtype: "F32", shape: [0, 5], data_offsets: [0, 0] },
    scalar: { dtype: "F16", shape: [], data_offsets: [0, 2] },
    between: { dtype: "F32", shape: [3, 0], data_offsets: [2, 2] },
    rest: { dtype: "U8", shape: [3, 1], data_offsets: [2, 5] },
    last: { dtype: "I64", shape: [0], data_offsets: [5, 5] },
  }, 5));
  assertEquals((await file.floats("first")).length, 0);
  assertEquals(await file.floats("scalar"), Float32Array.of(256 * 2 ** -24));
  assertEquals([...await file.integers("rest")], [2, 3, 4]);
  assertEquals((await file.integers("last")).length, 0);
  for await (const _ of file.pieces("between")) throw new Error("an empty tensor has no pieces");
  const { offset, ...info } = file.tensors.get("rest")!;
  assertEquals(info, { name: "rest", dtype: "U8", shape: [3, 1], bytes: 3 });
  assertEquals(file.tensors.get("scalar")!.offset, offset - 2);
});

const SAVED: Record<string, TensorToSave> = {
  "b.bytes": { dtype: "U8", shape: [3], data: [0, 255, 7] },
  "a.half": { dtype: "F16", shape: [1, 3], data: Float32Array.of(1, -2, 0.5) },
  "z.long": { dtype: "I64", shape: [2], data: [-1, Number.MAX_SAFE_INTEGER] },
  "c.float": { dtype: "F32", shape: [2, 2], data: Float32Array.of(0.1, NaN, -0, Infinity) },
  "d.brain": { dtype: "BF16", shape: [1], data: [3] },
  "e.int": { dtype: "I32", shape: [2], data: Int32Array.of(-2147483648, 2147483647) },
  "f.scalar": { dtype: "F32", shape: [], data: [4] },
  "g.none": { dtype: "F32", shape: [0], data: [] },
};

Deno.test("encodeSafetensors() writes what open() reads", async () => {
  const metadata = { format: "pt", "ä": "ö\n" };
  const file = await open(encodeSafetensors(SAVED, metadata));
  assertEquals(file.metadata, metadata);
  assertEquals([...file.tensors.keys()].sort(), Object.keys(SAVED).sort());
  for (const [name, { dtype, shape, data }] of Object.entries(SAVED)) {
    const info = file.tensors.get(name)!;
    assertEquals([info.dtype, info.shape], [dtype, shape]);
    if (dtype === "I64") {
      const stored = new BigInt64Array((await file.bytes(name)).buffer);
      assertEquals(stored, BigInt64Array.of(-1n, 9007199254740991n));
    } else if (/F/.test(dtype)) {
      assertEquals(await file.floats(name), Float32Array.from(data));
    } else assertEquals(await file.integers(name), Int32Array.from(data));
    const size = info.bytes / Math.max(1, data.length);
    assertEquals(info.offset % size || 0, 0, `${name} begins at a multiple of its element`);
  }
});

Deno.test("encodeSafetensors() gives the same bytes for the same content", () => {
  const backwards = Object.fromEntries(Object.entries(SAVED).reverse());
  const bytes = encodeSafetensors(SAVED, { b: "1", a: "2" });
  assertEquals(encodeSafetensors(backwards, { a: "2", b: "1" }), bytes);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  assertEquals(length % 8, 0);
  const text = new TextDecoder().decode(bytes.subarray(8, 8 + length));
  assertStringIncludes(text, '{"__metadata__":{"a":"2","b":"1"},"a.half":');
  const keys = Object.keys(JSON.parse(text)).slice(1);
  assertEquals(keys, [...keys].sort());
  // Names of every length need padding of every length.
  for (let n = 1; n <= 8; n++) {
    const file = encodeSafetensors({ ["n".repeat(n)]: { dtype: "U8", shape: [1], data: [n] } });
    assertEquals((file.length - 1) % 8, 0);
    assertEquals(file.at(-1), n);
  }
  assertEquals(
    encodeSafetensors({}),
    Uint8Array.of(8, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d, ...new Uint8Array(6).fill(0x20)),
  );
});

Deno.test("encodeSafetensors() saves names of properties of JavaScript's objects", async () => {
  const names = ["__proto__", "constructor", "10", "9"];
  const tensors = Object.fromEntries(
    names.map((name, i) => [name, { dtype: "U8" as const, shape: [1], data: [i] }]),
  );
  const file = await open(encodeSafetensors(tensors, JSON.parse('{"__proto__":"x"}')));
  for (const [i, name] of names.entries()) assertEquals([...await file.integers(name)], [i]);
  assertEquals(Object.entries(file.metadata), [["__proto__", "x"]]);
});

Deno.test("encodeSafetensors() throws when data and shape or dtype do not fit", () => {
  const refuse = (tensor: TensorToSave, why: string) => {
    const { message } = assertThrows(() => encodeSafetensors({ x: tensor }), RangeError);
    assertEquals(message, `Cannot save "x" ${why}`);
  };
  refuse({ dtype: "F32", shape: [2, 2], data: [1] }, "of shape [2,2]: it has 1 elements");
  refuse({ dtype: "F32", shape: [0], data: [1] }, "of shape [0]: it has 1 elements");
  refuse({ dtype: "U8", shape: [2], data: [1, 256] }, "as U8: element 1 is 256");
  refuse({ dtype: "U8", shape: [1], data: [-1] }, "as U8: element 0 is -1");
  refuse({ dtype: "I32", shape: [1], data: [2 ** 31] }, "as I32: element 0 is 2147483648");
  refuse({ dtype: "I32", shape: [1], data: [0.5] }, "as I32: element 0 is 0.5");
  refuse({ dtype: "I64", shape: [1], data: [2 ** 53] }, "as I64: element 0 is 9007199254740992");
  refuse({ dtype: "I64", shape: [1], data: [NaN] }, "as I64: element 0 is NaN");
  assertThrows(
    () => encodeSafetensors({ "__metadata__": { dtype: "U8", shape: [1], data: [1] } }),
    RangeError,
    'Cannot save "__metadata__": the format has this name for its metadata',
  );
});

const clip = fixtures("clip");
const checkpoints = clip ? filesIn(clip) : [];
const originals = checkpoints.filter((url) => url.pathname.endsWith("/model.safetensors"));
const copies = checkpoints.filter((url) => /\/model_bf16\.|\/sharded_f16\//.test(url.pathname));

if (copies.length === 0) skip("checkpoints rounded as PyTorch rounds them");
else {
  Deno.test("encodeSafetensors() rounds checkpoints as PyTorch does, bit for bit", async () => {
    let compared = 0;
    for (const url of copies) {
      const up = url.pathname.includes("/sharded_f16/") ? "../" : "";
      const original = await read(new URL(`${up}model.safetensors`, url));
      const copy = await read(url);
      for (const { name, dtype, shape } of copy.tensors.values()) {
        if (dtype !== "F16" && dtype !== "BF16") continue;
        const data = await original.floats(name);
        const rounded = await open(encodeSafetensors({ x: { dtype, shape, data } }));
        assertEquals(await rounded.bytes("x"), await copy.bytes(name), `${url} ${name}`);
        compared++;
      }
    }
    assert(compared > 0);
    console.log(`${compared} tensors of ${copies.length} files`);
  });
}

if (originals.length === 0) skip("checkpoints of fixtures/clip");
else {
  Deno.test("checkpoints written again hold the same tensors", async () => {
    for (const url of originals) {
      const file = await read(url);
      const tensors: Record<string, TensorToSave> = {};
      for (const { name, dtype, shape } of file.tensors.values()) {
        const data = dtype === "F32" ? await file.floats(name) : await file.integers(name);
        tensors[name] = { dtype: dtype as "F32" | "I64", shape, data };
      }
      const again = await open(encodeSafetensors(tensors, file.metadata));
      assertEquals(again.metadata, file.metadata);
      assertEquals([...again.tensors.keys()].sort(), [...file.tensors.keys()].sort());
      for (const name of file.tensors.keys()) {
        assertEquals(await again.bytes(name), await file.bytes(name));
      }
    }
  });

  Deno.test("open() refuses a checkpoint that is cut anywhere", async () => {
    const bytes = await Deno.readFile(originals[0]);
    const header = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    for (const length of [0, 7, 8, 9, header - 1, header, header + 1, bytes.length - 1]) {
      await refused(bytes.slice(0, length), length < 8 ? `${length} bytes` : "it is truncated");
    }
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    await refused(longer, "1 bytes follow its last tensor");
  });
}

const roots = ["fixtures/", "models/", "data/"].map(shared).filter((url) => url !== null);
if (roots.length === 0) skip("every safetensors file of ../shared");
else {
  Deno.test("open() accepts every safetensors file of ../shared", async () => {
    const urls = roots.flatMap(filesIn);
    for (const url of urls) {
      const file = await read(url);
      for (const { name, dtype, shape } of file.tensors.values()) {
        const values = dtype.includes("F") ? await file.floats(name) : await file.integers(name);
        assertEquals(values.length, shape.reduce((n, size) => n * size, 1), `${url} ${name}`);
      }
    }
    assert(urls.length > 0);
    console.log(`${urls.length} files`);
  });
}

async function read(url: URL): Promise<SafetensorsFile> {
  return await open(await Deno.readFile(url));
}

/** The safetensors files in a directory and in those below it. */
function filesIn(directory: URL): URL[] {
  return [...Deno.readDirSync(directory)].flatMap(({ name, isDirectory }) => {
    if (isDirectory) return filesIn(new URL(`${name}/`, directory));
    return name.endsWith(".safetensors") ? [new URL(name, directory)] : [];
  });
}
