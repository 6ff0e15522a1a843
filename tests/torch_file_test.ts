import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { unpickle } from "../tensor/pickle.ts";
import { PickleGlobal, PickleObject, PickleReference } from "../tensor/pickle_value.ts";
import { type ByteSource, bytesSource, type SafetensorsDtype } from "../tensor/tensor_file.ts";
import { TorchFile } from "../tensor/torch_file.ts";
import { ZipFile } from "../tensor/zip.ts";

const FIXTURES = new URL("fixtures/torch/", import.meta.url);
const VERSIONS = ["torch1.13", "torch2.6"];

interface Expected {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Numbers, or strings where JSON has none: infinities, NaN, integers beyond 2⁵³. */
  readonly values: readonly (number | string | boolean)[];
}

type Bytes = Uint8Array<ArrayBuffer>;

const read = (path: string): Bytes => Deno.readFileSync(new URL(path, FIXTURES));
const open = (bytes: Bytes) => TorchFile.open(bytesSource(bytes, "x.pt"));

async function refused(bytes: Bytes, why: string): Promise<void> {
  const { message } = await assertRejects(() => open(bytes), RangeError);
  assertEquals(message.slice(0, why.length + 18), `Cannot read x.pt: ${why}`);
  assertOneLine(message);
}

function assertOneLine(message: string): void {
  assert(/^Cannot (read|find) [^\n]*[^\n.]$/.test(message), message);
  assert(message.length < 1500, message);
}

/** The content of each file; `expected.json` may name another file with the same content. */
function expectedOf(version: string): ReadonlyMap<string, Readonly<Record<string, Expected>>> {
  const all = JSON.parse(new TextDecoder().decode(read(`${version}/expected.json`)));
  const resolve = (file: string) => typeof all[file] === "string" ? all[all[file]] : all[file];
  return new Map(Object.keys(all).map((file) => [`${version}/${file}`, resolve(file)]));
}

const ELEMENTS = {
  F64: Float64Array,
  F32: Float32Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U64: BigUint64Array,
  U32: Uint32Array,
  U16: Uint16Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
};

/** Elements as text: floats by their value as f32, other types exactly. */
async function elementsOf(file: TorchFile, name: string): Promise<string[]> {
  const { dtype } = file.tensors.get(name)!;
  if (dtype.includes("F")) return Array.from(await file.floats(name), show);
  const { buffer } = await file.bytes(name);
  return Array.from(new ELEMENTS[dtype as keyof typeof ELEMENTS](buffer) as Iterable<number>, show);
}

const show = (value: unknown) => Object.is(value, -0) ? "-0" : String(value);

function shown({ dtype, values }: Expected): string[] {
  return values.map((value) => {
    if (!dtype.includes("F")) return show(BigInt(value));
    const infinite = { inf: Infinity, "-inf": -Infinity, nan: NaN }[String(value)];
    return show(Math.fround(infinite ?? Number(value)));
  });
}

for (const version of VERSIONS) {
  for (const [path, tensors] of expectedOf(version)) {
    Deno.test(`TorchFile reads ${path}`, async () => {
      const file = await open(read(path));
      assertEquals(file.name, "x.pt");
      assertEquals([...file.tensors.keys()].sort(), Object.keys(tensors).sort());
      for (const [name, expected] of Object.entries(tensors)) {
        const { dtype, shape } = expected;
        assertEquals(file.tensors.get(name), { name, dtype, shape });
        assertEquals(await elementsOf(file, name), shown(expected), name);
      }
    });
  }
}

Deno.test("the fixtures have each case in the files of both versions of PyTorch", () => {
  for (const version of VERSIONS) {
    const expected = expectedOf(version);
    assert([...expected.values()].flatMap(Object.keys).length > 250, version);
    const files = [...expected.keys()];
    for (const stem of ["dtypes", "views", "parameters", "module", "protocol5", "training"]) {
      for (const end of [".pt", "_old.pt"]) {
        assert(files.includes(`${version}/${stem}${end}`), `${version} ${stem}${end}`);
      }
    }
    for (const file of ["script.pt", "trace.pt"]) assert(files.includes(`${version}/${file}`));
  }
});

Deno.test("pieces() gives what floats() gives, in pieces of any size", async () => {
  for (const path of ["torch2.6/views.pt", "torch2.6/views_old.pt", "torch1.13/dtypes.pt"]) {
    const file = await open(read(path));
    for (const { name, dtype } of file.tensors.values()) {
      if (!dtype.includes("F")) continue;
      const expected = await file.floats(name);
      const size = { F64: 8, F32: 4, F16: 2, BF16: 2 }[dtype as string]!;
      for (const pieceBytes of [1, size, 3 * size, 3 * size + 1, 5 * size, undefined]) {
        const most = pieceBytes ? Math.max(1, Math.floor(pieceBytes / size)) : Infinity;
        const joined: number[] = [];
        for await (const { start, values } of file.pieces(name, pieceBytes)) {
          assertEquals(start, joined.length);
          assert(values.length > 0 && values.length <= most, `${name} in ${pieceBytes}`);
          joined.push(...values);
        }
        assertEquals(Float32Array.from(joined), expected, `${path} ${name} in ${pieceBytes}`);
      }
    }
  }
});

Deno.test("floats() and pieces() throw on tensors of integers and on unknown names", async () => {
  const file = await open(read("torch2.6/views.pt"));
  const noFloats = 'Cannot read "long" of x.pt as floats: it is I64';
  await assertRejects(() => file.floats("long"), TypeError, noFloats);
  await assertRejects(() => file.pieces("long").next(), TypeError, noFloats);
  for (const name of ["nothing", "__proto__", "constructor", ""]) {
    const missing = `Cannot find ${JSON.stringify(name)} in x.pt`;
    await assertRejects(() => file.floats(name), RangeError, missing);
    await assertRejects(() => file.bytes(name), RangeError, missing);
    await assertRejects(() => file.pieces(name).next(), RangeError, missing);
  }
});

Deno.test("open() refuses by name tensors that are not plain", async () => {
  for (const version of VERSIONS) {
    const refusedAs = (file: string, why: string) => refused(read(`${version}/${file}`), why);
    await refusedAs("complex.pt", 'tensor "x" is ComplexFloat, which cannot be read');
    const made = 'tensor "x" is made by "torch._utils._rebuild';
    await refusedAs("quantized.pt", `${made}_qtensor", only dense tensors are read`);
    await refusedAs("sparse.pt", `${made}_sparse_tensor", only dense tensors are read`);
    await refusedAs("meta.pt", `${made}_meta_tensor_no_storage", only dense tensors are read`);
    await refusedAs("tensor.pt", "it holds no dict of tensors, save the state dict");
    await refusedAs("list.pt", "it holds no dict of tensors, save the state dict");
    await refusedAs("whole_module.pt", 'it asks for "torch.nn.modules.linear.Linear", and only');
  }
  await refused(
    read("torch2.6/negated.pt"),
    'tensor "x" has its sign beside its bytes, save a clone of it',
  );
});

Deno.test("a pickle that would run a command runs nothing", async () => {
  const trace = new URL("../hostile_pickle_was_run", import.meta.url);
  const noTrace = () => assertThrows(() => Deno.statSync(trace), Deno.errors.NotFound);
  for (const version of VERSIONS) {
    for (const file of ["attack.pt", "attack_old.pt", "attack4.pt"]) {
      await refused(read(`${version}/${file}`), 'it asks for "posix.system", and only tensors are');
    }
  }
  for (const name of ["os.system", "posix.system", "builtins.eval", "__builtin__.eval"]) {
    const [module, attribute] = name.split(".");
    const call = `${unicode("touch hostile_pickle_was_run")}\x85R`;
    for (
      const pickle of [
        `c${module}\n${attribute}\n${call}.`,
        `\x80\x04${short(module)}\x94${short(attribute)}\x94\x93${call}.`,
        // The name comes from the memo; some scanners looked only at what was pushed last.
        `${unicode(module)}p0\n0${unicode(attribute)}p1\n0${unicode("torch")}0g0\ng1\n\x93${call}.`,
      ]
    ) {
      const refusal = `it asks for "${name}", and only tensors are read; save the state dict alone`;
      await refused(checkpoint(pickle), refusal);
      await refused(oldCheckpoint(pickle), refusal);
      // Even if everything is allowed, the call is only noted.
      const { value } = unpickle(bytes(pickle), { file: "x", allows: () => true });
      assertEquals(value, new PickleObject(name, ["touch hostile_pickle_was_run"]));
    }
  }
  noTrace();
});

