/**
 * Models without files: with uninitialized weights, for counting, or with random weights.
 *
 * @module
 */

import type { Model, ModelDefinition } from "../../clip/model.ts";
import { declaredWeights, type Precision, storedAs, Weights } from "../../clip/weights.ts";
import { tensor } from "../../tensor/create.ts";
import { inCategory } from "../../tensor/memory.ts";
import type { Random } from "../../tensor/random.ts";
import { keep } from "../../tensor/scope.ts";
import { numel, type Shape } from "../../tensor/shape.ts";
import { type Dtype, Tensor } from "../../tensor/tensor.ts";

/** A model whose weights are allocated but not initialized. */
export function emptyModel(definition: ModelDefinition, precision: Precision = "f32"): Model {
  return modelOf(definition, precision, (_name, shape, dtype) => Tensor.empty(shape, dtype));
}

/**
 * A model with random weights, scaled so that activations stay about the same size from layer to
 * layer.
 */
export function randomModel(
  definition: ModelDefinition,
  precision: Precision,
  random: Random,
): Model {
  return modelOf(definition, precision, (name, shape, dtype) => {
    const isNormScale = /norm\d?\.weight$/.test(name);
    const deviation = shape.length < 2 ? 0.02 : 1 / Math.sqrt(numel(shape.slice(1)));
    const mean = name === "logit_scale" ? Math.log(100) : isNormScale ? 1 : 0;
    return tensor(noise(random.fork(name), numel(shape), deviation, mean), shape, dtype);
  });
}

function modelOf(
  { build }: ModelDefinition,
  precision: Precision,
  make: (name: string, shape: Shape, dtype: Dtype) => Tensor,
): Model {
  const tensors = [...declaredWeights(build)].map(([name, shape]) => {
    const made = () => keep(make(name, shape, storedAs(name, shape, precision)));
    return [name, inCategory("frozenWeights", made)] as const;
  });
  return build(new Weights(new Map(tensors)));
}

/**
 * How many numbers are drawn before they repeat. It is prime, so that the rows of a tensor do not
 * repeat one another.
 */
const DRAWN = 65_521;

/**
 * Uniformly distributed numbers with the given mean and standard deviation. Only `DRAWN` numbers
 * are drawn, and then repeated, so that a model of 150 million weights takes only a second.
 */
export function noise(
  random: Random,
  count: number,
  deviation = 1,
  mean = 0,
): Float32Array<ArrayBuffer> {
  const width = deviation * Math.sqrt(12);
  const values = new Float32Array(count);
  const drawn = values.subarray(0, DRAWN);
  for (let i = 0; i < drawn.length; i++) drawn[i] = mean + width * (random.uniform() - 0.5);
  for (let at = DRAWN; at < count; at += DRAWN) {
    values.set(drawn.subarray(0, Math.min(DRAWN, count - at)), at);
  }
  return values;
}
