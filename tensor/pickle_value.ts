/**
 * What a pickle of Python may hold, as plain data.
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