/** The bytes of a binary string, which has a character for each byte. Pickles and ZIP files below
 * are such strings. */
const bytes = (text: string): Bytes => Uint8Array.from(text, (c) => c.charCodeAt(0));
const number = (value: number, length: number) =>
  Array.from({ length }, (_, i) => String.fromCharCode(Math.floor(value / 256 ** i) % 256)).join(
    "",
  );
const u16 = (value: number) => number(value, 2);
const u32 = (value: number) => number(value, 4);
const u64 = (value: number) => number(value, 8);
const ascii = (buffer: ArrayBufferView<ArrayBuffer>) =>
  Array.from(
    new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength),
    (byte) => String.fromCharCode(byte),
  ).join("");
const utf8 = (text: string) => ascii(new TextEncoder().encode(text));

const unicode = (text: string) => `X${u32(utf8(text).length)}${utf8(text)}`;
const short = (text: string) => `\x8c${String.fromCharCode(utf8(text).length)}${utf8(text)}`;
const int = (value: number) => `I${value}\n`;
const tuple = (...items: string[]) => `(${items.join("")}t`;
const dict = (...items: string[]) => `}(${items.join("")}u`;
const ORDERED_DICT = "ccollections\nOrderedDict\n";

interface TensorParts {
  readonly maker?: string;
  readonly what?: string;
  readonly type?: string;
  readonly key?: string;
  readonly count?: string;
  readonly offset?: string;
  readonly shape?: string;
  readonly strides?: string;
  readonly view?: string;
  readonly rest?: string;
}

/** The pickle of a tensor: by default, two f32 of storage "0". */
function tensor({
  maker = "ctorch._utils\n_rebuild_tensor_v2\n",
  what = "storage",
  type = "ctorch\nFloatStorage\n",
  key = unicode("0"),
  count = int(2),
  offset = int(0),
  shape = tuple(int(2)),
  strides = tuple(int(1)),
  view = "",
  rest = `\x89${ORDERED_DICT})R`,
}: TensorParts = {}): string {
  const storage = `${tuple(unicode(what), type, key, unicode("cpu"), count, view)}Q`;
  return `${maker}${tuple(storage, offset, shape, strides, rest)}R`;
}

interface Entry {
  readonly name: string;
  readonly data: string;
  readonly method?: number;
  readonly bits?: number;
  /** False claims: the directory gives a wrong size or position, the local header a wrong name. */
  readonly size?: number;
  readonly header?: number;
  readonly localName?: string;
}

/**
 * A ZIP file as PyTorch writes it: with padding before the data, and sizes only in the directory,
 * which lists the entries from last to first, as it may.
 */
function zip(
  entries: readonly Entry[],
  { comment = "", count = entries.length, wide = false, padding = 7 } = {},
): string {
  let file = "", directory = "";
  for (const { name, data, method = 0, bits = 8, size = data.length, ...claimed } of entries) {
    const [local, header] = [claimed.localName ?? name, claimed.header ?? file.length];
    const packing = u16(0) + u16(bits) + u16(method) + u32(0);
    file += `PK\x03\x04${packing}${u32(0)}${u64(0)}${u16(local.length)}${u16(padding)}${local}`;
    file += `${"Z".repeat(padding)}${data}`;
    const extra = `\x34\x12${u16(3)}abc\x01\x00${u16(24)}${u64(size)}${u64(size)}${u64(header)}`;
    const claims = (value: number) => wide ? "\xff\xff\xff\xff" : u32(value);
    const lengths = `${u16(name.length)}${u16(wide ? extra.length : 0)}${u16(0)}${u64(0)}`;
    directory = `PK\x01\x02${u16(0)}${packing}${u32(0)}${claims(size)}${claims(size)}${lengths}${
      claims(header)
    }${name}${wide ? extra : ""}${directory}`;
  }
  const sizes = [count, count, directory.length, file.length];
  const end64 = `PK\x06\x06${u64(44)}${u16(0)}${u16(0)}${u64(0)}${sizes.map(u64).join("")}`;
  const locator = `PK\x06\x07${u32(0)}${u64(file.length + directory.length)}${u32(1)}`;
  const narrow = wide
    ? "\xff".repeat(12)
    : `${u16(count)}${u16(count)}${u32(directory.length)}${u32(file.length)}`;
  return `${file}${directory}${wide ? end64 + locator : ""}PK\x05\x06${u32(0)}${narrow}${
    u16(comment.length)
  }${comment}`;
}

const TWO_FLOATS = ascii(Float32Array.of(1.5, -2));

/** A file of `torch.save` in PyTorch 1.6 or later. */
function checkpoint(
  pickle: string,
  storages: Readonly<Record<string, string>> = { 0: TWO_FLOATS },
) {
  const data = Object.entries(storages).map(([key, data]) => ({ name: `a/data/${key}`, data }));
  return bytes(zip([{ name: "a/data.pkl", data: pickle }, ...data]));
}

const MAGIC = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const VERSION = "\x80\x02M\xe9\x03.";
const system = (isLittle: boolean) =>
  `\x80\x02${dict(unicode("little_endian"), isLittle ? "\x88" : "\x89")}.`;

/** A file of `torch.save` before PyTorch 1.6. */
function oldCheckpoint(
  pickle: string,
  { keys = `](${unicode("0")}e.`, data = `${u64(2)}${TWO_FLOATS}`, isLittle = true } = {},
) {
  return bytes(`${MAGIC}${VERSION}${system(isLittle)}${pickle}${keys}${data}`);
}

Deno.test("open() reads the files that the tests below change", async () => {
  const pickle = `\x80\x02${dict(unicode("x"), tensor())}.`;
  for (const file of [checkpoint(pickle), oldCheckpoint(pickle)]) {
    assertEquals([...await (await open(file)).floats("x")], [1.5, -2]);
  }
});

