/**
 * Python's pickles, protocols 0 to 5, read as plain data (CPython, Lib/pickletools.py). Classes and
 * functions stay names: nothing is imported, called or run, whatever a pickle asks for.
 *
 * @module
 */

import { PickleMachine } from "./pickle_machine.ts";
import type { PickleReference, PickleValue } from "./pickle_value.ts";

/** A pickle that has been read. */
export interface Pickle {
  /** The object that the pickle holds. */
  readonly value: PickleValue;
  /** All references in it to data outside the pickle. */
  readonly references: readonly PickleReference[];
  /** Index of the first byte after it. */
  readonly end: number;
}

/** What {@linkcode unpickle} needs to know besides the bytes. */
export interface UnpickleOptions {
  /** What errors call the file. */
  readonly file: string;
  /** Whether a pickle may name a class or function, such as `"collections.OrderedDict"`. */
  readonly allows: (name: string) => boolean;
  /** Index of the pickle's first byte; 0 by default. */
  readonly start?: number;
}

/**
 * The pickle that begins at byte `start`. Dicts and `OrderedDict`s become Maps; any other object
 * that the pickle would make becomes a {@linkcode PickleObject}.
 *
 * @throws {TruncatedPickleError} If the bytes end before the pickle does.
 * @throws {RangeError} If it is damaged or too long, has opcodes that only run code, or names a
 * class or function that is not allowed.
 */
export function unpickle(
  bytes: Uint8Array<ArrayBuffer>,
  { file, allows, start = 0 }: UnpickleOptions,
): Pickle {
  const machine = new PickleMachine(bytes, start, file, allows);
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

/** The most opcodes of a pickle. The state dict of a large model has some 100,000. */
const MAX_STEPS = 2 ** 21;

type Step = (m: PickleMachine) => unknown;

/**
 * What each opcode does, by its character; `m` is the machine. STOP is not here. Nor are the
 * opcodes that only run code or read data from elsewhere: INST, OBJ, NEWOBJ_EX, PERSID, EXT1 to
 * EXT4, NEXT_BUFFER, READONLY_BUFFER.
 */
const OPCODES: ReadonlyMap<string, Step> = new Map<string, Step>([
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
