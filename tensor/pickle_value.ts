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

/** An object that a class or function would make out of arguments. Only the call is noted. */
export class PickleObject {
  /** What the object's attributes would be set from. */
  state: PickleValue = null;

  /** Takes the name of the class or function, and the arguments. */
  constructor(readonly maker: string, readonly args: readonly PickleValue[]) {}
}

/** A reference to data outside the pickle, such as a tensor's bytes. */
export class PickleReference {
  /** Takes the value that says where the data is. */
  constructor(readonly id: PickleValue) {}
}

/** The bytes end before the pickle does. */
export class TruncatedPickleError extends RangeError {}