Deno.test("open() refuses tensors beyond their storage, and storages beyond the file", async () => {
  const x = (parts: TensorParts, why: string) =>
    refused(checkpoint(`${dict(unicode("x"), tensor(parts))}.`), why);
  await x({ shape: tuple(int(3)) }, 'tensor "x" of shape [3] goes beyond its storage');
  await x({ offset: int(1) }, 'tensor "x" of shape [2] goes beyond its storage');
  await x({ strides: tuple(int(2)) }, 'tensor "x" of shape [2] goes beyond its storage');
  await x({ count: int(3) }, 'tensor "x" has a storage of 12 bytes, and the file has 8 of them');
  const huge = 'tensor "x" has a storage of 8796093022208 bytes, and the file has 8 of them';
  await x({ count: int(2 ** 41), shape: tuple(int(2 ** 41)) }, huge);
  const axes = 'tensor "x" is damaged, it needs a size and a stride from 0 on for each axis';
  for (const wrong of [int(-1), "L9007199254740993L\n", "F1.5\n", "N", "\x88", unicode("2")]) {
    await x({ shape: tuple(wrong) }, axes);
    await x({ strides: tuple(wrong) }, axes);
    const where = 'tensor "x" is damaged, it does not say where it is';
    await x({ offset: wrong }, where);
    await x({ count: wrong }, where);
  }
  await x({ shape: "N" }, axes);
  await x({ strides: tuple(int(1), int(1)) }, axes);
  const many = tuple(...new Array(65).fill(int(1)));
  await x({ shape: many, strides: many }, 'tensor "x" has 65 axes, at most 64 are read');
  const product = tuple(...new Array(64).fill(int(2 ** 52)));
  const still = tuple(...new Array(64).fill(int(0)));
  await x({ shape: product, strides: product }, 'tensor "x" of shape [4503599627370496,');
  await x({ shape: product, strides: still }, 'tensor "x" of shape [4503599627370496,');
  const repeats = 'tensor "x" of shape [1099511627776] repeats its elements to more than';
  await x({ shape: tuple(int(2 ** 40)), strides: tuple(int(0)) }, repeats);
  await x({ type: "ctorch\nFooStorage\n" }, 'tensor "x" is damaged, it does not say where');
  await x({ type: "ctorch\nfloat32\n" }, 'tensor "x" is damaged, it does not say where');
  await x({ type: "N" }, 'tensor "x" is damaged, it does not say where');
  await x({ what: "module" }, 'tensor "x" is damaged, it does not say where');
  const view = tuple(unicode("view"), int(0), int(2));
  await x({ count: int(-2), view }, 'tensor "x" is damaged, it does not say where');
  await x({ type: `ctorch\nfloat32${"a".repeat(10 ** 5)}\n` }, `it asks for "torch.float32aaaa`);
  await x({ key: "N" }, 'tensor "x" is damaged, it does not say where');
  await x({ type: "ctorch.storage\nUntypedStorage\n" }, 'tensor "x" is Untyped, which cannot be');
  await x(
    { maker: "ctorch._utils\n_rebuild_tensor_v9\n" },
    'tensor "x" is made by "torch._utils._',
  );
  const third = (dtype: string): TensorParts => ({
    maker: "ctorch._utils\n_rebuild_tensor_v3\n",
    type: "ctorch.storage\nUntypedStorage\n",
    rest: `\x89${ORDERED_DICT})R${dtype}`,
  });
  await x(
    third("ctorch\nfloat8_e4m3fn\n"),
    'tensor "x" is torch.float8_e4m3fn, which cannot be read',
  );
  await x(third("N"), 'tensor "x" is Untyped, which cannot be read');
  const negated = third(`ctorch\nuint16\n${dict(unicode("neg"), "\x88")}`);
  await x(negated, 'tensor "x" has its sign beside its bytes, save a clone of it');
  await x(third("ctorch\nuint16\n"), 'tensor "x" of shape [2] goes beyond its storage');
  await assertRejects(
    () => open(checkpoint(`${dict(unicode("x"), tensor({ key: unicode("../0") }))}.`)),
    RangeError,
    'Cannot find "a/data/../0" in x.pt',
  );
  await refused(
    oldCheckpoint(`${dict(unicode("x"), tensor())}.`, { keys: "].", data: "" }),
    'it has no storage "0"',
  );
});

Deno.test("TorchFile reads no byte of empty tensors, wherever they are", async () => {
  const many = new Array(63).fill(int(2 ** 52));
  const [shape, strides] = [tuple(...many, int(0)), tuple(...many, int(1))];
  const empty = tensor({ shape, strides, offset: int(99) });
  const { file, reads } = largeZip(0, { name: "a/data/0", data: TWO_FLOATS }, {
    name: "a/data.pkl",
    data: `${dict(unicode("x"), empty)}.`,
  });
  const opened = await TorchFile.open(file);
  const before = reads.length;
  assertEquals(await opened.floats("x"), new Float32Array());
  for await (const _ of opened.pieces("x")) throw new Error("an empty tensor has no pieces");
  assertEquals(reads.length, before);
});

Deno.test("TorchFile reads tensors that repeat a few elements", async () => {
  const repeated = tensor({ shape: tuple(int(10 ** 4), int(2)), strides: tuple(int(0), int(1)) });
  const file = await open(checkpoint(`${dict(unicode("x"), repeated)}.`));
  const values = await file.floats("x");
  assertEquals(values.length, 20_000);
  assert(values.every((value, i) => value === (i % 2 ? -2 : 1.5)));
});

Deno.test("TorchFile reads sources at any offset, and refuses ones that end early", async () => {
  const content = checkpoint(`${dict(unicode("x"), tensor())}.`);
  let missing = 0;
  const file: ByteSource = {
    name: "x.pt",
    size: content.length,
    read(offset, length) {
      const bytes = new Uint8Array(length + 1);
      bytes.set(content.subarray(offset, offset + length), 1);
      return Promise.resolve(bytes.subarray(1, length + 1 - missing));
    },
  };
  const opened = await TorchFile.open(file);
  assertEquals([...await opened.floats("x")], [1.5, -2]);
  missing = 1;
  await assertRejects(
    () => opened.floats("x"),
    RangeError,
    "Cannot read x.pt: it gave 29 of 30 bytes from ",
  );
});

Deno.test("open() knows every way in which PyTorch has made tensors", async () => {
  const wrap = (function_: string, ...args: string[]) => `${function_}${tuple(...args)}R`;
  const parameter = wrap(
    "ctorch._utils\n_rebuild_parameter\n",
    tensor(),
    "\x88",
    `${ORDERED_DICT})R`,
  );
  const fromType = (made: string, args: string) =>
    wrap("ctorch._tensor\n_rebuild_from_type_v2\n", made, "ctorch\nTensor\n", args, dict());
  const storage = tuple(
    unicode("storage"),
    "ctorch\nFloatStorage\n",
    unicode("0"),
    unicode("cpu"),
    int(2),
  );
  const parts = [`${storage}Q`, int(0), tuple(int(2)), tuple(int(1)), "\x89", "N"];
  const forms = {
    "before 0.4": wrap("ctorch._utils\n_rebuild_tensor\n", ...parts.slice(0, 4)),
    "on a GPU": tensor({ type: "ctorch.cuda\nFloatStorage\n" }),
    "with notes": tensor({ rest: `\x89${ORDERED_DICT})R${dict()}` }),
    parameter,
    "of a type": fromType("ctorch._utils\n_rebuild_tensor_v2\n", tuple(...parts)),
    "parameter of a type": wrap(
      "ctorch._utils\n_rebuild_parameter_with_state\n",
      fromType("ctorch._utils\n_rebuild_tensor_v2\n", tuple(...parts)),
      "\x89",
      "N",
      dict(),
    ),
    // A storage that is a view of another one begins at an offset in it.
    "as a view": tensor({ view: tuple(unicode("view"), int(1), int(1)), shape: tuple(int(1)) }),
    "as no view": tensor({ view: "N" }),
  };
  const items = Object.entries(forms).flatMap(([name, made]) => [unicode(name), made]);
  for (const form of [checkpoint, oldCheckpoint]) {
    const file = await open(form(`\x80\x02${dict(...items)}.`));
    assertEquals([...file.tensors.keys()], Object.keys(forms));
    for (const name of file.tensors.keys()) {
      const values = name === "as a view" ? [-2] : [1.5, -2];
      assertEquals([...await file.floats(name)], values, name);
    }
  }
  const view = (offset: number, length: number, why: string) => {
    const parts = tuple(unicode("view"), int(offset), int(length));
    return refused(checkpoint(`${dict(unicode("x"), tensor({ view: parts }))}.`), why);
  };
  await view(1, 1, 'tensor "x" of shape [2] goes beyond its storage');
  await view(1, 2, 'tensor "x" of shape [2] goes beyond its storage');
  await view(0, 1, 'tensor "x" of shape [2] goes beyond its storage');
  await view(-1, 3, 'tensor "x" is damaged, it does not say where it is');
  await view(0, -1, 'tensor "x" is damaged, it does not say where it is');
  const ofNothing = fromType("ctorch._utils\n_rebuild_tensor_v2\n", "N");
  await refused(
    checkpoint(`${dict(unicode("x"), ofNothing)}.`),
    'tensor "x" is made by "torch._tensor._rebuild_from_type_v2", only dense tensors',
  );
  // Parameters may wrap parameters, several times.
  const deep = Array.from({ length: 9 }).reduce<string>(
    (inner) => wrap("ctorch._utils\n_rebuild_parameter\n", inner, "\x88", "N"),
    tensor(),
  );
  await refused(
    checkpoint(`${dict(unicode("x"), deep)}.`),
    'tensor "x" is made by "torch._utils._rebuild_parameter", only dense tensors',
  );
});

