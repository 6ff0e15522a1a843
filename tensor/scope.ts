/**
 * Who releases what: a scope owns the tensors made in it.
 *
 * @module
 */

import { currentEngine } from "./engine.ts";
import type { Tensor } from "./tensor.ts";

/** Gives a tensor to the innermost open scope of its engine, if there is one. */
export function adopt(tensor: Tensor): Tensor {
  tensor.engine.scopes.at(-1)?.add(tensor);
  return tensor;
}

/** Takes a tensor out of every open scope: the caller owns it and must call its `release()`. */
export function keep(tensor: Tensor): Tensor {
  for (const made of tensor.engine.scopes) made.delete(tensor);
  return tensor;
}

/**
 * Runs `body` and releases every tensor made in it, except those it returns (alone, or in arrays
 * and plain objects).
 *
 * @throws {TypeError} If `body` returns a promise: what it makes later would belong to nobody.
 */
export function scope<T>(body: () => T): T {
  const { scopes } = currentEngine();
  const made = new Set<Tensor>();
  scopes.push(made);
  let result: T | undefined;
  try {
    result = body();
    if (result instanceof Promise) {
      throw new TypeError("Cannot close a scope() around a promise: await outside it");
    }
    return result;
  } finally {
    scopes.pop();
    for (const tensor of tensorsIn(result)) {
      if (made.delete(tensor)) adopt(tensor);
    }
    for (const tensor of made) tensor.drop();
  }
}

function* tensorsIn(value: unknown): Generator<Tensor> {
  if (typeof value !== "object" || value === null) return;
  if ("strides" in value && "drop" in value) yield value as Tensor;
  else if (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype) {
    for (const inner of Object.values(value)) yield* tensorsIn(inner);
  }
}
