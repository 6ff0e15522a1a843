/**
 * A model's weights, by the names that checkpoints give them. A tower states the name and the shape
 * of each where it reads it, and nowhere else.
 *
 * @module
 */

import { onDryEngine } from "../tensor/device.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import { type Dtype, Tensor } from "../tensor/tensor.ts";

/** Where a tower takes its weights from. */
export interface WeightSource {
  /** The weight of a name and a shape. */
  get(name: string, shape: Shape): Tensor;
  /** The source of the weights whose names begin with `name` and a dot. */
  at(name: string): WeightSource;
}

/** What is known of weights that were read from files. */
export interface WeightsOrigin {
  /**
   * Tells them from all other weights: SHA-256 of every weight, its name, shape and values in f32.
   */
  readonly sha256: string | null;
  /** How the files have the matrices: `F32`, `F16` and so on. */
  readonly dtype: string;
}

/** The tensors of a model, by the checkpoint's names. They belong to whoever holds this. */
export class Weights implements WeightSource {
  readonly #tensors: Map<string, Tensor>;
  /** What is known of the files; null of weights that are from none. */
  readonly origin: WeightsOrigin | null;

  /** Takes the tensors over. */
  constructor(tensors: Map<string, Tensor>, origin: WeightsOrigin | null = null) {
    this.#tensors = tensors;
    this.origin = origin;
  }

  /** The names, in the checkpoint's order. */
  get names(): readonly string[] {
    return [...this.#tensors.keys()];
  }

  /**
   * One tensor.
   *
   * @throws {RangeError} If there is none of that name, or it is not of `shape`, where that is
   * given.
   */
  get(name: string, shape?: Shape): Tensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) {
      throw new RangeError(`Cannot find weight "${name}": the model has none of that name`);
    }
    if (shape && !sameShape(tensor.shape, shape)) {
      throw new RangeError(`Cannot use "${name}": it is [${tensor.shape}], [${shape}] is needed`);
    }
    return tensor;
  }

  /** The weights whose names begin with `name` and a dot. */
  at(name: string): WeightSource {
    return below(this, name);
  }

  /** Gives all tensors back. */
  release(): void {
    for (const tensor of this.#tensors.values()) tensor.release();
    this.#tensors.clear();
  }
}

function below(source: WeightSource, name: string): WeightSource {
  return {
    get: (inner, shape) => source.get(`${name}.${inner}`, shape),
    at: (inner) => below(source, `${name}.${inner}`),
  };
}

/** Weights that nobody has: they write down what a model asks for. */
class DeclaredWeights extends Weights {
  readonly shapes = new Map<string, Shape>();

  constructor() {
    super(new Map());
  }

  override get(name: string, shape: Shape): Tensor {
    this.shapes.set(name, shape);
    return Tensor.empty(shape);
  }
}

/** The name and shape of every weight that `make` asks for, in its order. */
export function declaredWeights(make: (weights: Weights) => unknown): Map<string, Shape> {
  const declared = new DeclaredWeights();
  // On a device that has nothing: no weight is too large for it, and none takes memory.
  onDryEngine({}, () => void make(declared));
  return declared.shapes;
}

/**
 * How the matrices among a model's weights are stored: in f32, or in half the memory, rounded to
 * the nearest half.
 */
export type Precision = "f32" | "f16";
/**
 * A precision; or that of the checkpoint, in which nothing is rounded: f16 for matrices that it has
 * as F16, else f32.
 */
export type PrecisionChoice = Precision | "auto";

/** How a weight is stored: vectors and tables of positions, which are small, always in f32. */
export function storedAs(name: string, shape: Shape, precision: Precision): Dtype {
  const isMatrix = shape.length > 1 && !name.endsWith("position_embedding.weight");
  return isMatrix ? precision : "f32";
}