const X = tensor();

async function namesOf(pickle: string): Promise<string[]> {
  return [...(await open(checkpoint(`${pickle}.`))).tensors.keys()];
}

Deno.test("open() names tensors as a state dict does", async () => {
  const nested = dict(unicode("a"), X, unicode("b"), dict(unicode("c"), X, unicode("d"), dict()));
  assertEquals(await namesOf(nested), ["a", "b.c"]);
  // Everything except named tensors is ignored.
  const ignored = [
    "N",
    "\x88",
    int(3),
    "F0.5\n",
    unicode("s"),
    `]${X}a`,
    tuple(X),
    "\x8f",
    ")",
    `C\x01!`,
  ];
  const unnamed = [int(7), X, "N", X, int(8), dict(unicode("x"), X)];
  const all = dict(...ignored.flatMap((value, i) => [unicode(`k${i}`), value]), ...unnamed);
  assertEquals(await namesOf(all), []);
  assertEquals(await namesOf(dict()), []);
  assertEquals(await namesOf(dict(unicode(""), X, unicode("ä\n😀"), X)), ["", "ä\n😀"]);
  // A checkpoint of training gives its state dict, if that is a dict; other keys stay in the names.
  const training = (name: string, value: string) =>
    dict(
      unicode("epoch"),
      int(3),
      unicode(name),
      value,
      unicode("optimizer"),
      dict(unicode("y"), X),
    );
  assertEquals(await namesOf(training("state_dict", dict(unicode("x"), X))), ["x"]);
  assertEquals(await namesOf(training("state_dict", "N")), ["optimizer.y"]);
  assertEquals(await namesOf(training("state_dict", X)), ["state_dict", "optimizer.y"]);
  assertEquals(await namesOf(training("model", dict(unicode("x"), X))), ["model.x", "optimizer.y"]);
  // Training on several GPUs puts a prefix before all names; it is removed from all or from none.
  const parallel = (...names: string[]) => dict(...names.flatMap((name) => [unicode(name), X]));
  assertEquals(await namesOf(parallel("module.a", "module.module.b")), ["a", "module.b"]);
  assertEquals(await namesOf(parallel("module.a", "b")), ["module.a", "b"]);
  assertEquals(await namesOf(parallel("modules.a", "modulea")), ["modules.a", "modulea"]);
  assertEquals(await namesOf(dict(unicode("module"), parallel("a", "b"))), ["a", "b"]);
});

Deno.test("open() ignores what torch.load(weights_only=True) allows beside tensors", async () => {
  const names = [
    ...["collections.OrderedDict", "collections.Counter", "_codecs.encode", "builtins.set"],
    ...["builtins.bytearray", "__builtin__.complex", "torch.nn.parameter.Parameter", "torch.Size"],
    ...["torch.Tensor", "torch.device", "torch.serialization._get_layout", "torch.float32"],
    ...["torch.bfloat16", "torch.uint8", "torch.qint8", "torch.complex64", "torch.bool"],
    ...["torch.float8_e4m3fn", "torch.per_channel_affine_float_qparams", "torch.bits1x8"],
    ...["torch.FloatStorage", "torch.cuda.HalfStorage", "torch.storage.TypedStorage"],
  ];
  const named = (name: string) => {
    const at = name.lastIndexOf(".");
    return `c${name.slice(0, at)}\n${name.slice(at + 1)}\n`;
  };
  const items = names.flatMap((name) => [unicode(name), named(name)]);
  assertEquals(await namesOf(dict(...items, unicode("x"), X)), ["x"]);
  const refusedNames = [
    ...["collections.defaultdict", "builtins.getattr", "torch.load", "torch.hub.load", "torch.ops"],
    ...["numpy.core.multiarray.scalar", "torch._utils.import_dotted_name", "os.FloatStorage"],
    ...["xtorch.FloatStorage", "torch.FloatStorage.x", "torch.float32.x", "torch._dynamo.x"],
    ...[
      "torch.jit._pickle.x",
      "torch.jit.load",
      "x.__torch__.x",
      "torch._tensor._rebuild_from_type",
    ],
  ];
  for (const name of refusedNames) {
    await refused(
      checkpoint(`${named(name)}.`),
      `it asks for "${name}", and only tensors are read`,
    );
  }
});

Deno.test("open() takes the tensors of state_dict() from modules of TorchScript", async () => {
  const module = (name: string, ...attributes: string[]) =>
    `c__torch__.${name}\n)\x81${dict(...attributes)}b`;
  const list = (function_: string, value: string) =>
    `ctorch.jit._pickle\n${function_}\n${tuple(value, unicode("List[int]"))}R`;
  const pickle = module(
    "clip.model\nCLIP",
    ...[unicode("training"), "\x88", unicode("0"), module("___torch_mangle_3\nM", unicode("w"), X)],
    ...[unicode("x"), X, unicode("none"), "N", unicode("dict"), dict(unicode("no"), X)],
    ...[unicode("sizes"), list("restore_type_tag", `]${int(1)}a`)],
    ...[unicode("ints"), list("build_intlist", `]${int(1)}a`)],
    ...[unicode("tensors"), list("build_tensorlist", `]${X}a`)],
    ...[unicode("stateless"), `c__torch__.torch.classes\nQ\n${tuple(int(1))}R`],
    ...[unicode("packed"), `c__torch__.torch.classes\nQ\n)\x81${tuple(X)}b`],
  );
  assertEquals(await namesOf(pickle), ["0.w", "x"]);
  assertEquals(await namesOf(dict(unicode("model"), pickle)), ["model.0.w", "model.x"]);
  // Before PyTorch 1.4 the tensors were in another folder.
  const entries = [{ name: "a/data.pkl", data: `${pickle}.` }, {
    name: "a/tensors/0",
    data: TWO_FLOATS,
  }];
  const file = await open(bytes(zip(entries)));
  assertEquals([...await file.floats("0.w")], [1.5, -2]);
});

Deno.test("open() refuses endless dicts, and too many names", async () => {
  await refused(checkpoint(`}p0\n${unicode("x")}g0\ns.`), "more than 64 dicts are in each other");
  const module = `c__torch__\nM\n)\x81p0\n}${unicode("x")}g0\nsb.`;
  await refused(checkpoint(module), "more than 64 dicts are in each other");
  // A list or a tuple that holds itself is ignored.
  assertEquals(await namesOf(dict(unicode("x"), "]p0\ng0\na", unicode("y"), "]p1\ng1\n\x85a")), []);
  // Sixty dicts, each twice in the next one, make 2⁶⁰ names.
  const doubled = Array.from({ length: 60 }, (_, i) => {
    return `}${unicode("a")}g${i}\ns${unicode("b")}g${i}\nsp${i + 1}\n0`;
  });
  const names = "its names are too many or too long";
  await refused(checkpoint(`}p0\n0${doubled.join("")}g60\n.`), names);
  const long = `${unicode("n".repeat(2 ** 20))}p99\n0`;
  const longer = Array.from({ length: 60 }, (_, i) => `}g99\ng${i}\nsp${i + 1}\n0`);
  await refused(checkpoint(`${long}}p0\n0${longer.join("")}g60\n.`), names);
  const twice = dict(unicode("a"), dict(unicode("b"), X), unicode("a.b"), X);
  await refused(checkpoint(`${twice}.`), 'it has tensor "a.b" twice');
  await refused(
    checkpoint(`${dict(unicode("a"), X, unicode("a"), X)}.`),
    `its pickle is damaged before byte ${
      2 * (unicode("a") + X).length + 3
    }, a dict has the key "a" twice`,
  );
});

