/**
 * The stack machine that a pickle is a program for.
 *
 * @module
 */

import {
  PickleGlobal,
  PickleObject,
  PickleReference,
  type PickleValue,
  TruncatedPickleError,
} from "./pickle_value.ts";

const MAX_INTEGER_BYTES = 255;
const MAX_LINE_BYTES = 2 ** 20;
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * The state that opcodes work on: the bytes; a stack, with marks where lists begin; and a memo of
 * numbered values.
 */
export class PickleMachine {
  /** All references that were pushed. */
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

  /** Moves past the next `length` bytes, and gives the index of the first of them. */
  skip(length: number): number {
    const start = this.at;
    if (length > this.bytes.length - start) {
      throw new TruncatedPickleError(
        `Cannot read ${this.file}: it is truncated, ` +
          `its pickle needs ${length} bytes from ${start} on`,
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
  float64 = () => this.#view.getFloat64(this.skip(8)); // the only big-endian number
  take = (length: number) => this.bytes.subarray(this.skip(length), this.at);
  text = (length: number) => decoder.decode(this.take(length));

  /** The next line without its end, one character for each byte. */
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

  /** An integer of `length` bytes in two's complement, the least byte first. */
  long(length: number): number | bigint {
    if (length > MAX_INTEGER_BYTES) throw this.damaged(`a number has ${length} bytes`);
    const digits = Array.from(this.take(length), (byte) => byte.toString(16).padStart(2, "0"));
    return exact(BigInt.asIntN(8 * length, BigInt(`0x0${digits.reverse().join("")}`)));
  }

  float(text: string): number {
    if (!/^-?(inf|nan|[\d.e+-]+)$/.test(text)) throw this.damaged("a line is no number");
    return Number(text.replace("inf", "Infinity"));
  }

  /** A string as Python 2 writes it in source code: bytes in quotes, some of them escaped. */
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
    // Python 2 gives the items here, as a list of pairs; Python 3 sets them later.
    const pairs = args[0] ?? [];
    if (!isList(pairs) || !pairs.every((pair) => isList(pair) && pair.length === 2)) {
      throw this.damaged("it makes a dict of what is no list of pairs");
    }
    this.dict(pairs.flat());
  }

  /**
   * Sets the state of an object. That of a dict is dropped: PyTorch keeps module versions there.
   */
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

/** A number if it holds the value exactly, else a bigint. */
function exact(value: bigint): number | bigint {
  return BigInt.asIntN(54, value) === value ? Number(value) : value;
}

function isList(value: PickleValue): value is PickleValue[] {
  return Array.isArray(value);
}

const ESCAPED: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };
