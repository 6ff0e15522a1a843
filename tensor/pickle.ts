/**
 * Python's pickles, protocols 0 to 5, read as plain data (CPython, Lib/pickletools.py). Classes and functions stay
 * names: nothing is imported, called or run, whatever a pickle asks for.
 *
 * @module
 */

/** What a pickle holds. Tuples are frozen arrays; a number beyond 2⁵³ is a bigint. */
export type PickleValue =
  | (null | boolean | number | bigint | string | Uint8Array)
  | (readonly PickleValue[] | Map<PickleValue, PickleValue> | Set<PickleValue>)
  | (PickleGlobal | PickleObject | PickleReference);

/** A class or function of Python: its name. */
export class PickleGlobal {
  /** Takes the name, with that of its module before it. */
  constructor(readonly name: string) {}
}

/** What a class or function would make out of arguments: not made, just written down. */
export class PickleObject {
  /** What the object's attributes would be set from. */
  state: PickleValue = null;

  /** Takes the name of the class or function, and the arguments. */
  constructor(readonly maker: string, readonly args: readonly PickleValue[]) {}
}

/** What is not in the pickle itself, such as a tensor's bytes. */
export class PickleReference {
  /** Takes what says where it is. */
  constructor(readonly id: PickleValue) {}
}

/** A pickle that goes on after the bytes that there are. */
export class TruncatedPickleError extends RangeError {}

/** A pickle that has been read. */
export interface Pickle {
  /** What it holds. */
  readonly value: PickleValue;
  /** All references in it. */
  readonly references: readonly PickleReference[];
  /** Where the bytes after it begin. */
  readonly end: number;
}

/** What {@linkcode unpickle} needs to know besides the bytes. */
export interface UnpickleOptions {
  /** What errors call the file. */
  readonly file: string;
  /** Whether a pickle may name a class or function, such as `"collections.OrderedDict"`. */
  readonly allows: (name: string) => boolean;
  /** Where the pickle begins, 0 by default. */
  readonly start?: number;
}

/**
 * The pickle at `start` of `bytes`. An `OrderedDict` is a Map as dicts are; all else that would be made is a
 * {@linkcode PickleObject}.
 *
 * @throws {TruncatedPickleError} If the bytes end before the pickle does.
 * @throws {RangeError} If it is damaged, has opcodes that only run code, or names what is not allowed.
 */
export function unpickle(
  bytes: Uint8Array<ArrayBuffer>,
  { file, allows, start = 0 }: UnpickleOptions,
): Pickle {
  const machine = new Machine(bytes, start, file, allows);
  for (let steps = 0; steps < MAX_STEPS; steps++) {
    const opcode = String.fromCharCode(machine.byte());
    if (opcode === ".") {
      return { value: machine.pop(), references: machine.references, end: machine.at };
    }
    const step = OPCODES.get(opcode);
    if (!step) throw machine.damaged(`opcode 0x${opcode.charCodeAt(0).toString(16)} is not read`);
    step(machine);
  }
  throw new RangeError(
    `Cannot read ${file}: its pickle has more than ${MAX_STEPS} opcodes, save the state dict alone`,
  );
}

/** The state dict of a large model takes some 100,000. */
const MAX_STEPS = 2 ** 21;
const MAX_INTEGER_BYTES = 255;
const MAX_LINE_BYTES = 2 ** 20;
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** What opcodes work on: the bytes; a stack, in which marks say where lists begin; numbered values. */
class Machine {
  readonly references: PickleReference[] = [];
  readonly stack: PickleValue[] = [];
  readonly marks: number[] = [];
  readonly memo = new Map<number | bigint, PickleValue>();
  readonly #view: DataView;