Deno.test("names of properties of JavaScript's objects are ordinary names", async () => {
  const names = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"];
  const items = names.flatMap((name) => [unicode(name), X]);
  const inner = dict(unicode("__proto__"), dict(unicode("polluted"), X));
  const file = await open(checkpoint(`${dict(...items, unicode("in"), inner)}.`));
  assertEquals([...file.tensors.keys()], [...names, "in.__proto__.polluted"]);
  for (const name of names) assertEquals([...await file.floats(name)], [1.5, -2]);
  const state = dict(
    unicode("__proto__"),
    dict(unicode("polluted"), "\x88"),
    unicode("__class__"),
    int(1),
  );
  const module = await namesOf(`c__torch__\nM\n)\x81${state}b`);
  assertEquals([module, "polluted" in {}], [[], false]);
});

Deno.test("open() refuses what is not a file of PyTorch", async () => {
  const neither = "it is neither a ZIP file nor a pickle, so no checkpoint of PyTorch";
  for (const text of ["", "P", "PK\x03", "hello", "version https://git-lfs.github.com/spec/v1\n"]) {
    await refused(bytes(text), neither);
  }
  await refused(bytes(`\x80\x02${X}.`), "it is a pickle, but not one of torch.save");
  await refused(bytes("\x80\x02K\x01."), "it is a pickle, but not one of torch.save");
  await refused(bytes(`${MAGIC}\x80\x02M\xea\x03.`), "it is a pickle, but not one of torch.save");
  const files = (...names: string[]) => bytes(zip(names.map((name) => ({ name, data: "}." }))));
  await refused(files("a/weights.npy"), "it has 0 data.pkl, a checkpoint of PyTorch has one");
  await refused(files("data.pkl", "a/b/data.pkl"), "it has 0 data.pkl, a checkpoint of");
  await refused(files("a/data.pkl", "b/data.pkl"), "it has 2 data.pkl, a checkpoint of");
  await refused(bytes(`PK\x03\x04${"\0".repeat(80)}`), "it is truncated, a ZIP file ends with");
});

Deno.test("open() refuses numbers of big-endian machines", async () => {
  const order = (data: string) =>
    bytes(zip([{ name: "a/data.pkl", data: "}." }, { name: "a/byteorder", data }]));
  assertEquals((await open(order("little"))).tensors.size, 0);
  const refusal = "its numbers are big-endian, and little-endian ones are read";
  for (const data of ["big", "", "little\n"]) await refused(order(data), refusal);
  await refused(oldCheckpoint("}.", { isLittle: false }), refusal);
  await refused(bytes(`${MAGIC}${VERSION}].`), refusal);
});

Deno.test("open() reads the old format, wherever its pickles end", async () => {
  // The pickle is larger than a MiB, and storages of other dtypes surround the requested one.
  const padding = Array.from({ length: 12 }, (_, i) => unicode("p".repeat(10 ** 5 + i)) + int(i));
  const named = (key: string, type: string, count: number) =>
    tensor({ key: unicode(key), type: `ctorch\n${type}Storage\n`, count: int(count) });
  const object = dict(
    ...padding,
    ...[unicode("state_dict"), dict(unicode("x"), X, unicode("z"), named("3", "Short", 5))],
    ...[unicode("a"), named("1", "ComplexDouble", 2), unicode("b"), named("2", "QInt8", 3)],
  );
  const keys = `](${["1", "0", "2", "3"].map(unicode).join("")}e.`;
  const shorts = ascii(Int16Array.of(1, 2, 3, 4, 5));
  const before = `${u64(2)}${"c".repeat(32)}`;
  const data = `${before}${u64(2)}${TWO_FLOATS}${u64(3)}qqq${u64(5)}${shorts}`;
  const file = await open(oldCheckpoint(`${object}.`, { keys, data }));
  assertEquals([...await file.floats("x")], [1.5, -2]);
  assertEquals(await file.bytes("z"), bytes(shorts.slice(0, 4)));
  const cut = oldCheckpoint(`${object}.`, { keys, data: data.slice(0, -1) });
  await refused(cut, `it is truncated, 10 bytes of tensors begin at ${cut.length - 9}`);
  const x = `${dict(unicode("x"), X)}.`;
  for (const count of ["\xff".repeat(8), `${"\0".repeat(7)}\x80`, u64(3), u64(2 ** 60)]) {
    await refused(oldCheckpoint(x, { data: `${count}${TWO_FLOATS}` }), "it is truncated, ");
  }
  const damaged = "it is damaged, it has a storage of no tensor or has one twice";
  for (const names of [["1"], ["0", "0"]]) {
    await refused(oldCheckpoint(x, { keys: `](${names.map(unicode).join("")}e.` }), damaged);
  }
  await refused(oldCheckpoint(x, { keys: "K\x01." }), 'it has no storage "0"');
});

Deno.test("open() reads files that Python 2 saved", async () => {
  // Its strings are bytes, and an OrderedDict comes with its items, as a list of lists.
  const string = (text: string) => `U${String.fromCharCode(text.length)}${text}`;
  const pair = (name: string, value: string) => `](${string(name)}${value}e`;
  const storage = tuple(
    ...[string("storage"), "ctorch\nFloatStorage\n", string("0"), string("cpu"), "K\x02", "N"],
  );
  const parts = tuple(`${storage}Q`, "K\0", "K\x02\x85", "K\x01\x85");
  const made = `ctorch._utils\n_rebuild_tensor\n${parts}R`;
  const metadata = dict(string("_metadata"), `${ORDERED_DICT}](${pair("", dict())}e\x85R`);
  const pairs = `${pair("a.weight", made)}${pair("b\xc3\xa4", made)}`;
  const object = `${ORDERED_DICT}](${pairs}e\x85R${metadata}b`;
  const file = await open(
    bytes(
      `${MAGIC}${VERSION}\x80\x02}${string("little_endian")}\x88s.\x80\x02${object}.` +
        `\x80\x02]${string("0")}a.${u64(2)}${TWO_FLOATS}`,
    ),
  );
  assertEquals([...file.tensors.keys()], ["a.weight", "bä"]);
  assertEquals([...await file.floats("a.weight")], [1.5, -2]);
  const damaged = "its pickle is damaged before byte ";
  const twice = pair("x", int(1)) + pair("x", int(1));
  for (const items of ["K\x01", `](${int(1)}e`, "](]e", `](${twice}e`]) {
    await refused(checkpoint(`${ORDERED_DICT}${items}\x85R.`), damaged);
  }
});

const source = (text: string) => bytesSource(bytes(text), "x.zip");

Deno.test("ZipFile reads directories of both widths, with comments and padding", async () => {
  const data = new Map([["a/b", "one"], ["ä", ""], ["c/", "three"]]);
  const entries = [...data].map(([name, data]) => ({ name: utf8(name), data }));
  for (const wide of [false, true]) {
    for (
      const [padding, comment] of [[0, ""], [61, "a comment"], [3, "PK\x05\x06".repeat(9)]] as const
    ) {
      const text = zip(entries, { wide, padding, comment });
      const file = await ZipFile.open(source(text));
      assertEquals([...file.entries.keys()], [...data.keys()]);
      for (const [name, expected] of data) {
        const start = await file.start(name);
        assertEquals(text.slice(start, start + file.entry(name).size), expected);
      }
    }
  }
  assertEquals((await ZipFile.open(source(zip([])))).entries.size, 0);
});

