/**
 * A model's weights, by the names that checkpoints give them. A tower states the name and shape of
 * each weight where it reads it, and nowhere else.
 *
 * @module
 */

import { onDryEngine } from "../tensor/device.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import { type Dtype, Tensor } from "../tensor/tensor.ts";

/** Where a tower takes its weights from. */
export interface WeightSource {
  /** The weight with this name and shape. */
  get(name: string, shape: Shape): Tensor;
  /** A source for the weights whose names begin with `name` and a dot. */
  at(name: string): WeightSource;
}

/** What is known about weights that were read from files. */
export interface WeightsOrigin {
  /**
   * Identifies the weights: a SHA-256 over the name, shape and f32 values of each. It is null where
   * `crypto.subtle` is missing.
   */
  readonly sha256: string | null;
  /** How the files store the matrices: `F32`, `F16` and so on. */
  readonly dtype: string;
}

/**
 * The tensors of a model, by the names in its checkpoint. Whoever holds this object must release
 * it.
 */
export class Weights implements WeightSource {
  readonly #tensors: Map<string, Tensor>;
  /** What is known about the files, or null if the weights come from none. */
  readonly origin: WeightsOrigin | null;

  /** Takes the tensors, which {@linkcode release} then releases. */
  constructor(tensors: Map<string, Tensor>, origin: WeightsOrigin | null = null) {
    this.#tensors = tensors;
    this.origin = origin;
  }

  /** The names, in the order in which the constructor got the tensors. */
  get names(): readonly string[] {
    return [...this.#tensors.keys()];
  }

  /**
   * The tensor with this name.
   *
   * @throws {RangeError} If there is none, or if `shape` is given and the tensor has another.
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

  /** Releases all tensors. */
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

/** Weights without values, which record what a model asks for. */
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

/** The name and shape of every weight that `make` asks for, in the order in which it does. */
export function declaredWeights(make: (weights: Weights) => unknown): Map<string, Shape> {
  const declared = new DeclaredWeights();
  // A dry engine has no device: no weight is too large for it, and none takes memory.
  onDryEngine({}, () => void make(declared));
  return declared.shapes;
}

/**
 * How the matrices among a model's weights are stored: in f32, or rounded to the nearest f16, which
 * takes half the memory.
 */
export type Precision = "f32" | "f16";
/**
 * A precision, or that of the checkpoint with `"auto"`, which rounds nothing: the matrices that it
 * stores as F16 are f16, the rest f32.
 */
export type PrecisionChoice = Precision | "auto";

/** How a weight is stored. Vectors and position tables are small, and always in f32. */
export function storedAs(name: string, shape: Shape, precision: Precision): Dtype {
  const isMatrix = shape.length > 1 && !name.endsWith("position_embedding.weight");
  return isMatrix ? precision : "f32";
}