  constructor(
    readonly bytes: Uint8Array<ArrayBuffer>,
    public at: number,
    readonly file: string,
    readonly allows: (name: string) => boolean,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  damaged(why: string): RangeError {
    return new RangeError(
      `Cannot read ${this.file}: its pickle is damaged before byte ${this.at}, ${why}`,
    );
  }

  /** Goes on by `length` bytes, and says where they begin. */
  skip(length: number): number {
    const start = this.at;
    if (length > this.bytes.length - start) {
      throw new TruncatedPickleError(
        `Cannot read ${this.file}: it is truncated, its pickle needs ${length} bytes from ${start} on`,
      );
    }
    this.at += length;
    return start;
  }

  byte = () => this.#view.getUint8(this.skip(1));
  uint16 = () => this.#view.getUint16(this.skip(2), true);
  int32 = () => this.#view.getInt32(this.skip(4), true);
  uint32 = () => this.#view.getUint32(this.skip(4), true);
  uint64 = () => Number(this.#view.getBigUint64(this.skip(8), true));
  float64 = () => this.#view.getFloat64(this.skip(8)); // alone, this is big-endian
  take = (length: number) => this.bytes.subarray(this.skip(length), this.at);
  text = (length: number) => decoder.decode(this.take(length));

  /** A line without its end, a character for each byte. */
  line(): string {
    const end = this.bytes.indexOf(0x0a, this.at);
    const length = (end < 0 ? this.bytes.length : end) - this.at;
    if (length > MAX_LINE_BYTES) throw this.damaged(`a line has ${length} bytes`);
    const bytes = this.take(length);
    this.skip(1);
    return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  }

  decimal(text: string): number | bigint {
    const [, digits] = /^(-?\d{1,600})L?$/.exec(text) ?? [];
    if (digits === undefined) throw this.damaged("a line is no number");
    return exact(BigInt(digits));
  }

  decimalOrBoolean(text: string): number | bigint | boolean {
    return text === "00" ? false : text === "01" ? true : this.decimal(text);
  }

  /** Two's complement, the least byte first. */
  long(length: number): number | bigint {
    if (length > MAX_INTEGER_BYTES) throw this.damaged(`a number has ${length} bytes`);
    const digits = Array.from(this.take(length), (byte) => byte.toString(16).padStart(2, "0"));
    return exact(BigInt.asIntN(8 * length, BigInt(`0x0${digits.reverse().join("")}`)));
  }

  float(text: string): number {
    if (!/^-?(inf|nan|[\d.e+-]+)$/.test(text)) throw this.damaged("a line is no number");
    return Number(text.replace("inf", "Infinity"));
  }

  /** A string of Python 2 as its source has it: bytes in quotes, some by number. */
  quoted(line: string): string {
    const [, , inner] = /^(["'])(.*)\1$/.exec(line) ?? [];
    if (inner === undefined) throw this.damaged("a string has no quotes");
    const bytes = inner.replace(
      /\\(?:x([0-9a-f]{2})|(.))/gi,
      (_, code, plain) => code ? String.fromCharCode(parseInt(code, 16)) : ESCAPED[plain] ?? plain,
    );
    return decoder.decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
  }

  unicode(line: string): string {
    return line.replace(
      /\\u([\da-fA-F]{4})|\\U(000[\da-fA-F]{5}|0010[\da-fA-F]{4})/g,
      (_, short, long) => String.fromCodePoint(parseInt(short ?? long, 16)),
    );
  }

  protocol(): void {
    const protocol = this.byte();
    if (protocol > 5) throw this.damaged(`protocol ${protocol} is not known`);
  }

  push(value: PickleValue): void {
    this.stack.push(value);
  }

  top(): PickleValue {
    if (this.stack.length > (this.marks.at(-1) ?? 0)) return this.stack.at(-1)!;
    throw this.damaged("its stack is empty");
  }

  pop(): PickleValue {
    const value = this.top();
    this.stack.pop();
    return value;
  }

  popMarked(): PickleValue[] {
    const mark = this.marks.pop();
    if (mark === undefined) throw this.damaged("its stack has no mark");
    return this.stack.splice(mark);
  }

  put(key: number | bigint): void {
    this.memo.set(key, this.top());
  }

  get(key: number | bigint): void {
    const value = this.memo.get(key);
    if (value === undefined) throw this.damaged(`it has no value ${key}`);
    this.push(value);
  }

  tuple(length: number): void {
    const items = Array.from({ length }, () => this.pop());
    this.push(Object.freeze(items.reverse()));
  }

  append(items: readonly PickleValue[]): void {
    const list = this.top();
    if (!isList(list) || Object.isFrozen(list)) throw this.damaged("it appends to what is no list");
    for (const item of items) list.push(item);
  }

  add(items: readonly PickleValue[]): void {
    const set = this.top();
    if (!(set instanceof Set)) throw this.damaged("it adds to what is no set");
    for (const item of items) set.add(item);
  }

  dict(items: readonly PickleValue[]): void {
    this.push(new Map());
    this.setItems(items);
  }

  /** Puts keys and values, one after the other, into the dict on top. */
  setItems(items: readonly PickleValue[]): void {
    const dict = this.top();
    if (!(dict instanceof Map) || items.length % 2 !== 0) {
      throw this.damaged("it sets items of what is no dict, or a key without a value");
    }
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (dict.has(key)) {
        const title = typeof key === "string" ? JSON.stringify(key.slice(0, 200)) : typeof key;
        throw this.damaged(`a dict has the key ${title} twice`);
      }
      dict.set(key, items[i + 1]);
    }
  }

  global([module, name]: readonly PickleValue[]): void {
    if (typeof module !== "string" || typeof name !== "string") {
      throw this.damaged("a class or function has no name");
    }
    const full = `${module}.${name}`;
    if (this.allows(full)) return this.push(new PickleGlobal(full));
    throw new RangeError(
      `Cannot read ${this.file}: it asks for ${
        JSON.stringify(full.slice(0, 100))
      }, and only tensors are read; save the state dict alone, or as safetensors`,
    );
  }

  make(): void {
    const [args, maker] = [this.pop(), this.pop()];
    if (!(maker instanceof PickleGlobal) || !isList(args) || !Object.isFrozen(args)) {
      throw this.damaged("it makes an object of what is no class or function and a tuple");
    }
    if (maker.name !== "collections.OrderedDict") {
      return this.push(new PickleObject(maker.name, args));
    }
    // Python 2 gives the items here, as a list of pairs; Python 3 sets them after this.
    const pairs = args[0] ?? [];
    if (!isList(pairs) || !pairs.every((pair) => isList(pair) && pair.length === 2)) {
      throw this.damaged("it makes a dict of what is no list of pairs");
    }
    this.dict(pairs.flat());
  }

  /** Attributes of dicts are dropped: PyTorch keeps the versions of modules there. */
  build(): void {
    const [state, object] = [this.pop(), this.top()];
    if (object instanceof PickleObject) object.state = state;
    else if (!(object instanceof Map)) throw this.damaged("it sets the state of what is no object");
  }

  reference(): void {
    const reference = new PickleReference(this.pop());
    this.references.push(reference);
    this.push(reference);
  }
}

/** A number where that is exact. */
function exact(value: bigint): number | bigint {
  return BigInt.asIntN(54, value) === value ? Number(value) : value;
}

function isList(value: PickleValue): value is PickleValue[] {
  return Array.isArray(value);
}

const ESCAPED: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };

/**
 * What each opcode does, by its character; `m` is the machine. STOP is not here, and those are not that only run code or
 * read what is elsewhere: INST, OBJ, NEWOBJ_EX, PERSID, EXT1 to EXT4, NEXT_BUFFER, READONLY_BUFFER.
 */
const OPCODES: ReadonlyMap<string, (m: Machine) => unknown> = new Map<
  string,
  (m: Machine) => unknown
>([
  ["\x80", (m) => m.protocol()], // PROTO
  ["\x95", (m) => m.uint64()], // FRAME: its length
  ["(", (m) => m.marks.push(m.stack.length)], // MARK
  ["0", (m) => m.pop()], // POP
  ["1", (m) => m.popMarked()], // POP_MARK
  ["2", (m) => m.push(m.top())], // DUP
  ["p", (m) => m.put(m.decimal(m.line()))], // PUT
  ["q", (m) => m.put(m.byte())], // BINPUT
  ["r", (m) => m.put(m.uint32())], // LONG_BINPUT
  ["\x94", (m) => m.put(m.memo.size)], // MEMOIZE
  ["g", (m) => m.get(m.decimal(m.line()))], // GET
  ["h", (m) => m.get(m.byte())], // BINGET
  ["j", (m) => m.get(m.uint32())], // LONG_BINGET

  ["N", (m) => m.push(null)], // NONE
  ["\x88", (m) => m.push(true)], // NEWTRUE
  ["\x89", (m) => m.push(false)], // NEWFALSE
  ["I", (m) => m.push(m.decimalOrBoolean(m.line()))], // INT
  ["J", (m) => m.push(m.int32())], // BININT
  ["K", (m) => m.push(m.byte())], // BININT1
  ["M", (m) => m.push(m.uint16())], // BININT2
  ["L", (m) => m.push(m.decimal(m.line()))], // LONG
  ["\x8a", (m) => m.push(m.long(m.byte()))], // LONG1
  ["\x8b", (m) => m.push(m.long(m.uint32()))], // LONG4
  ["F", (m) => m.push(m.float(m.line()))], // FLOAT
  ["G", (m) => m.push(m.float64())], // BINFLOAT

  ["S", (m) => m.push(m.quoted(m.line()))], // STRING
  ["T", (m) => m.push(m.text(m.uint32()))], // BINSTRING
  ["U", (m) => m.push(m.text(m.byte()))], // SHORT_BINSTRING
  ["V", (m) => m.push(m.unicode(m.line()))], // UNICODE
  ["X", (m) => m.push(m.text(m.uint32()))], // BINUNICODE
  ["\x8c", (m) => m.push(m.text(m.byte()))], // SHORT_BINUNICODE
  ["\x8d", (m) => m.push(m.text(m.uint64()))], // BINUNICODE8
  ["B", (m) => m.push(m.take(m.uint32()))], // BINBYTES
  ["C", (m) => m.push(m.take(m.byte()))], // SHORT_BINBYTES
  ["\x8e", (m) => m.push(m.take(m.uint64()))], // BINBYTES8
  ["\x96", (m) => m.push(m.take(m.uint64()))], // BYTEARRAY8

  ["]", (m) => m.push([])], // EMPTY_LIST
  ["l", (m) => m.push(m.popMarked())], // LIST
  ["a", (m) => m.append([m.pop()])], // APPEND
  ["e", (m) => m.append(m.popMarked())], // APPENDS
  [")", (m) => m.tuple(0)], // EMPTY_TUPLE
  ["t", (m) => m.push(Object.freeze(m.popMarked()))], // TUPLE
  ["\x85", (m) => m.tuple(1)], // TUPLE1
  ["\x86", (m) => m.tuple(2)], // TUPLE2
  ["\x87", (m) => m.tuple(3)], // TUPLE3
  ["}", (m) => m.dict([])], // EMPTY_DICT
  ["d", (m) => m.dict(m.popMarked())], // DICT
  ["s", (m) => m.setItems([m.pop(), m.pop()].reverse())], // SETITEM
  ["u", (m) => m.setItems(m.popMarked())], // SETITEMS
  ["\x8f", (m) => m.push(new Set())], // EMPTY_SET
  ["\x90", (m) => m.add(m.popMarked())], // ADDITEMS
  ["\x91", (m) => m.push(new Set(m.popMarked()))], // FROZENSET

  ["c", (m) => m.global([m.line(), m.line()])], // GLOBAL
  ["\x93", (m) => m.global([m.pop(), m.pop()].reverse())], // STACK_GLOBAL
  ["R", (m) => m.make()], // REDUCE
  ["\x81", (m) => m.make()], // NEWOBJ
  ["b", (m) => m.build()], // BUILD
  ["Q", (m) => m.reference()], // BINPERSID
]);