Deno.test("ZipFile refuses compressed and encrypted entries when they are requested", async () => {
  const entries = [
    { name: "fine", data: "yes" },
    { name: "small", data: "...", method: 8 },
    { name: "secret", data: "...", bits: 9 },
  ];
  const file = await ZipFile.open(source(zip(entries)));
  assertEquals(await file.start("fine"), 30 + "fine".length + 7);
  for (const [name, how] of [["small", "compressed"], ["secret", "encrypted"]]) {
    await assertRejects(
      () => file.start(name),
      RangeError,
      `Cannot read x.zip: its "${name}" is ${how}, and must be stored as it is`,
    );
  }
  await assertRejects(() => file.start("none"), RangeError, 'Cannot find "none" in x.zip');
  const deflated = (name: string, data: string) => ({ name, data, method: 8 });
  const refusal = (name: string) => `its "${name}" is compressed, and must be stored as it is`;
  await refused(bytes(zip([deflated("a/data.pkl", "}.")])), refusal("a/data.pkl"));
  const x = { name: "a/data.pkl", data: `${dict(unicode("x"), X)}.` };
  await refused(bytes(zip([x, deflated("a/data/0", TWO_FLOATS)])), refusal("a/data/0"));
});

Deno.test("ZipFile refuses impossible directories", async () => {
  const refusal = async (text: string, why: string) => {
    const { message } = await assertRejects(() => ZipFile.open(source(text)), RangeError);
    assertEquals(message.slice(0, why.length + 19), `Cannot read x.zip: ${why}`);
    assertOneLine(message);
  };
  const two = (first: Partial<Entry>, second: Partial<Entry> = {}) => [
    { name: "a", data: "12345", ...first },
    { name: "b", data: "67890", ...second },
  ];
  const damaged = "its ZIP directory is damaged, ";
  for (const wide of [false, true]) {
    const of = (entries: Entry[], count?: number) => zip(entries, { wide, count });
    await refusal(of(two({ name: "b" })), `${damaged}it has "b" twice`);
    await refusal(of(two({ size: 14 })), `${damaged}"a" overlaps what comes after it`);
    await refusal(of(two({}, { size: 14 })), `${damaged}"b" overlaps what comes after it`);
    await refusal(of(two({}, { header: 0 })), `${damaged}"b" overlaps what comes after it`);
    await refusal(of(two({}, { header: 2 ** 31 })), `${damaged}"b" overlaps what comes after it`);
    await refusal(of(two({ size: 2 ** 31 })), `${damaged}"a" overlaps what comes after it`);
    await refusal(of(two({}), 60_000), `${damaged}it claims 60000 entries in `);
  }
  await refusal(zip(two({}), { count: 3 }), `${damaged}it claims 3 entries in 94 bytes`);
  const wide = zip(two({}), { wide: true });
  await refusal(zip(two({}), { wide: true, count: 3 }), `${damaged}entry 2 of 3 cannot be read`);
  await refusal(zip(two({}), { wide: true, count: 2 ** 60 }), `${damaged}it claims 11529215046068`);
  await refusal(zip(two({ size: 2 ** 60 }), { wide: true }), `${damaged}"a" overlaps what comes`);
  // The field of wide numbers is missing, or the end of the directory is not where it should be.
  await refusal(
    wide.replace("\x01\0\x18\0", "\x02\0\x18\0"),
    `${damaged}entry 0 of 2 cannot be read`,
  );
  await refusal(
    wide.replace("\x34\x12\x03", "\x34\x12\xff"),
    `${damaged}entry 0 of 2 cannot be read`,
  );
  const locator = wide.indexOf("PK\x06\x07") + 8;
  const moved = (end: number) => wide.slice(0, locator) + u64(end) + wide.slice(locator + 8);
  await refusal(moved(2 ** 62), `${damaged}it ends at 4611686018427388000`);
  await refusal(moved(wide.length), `${damaged}it ends at ${wide.length}`);
  await refusal(moved(0), `${damaged}its end is not where it says`);
  const narrow = zip(two({}));
  const away = narrow.slice(0, -6) + u32(narrow.length) + u16(0);
  await refusal(away, `${damaged}it claims 2 entries in 94 bytes from ${narrow.length} on`);
  const unpacked = narrow.replace(`${u32(5)}${u32(5)}`, `${u32(5)}${u32(6)}`);
  await refusal(unpacked, `${damaged}entry 0 of 2 cannot be read`);
  await refusal(
    narrow.replace("PK\x01\x02", "PK\x01\x03"),
    `${damaged}entry 0 of 2 cannot be read`,
  );
  for (const cut of [1, 21, 22, 23, narrow.length]) {
    await refusal(narrow.slice(0, -cut), "it is truncated, a ZIP file ends with a directory");
  }
  await refusal(`${narrow}!`, "it is truncated, a ZIP file ends with a directory");
  // The local header is damaged, has another name, or moves the data into the next entry.
  const fields = `${u16(1)}${u16(7)}a`;
  for (
    const text of [
      narrow.replace("PK\x03\x04", "PK\x03\x05"),
      zip(two({ localName: "c" })),
      narrow.replace(fields, `${u16(1)}${u16(8)}a`),
    ]
  ) {
    const file = await ZipFile.open(source(text));
    await assertRejects(
      () => file.start("a"),
      RangeError,
      'Cannot read x.zip: its ZIP directory is damaged, "a" is not where it says',
    );
  }
});

/** A source of any size that has texts at some offsets, zeros elsewhere, and notes the lengths of
 * its reads. */
function sparse(size: number, texts: ReadonlyMap<number, string>) {
  const reads: number[] = [];
  const file: ByteSource = {
    name: "x.pt",
    size,
    read(offset, length) {
      assert(offset >= 0 && offset + length <= size, `${length} from ${offset} on`);
      reads.push(length);
      const read = new Uint8Array(length);
      for (const [start, text] of texts) {
        const from = Math.max(start, offset);
        const to = Math.min(start + text.length, offset + length);
        if (from < to) read.set(bytes(text.slice(from - start, to - start)), from - offset);
      }
      return Promise.resolve(read);
    },
  };
  return { file, reads };
}

/** A ZIP file of two entries, with any number of zeros before the data of the first one. */
function largeZip(zeros: number, first: Entry, second: Entry) {
  const text = zip([first, second], { padding: 0 });
  const [data, directory] = [30 + first.name.length, text.indexOf("PK\x01\x02")];
  const listed = ({ name }: Entry, size: number, header: number) => {
    const extra = `\x01\0${u16(24)}${u64(size)}${u64(size)}${u64(header)}`;
    const lengths = `${u16(name.length)}${u16(extra.length)}${"\0".repeat(10)}`;
    return `PK\x01\x02${"\0".repeat(16)}${
      "\xff".repeat(8)
    }${lengths}\xff\xff\xff\xff${name}${extra}`;
  };
  const list = listed(first, zeros + first.data.length, 0) +
    listed(second, second.data.length, zeros + data + first.data.length);
  const at = directory + zeros;
  const end64 = `PK\x06\x06${"\0".repeat(20)}${[2, 2, list.length, at].map(u64).join("")}`;
  const locator = `PK\x06\x07${u32(0)}${u64(at + list.length)}${u32(1)}`;
  const end = `PK\x05\x06${u32(0)}${"\xff".repeat(12)}${u16(0)}`;
  const tail = text.slice(data, directory) + list + end64 + locator + end;
  return sparse(
    data + zeros + tail.length,
    new Map([[0, text.slice(0, data)], [data + zeros, tail]]),
  );
}

Deno.test("TorchFile reads files beyond 4 GiB, in pieces of 16 MiB", async () => {
  const count = 3 * 2 ** 29;
  const large = (parts: TensorParts) => tensor({ count: int(count), ...parts });
  const pickle = dict(
    ...[unicode("all"), large({ shape: tuple(int(count)) })],
    ...[unicode("last"), large({ offset: int(count - 2) })],
  );
  const storage = { name: "a/data/0", data: TWO_FLOATS };
  const build = (pickle: string) =>
    largeZip(4 * count - 8, storage, { name: "a/data.pkl", data: pickle });
  const { file, reads } = build(`${pickle}.`);
  const opened = await TorchFile.open(file);
  assertEquals(opened.tensors.get("all")?.shape, [count]);
  assert(Math.max(...reads) < 2 ** 17, `${reads}`);
  assertEquals([...await opened.floats("last")], [1.5, -2]);
  reads.length = 0;
  let next = 0;
  for await (const { start, values } of opened.pieces("all")) {
    assertEquals([start, values.length], [next, 2 ** 22]);
    next += values.length;
    if (start > 2 ** 24) break;
  }
  assertEquals(Math.max(...reads), 2 ** 24);
  // A tensor in another order is reordered in memory.
  const shape = tuple(int(2), int(2));
  const spread = large({ shape, strides: tuple(int(1), int(2 ** 29)) });
  await assertRejects(
    () => TorchFile.open(build(`${dict(unicode("x"), spread)}.`).file),
    RangeError,
    'Cannot read x.pt: tensor "x" of shape [2,2] is spread over 2147483656 bytes, save it contig',
  );
});

Deno.test("open() reads no pickles of absurd sizes", async () => {
  const version = { name: "a/version", data: "3" };
  const large = largeZip(2 ** 26 - 1, { name: "a/data.pkl", data: "}." }, version);
  await assertRejects(
    () => TorchFile.open(large.file),
    RangeError,
    'Cannot read x.pt: its "a/data.pkl" has 67108865 bytes',
  );
  assert(Math.max(...large.reads) < 2 ** 17, `${large.reads}`);
  const listed = zip([version], { wide: true });
  const locator = listed.indexOf("PK\x06\x07");
  const [claimed, end] = [2 ** 26 + 1, 2 ** 27];
  const directory = `PK\x06\x06${"\0".repeat(20)}${[1, 1, claimed, 0].map(u64).join("")}`;
  const tail = `${directory}PK\x06\x07${u32(0)}${u64(end)}${listed.slice(locator + 16)}`;
  const many = sparse(end + tail.length, new Map([[0, listed], [end, tail]]));
  await assertRejects(
    () => TorchFile.open(many.file),
    RangeError,
    "Cannot read x.pt: its ZIP directory is damaged, it claims 1 entries in 67108865 bytes from 0",
  );
  assert(Math.max(...many.reads) < 2 ** 17, `${many.reads}`);
  // The length of a pickle in the old format is known only at its end.
  const start = `${MAGIC}${VERSION}${system(true)}X\xff\xff\xff\x7f`;
  const old = sparse(2 ** 33, new Map([[0, start]]));
  await assertRejects(
    () => TorchFile.open(old.file),
    RangeError,
    "Cannot read x.pt: it is truncated, its pickle needs 2147483647 bytes from ",
  );
  assertEquals(old.reads, [4, 2 ** 20, 2 ** 22, 2 ** 24, 2 ** 26]);
});

/** The value of a pickle that may name any global. */
const valueOf = (pickle: string) =>
  unpickle(bytes(pickle), { file: "x", allows: () => true }).value;

Deno.test("unpickle() knows the opcodes of all protocols", () => {
  const long = (length: string, digits: string) => `${length}${digits}`;
  const values: readonly (readonly [string, unknown])[] = [
    ["\x80\x05N", null],
    ["\x95\x01\0\0\0\0\0\0\0\x88", true],
    ["\x89", false],
    ["I01\n", true],
    ["I00\n", false],
    ["I-17\n", -17],
    ["I9007199254740993\n", 9007199254740993n],
    ["J\xfe\xff\xff\xff", -2],
    ["K\xff", 255],
    ["M\x01\x02", 513],
    ["L-5L\n", -5],
    ["L123456789012345678901L\n", 123456789012345678901n],
    [long("\x8a\0", ""), 0],
    [long("\x8a\x01", "\xff"), -1],
    [long("\x8a\x02", "\xff\0"), 255],
    [long("\x8a\x09", "\0\0\0\0\0\0\0\0\x01"), 2n ** 64n],
    [long("\x8b\x02\0\0\0", "\0\x80"), -32768],
    ["F-1.5e3\n", -1500],
    ["Finf\n", Infinity],
    ["F-inf\n", -Infinity],
    ["Fnan\n", NaN],
    ["G\x3f\xf8\0\0\0\0\0\0", 1.5],
    ["S'a\\'b\\\\\\n\\xc3\\xa4'\n", "a'b\\\nä"],
    ['S"it\'s"\n', "it's"],
    ["T\x02\0\0\0\xc3\xa4", "ä"],
    ["U\x01a", "a"],
    ["V\xe4\\u20ac\\U0001f600\n", "ä€😀"],
    ["X\x03\0\0\0\xef\xbb\xbf", "\ufeff"],
    ["\x8c\x01b", "b"],
    ["\x8d\x01\0\0\0\0\0\0\0c", "c"],
    ["B\x01\0\0\0\xff", Uint8Array.of(255)],
    ["C\x01\xfe", Uint8Array.of(254)],
    ["\x8e\x01\0\0\0\0\0\0\0\x01", Uint8Array.of(1)],
    ["\x96\x01\0\0\0\0\0\0\0\x02", Uint8Array.of(2)],
    ["]", []],
    ["(K\x01K\x02l", [1, 2]],
    ["]K\x01a(K\x02K\x03e", [1, 2, 3]],
    [")", []],
    ["(K\x01K\x02t", [1, 2]],
    ["K\x01\x85", [1]],
    ["K\x01K\x02\x86", [1, 2]],
    ["K\x01K\x02K\x03\x87", [1, 2, 3]],
    ["}", new Map()],
    ["(K\x01Nd", new Map([[1, null]])],
    ["}K\x01K\x02s(K\x03K\x04u", new Map([[1, 2], [3, 4]])],
    ["\x8f(K\x01K\x02\x90", new Set([1, 2])],
    ["(K\x01K\x01\x91", new Set([1])],
    ["K\x01K\x020", 1],
    ["K\x01(K\x02K\x031", 1],
    ["K\x012\x86", [1, 1]],
    ["K\x05p7\n0g7\n", 5],
    ["K\x05q\x070h\x07", 5],
    ["K\x05r\0\0\0\x070j\0\0\0\x07", 5],
    ["K\x05\x94K\x06\x94h\0\x87", [5, 6, 5]],
    ["ca.b\nC.d\n", new PickleGlobal("a.b.C.d")],
    ["U\x03a.bU\x01C\x93", new PickleGlobal("a.b.C")],
    ["ca\nB\nK\x01\x85R", new PickleObject("a.B", [1])],
    ["ca\nB\n)\x81}b", Object.assign(new PickleObject("a.B", []), { state: new Map() })],
    [`${ORDERED_DICT})R}b`, new Map()],
    [`${ORDERED_DICT}](](K\x01K\x02ee\x85R`, new Map([[1, 2]])],
    ["K\x01Q", new PickleReference(1)],
  ];
  for (const [pickle, expected] of values) {
    assertEquals(valueOf(`${pickle}.`), expected, JSON.stringify(pickle));
  }
  const { value, references, end } = unpickle(bytes("NN.K\x01QK\x02Q\x86.rest"), {
    file: "x",
    allows: () => false,
    start: 3,
  });
  assertEquals(value, references);
  assertEquals([references.map(({ id }) => id), end], [[1, 2], 11]);
});

Deno.test("unpickle() refuses what it does not read and what is impossible, in one line", () => {
  const damaged: Readonly<Record<string, string>> = {
    "i": "opcode 0x69 is not read", // INST
    "o": "opcode 0x6f is not read", // OBJ
    "Pid\n": "opcode 0x50 is not read", // PERSID
    "\x82\x01": "opcode 0x82 is not read", // EXT1
    "\x83\x01\0": "opcode 0x83 is not read", // EXT2
    "\x84\x01\0\0\0": "opcode 0x84 is not read", // EXT4
    "\x92": "opcode 0x92 is not read", // NEWOBJ_EX
    "\x97": "opcode 0x97 is not read", // NEXT_BUFFER
    "\x98": "opcode 0x98 is not read", // READONLY_BUFFER
    "\0": "opcode 0x0 is not read",
    "\x80\x06": "protocol 6 is not known",
    "": "its stack is empty",
    "0": "its stack is empty",
    "2": "its stack is empty",
    "(": "its stack is empty",
    "K\x01(0": "its stack is empty",
    "K\x01(p0\n": "its stack is empty",
    "K\x01\x86": "its stack is empty",
    "]a": "its stack is empty",
    "}K\x01s": "its stack is empty",
    "R": "its stack is empty",
    "b": "its stack is empty",
    "Q": "its stack is empty",
    "\x93": "its stack is empty",
    "\x94": "its stack is empty",
    "t": "its stack has no mark",
    "1": "its stack has no mark",
    "]e": "its stack has no mark",
    "h\x05": "it has no value 5",
    "g-1\n": "it has no value -1",
    "j\xff\xff\xff\xff": "it has no value 4294967295",
    "Ione\n": "a line is no number",
    "I1e3\n": "a line is no number",
    "I\n": "a line is no number",
    "L0x10L\n": "a line is no number",
    "Fone\n": "a line is no number",
    "p!\n": "a line is no number",
    [`L${"9".repeat(601)}L\n`]: "a line is no number",
    [`V${"9".repeat(2 ** 20 + 1)}\n`]: "a line has 1048577 bytes",
    "\x8b\xff\xff\xff\x7f": "a number has 2147483647 bytes",
    "\x8b\0\x01\0\0": "a number has 256 bytes",
    "Sabc\n": "a string has no quotes",
    "S'abc\"\n": "a string has no quotes",
    "S'\n": "a string has no quotes",
    "NK\x01a": "it appends to what is no list",
    ")K\x01a": "it appends to what is no list",
    "K\x01\x85(K\x01e": "it appends to what is no list",
    "U\x01aK\x01a": "it appends to what is no list",
    "](K\x01\x90": "it adds to what is no set",
    "]K\x01K\x02s": "it sets items of what is no dict, or a key without a value",
    "}(K\x01u": "it sets items of what is no dict, or a key without a value",
    "(K\x01d": "it sets items of what is no dict, or a key without a value",
    "ca\nB\n)R(K\x01K\x02u": "it sets items of what is no dict, or a key without a value",
    "}(U\x01aNU\x01aNu": 'a dict has the key "a" twice',
    "}(K\x01NK\x01Nu": "a dict has the key number twice",
    [`}(${unicode("k".repeat(999))}N2\x85p0\n0${unicode("k".repeat(999))}Nu`]:
      `a dict has the key "${"k".repeat(200)}" twice`,
    "K\x01U\x01a\x93": "a class or function has no name",
    "U\x01a]\x93": "a class or function has no name",
    "U\x09os.system)R": "it makes an object of what is no class or function and a tuple",
    "ca\nB\n]R": "it makes an object of what is no class or function and a tuple",
    "ca\nB\n)R)R": "it makes an object of what is no class or function and a tuple",
    "])\x81": "it makes an object of what is no class or function and a tuple",
    "ca\nB\n}b": "it sets the state of what is no object",
    "]}b": "it sets the state of what is no object",
    [`${ORDERED_DICT}K\x01\x85R`]: "it makes a dict of what is no list of pairs",
    [`${ORDERED_DICT}]K\x01a\x85R`]: "it makes a dict of what is no list of pairs",
  };
  for (const [pickle, why] of Object.entries(damaged)) {
    const { message } = assertThrows(() => valueOf(`${pickle}.`), RangeError);
    const where = /^Cannot read x: its pickle is damaged before byte \d+, /;
    assertEquals(message.replace(where, ""), why, JSON.stringify(pickle));
    assertOneLine(message);
  }
  const tooLong = ["X\xff\xff\xff\xff", "T\0\0\0\x80", "B\xff\xff\xff\xff", "U\x05abc", "C\x05abc"];
  const wide = "\0\0\0\0\0\x01\0\0"; // 2⁴⁰
  for (const opcode of ["\x8d", "\x8e", "\x96"]) {
    tooLong.push(opcode + wide, opcode + "\xff".repeat(8));
  }
  for (const pickle of [...tooLong, "ca\nb", "I12", "G\0\0", "J\0", "M\0"]) {
    const { message } = assertThrows(() => valueOf(pickle), RangeError);
    assert(
      /^Cannot read x: it is truncated, its pickle needs \d+ bytes from \d+ on$/.test(message),
    );
  }
});

Deno.test("unpickle() is quick with pickles that ask for much", () => {
  const most = 2 ** 21;
  const refused =
    `Cannot read x: its pickle has more than ${most} opcodes, save the state dict alone`;
  assertThrows(() => valueOf(`N${"2".repeat(most)}.`), RangeError, refused);
  // The maximal number of tuples, all in each other, and a list of itself.
  valueOf(`)${"\x85".repeat(most - 2)}.`);
  const list = valueOf(`]p0\n${"g0\na".repeat(10 ** 5)}.`) as unknown[];
  assertEquals([list.length, list.every((item) => item === list)], [10 ** 5, true]);
  // A name that is slow to search.
  const long = `c__torch__\n${"a".repeat(10 ** 6)}\n`;
  const { message } = assertThrows(
    () => unpickle(bytes(`${long}.`), { file: "x", allows: () => false }),
    RangeError,
  );
  assertOneLine(message);
});

/** The content of a file as text, or the one-line error that it throws. */
async function outcome(file: Bytes): Promise<string> {
  try {
    const opened = await open(file);
    const tensors = await Promise.all([...opened.tensors.values()].map(async (tensor) => {
      const { length } = await opened.bytes(tensor.name);
      const count = tensor.shape.reduce((product, size) => product * size, 1);
      assert(tensor.shape.every((size) => Number.isSafeInteger(size) && size >= 0));
      assert(Number.isInteger(length / Math.max(1, count)) && length >= count, `${length} bytes`);
      return [tensor, await elementsOf(opened, tensor.name)];
    }));
    return JSON.stringify(tensors);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    assertOneLine(error.message);
    return error.message;
  }
}

Deno.test("open() refuses files that are cut anywhere, or reads all their tensors", async () => {
  for (
    const path of ["torch2.6/nested.pt", "torch2.6/nested_old.pt", "torch1.13/protocol4_old.pt"]
  ) {
    const complete = read(path);
    const expected = await outcome(complete);
    assert(expected.startsWith("[["), expected);
    for (let length = 0; length < complete.length; length++) {
      const cut = await outcome(complete.slice(0, length));
      assert(cut === expected || cut.startsWith("Cannot "), `${path} cut to ${length}: ${cut}`);
      assert(cut !== expected || length > complete.length - 64, `${path} cut to ${length}`);
    }
  }
});

Deno.test("open() refuses files with a wrong byte, or reads possible tensors", async () => {
  let seed = 1;
  const random = (below: number) => {
    seed = Math.imul(seed, 1664525) + 1013904223 >>> 0;
    return Math.floor(seed / 2 ** 32 * below);
  };
  const paths = ["nested.pt", "nested_old.pt", "parameters.pt", "script.pt", "protocol4_old.pt"];
  for (const path of paths) {
    const complete = read(`torch2.6/${path}`);
    const refused = new Set<string>();
    for (let i = 0; i < 300; i++) {
      const changed = complete.slice();
      changed[random(complete.length)] ^= 1 + random(255);
      const result = await outcome(changed);
      if (result.startsWith("Cannot ")) refused.add(result);
    }
    assert(refused.size > 20, `${path}: ${refused.size} kinds of errors`);
  }
});
