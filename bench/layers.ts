/**
 * Single layers with adapters, for timing.
 *
 * @module
 */

import { zeros } from "../autograd/ops/create.ts";
import { vjp } from "../autograd/tape.ts";
import type { AdapterMethod } from "../blocklora/methods/adapter_method.ts";
import type { Method, MethodConfig } from "../blocklora/methods/method.ts";
import { methodNamed, presetConfig } from "../blocklora/methods/lookup.ts";
import { Linear } from "../clip/layers.ts";
import { tensor } from "../tensor/create.ts";
import { Random } from "../tensor/random.ts";
import { keep } from "../tensor/scope.ts";
import type { Shape as Sizes } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** The method and the sizes of an adapter. */
export interface Shape {
  /** The name of its method. */
  readonly method: string;
  /** The nominal rank. */
  readonly rank: number;
  /** How many blocks it is cut into; 1 for a method that does not cut. */
  readonly blocks: number;
}

/** The method of an adapter, and its configuration, with the method's presets for the rest. */
export function configured(
  { method: name, rank, blocks }: Shape,
): { method: Method; config: MethodConfig } {
  const method = methodNamed(name);
  const values = "blocks" in method.flags ? { rank, blocks } : { rank };
  return { method, config: presetConfig(method, values) };
}

/**
 * A linear layer `[width, width]` with an adapter of random matrices; a `shape` of null means no
 * adapter.
 */
export function adapted(
  shape: Shape | null,
  width: number,
): { layer: Linear; parameters: Tensor[]; release: () => void } {
  const random = new Random(1, "adapted");
  const normal = (...sizes: number[]) => {
    const count = sizes.reduce((a, b) => a * b, 1);
    return tensor(Float32Array.from({ length: count }, () => 0.05 * random.normal()), sizes);
  };
  const layer = new Linear(normal(width, width), keep(zeros([width])));
  const [parameters, shared]: [Tensor[], Tensor[]] = [[], []];
  if (shape) {
    const { method, config } = configured(shape);
    const { kind } = method as AdapterMethod;
    const made = (shapes: Readonly<Record<string, Sizes>> = {}) =>
      Object.fromEntries(Object.entries(shapes).map(([name, sizes]) => [name, normal(...sizes)]));
    const layerSizes = [width, width];
    const tensors = made(kind.tensors(config as never, layerSizes));
    const frozen = made(kind.frozen?.(config as never, [layerSizes]));
    const context = { config: config as never, linear: layer, stream: 1, frozen };
    layer.adapter = kind.make(tensors, context);
    parameters.push(...Object.values(tensors));
    shared.push(...Object.values(frozen));
  }
  const release = () => {
    for (const made of [layer.weight, layer.bias!, ...parameters, ...shared]) made.release();
  };
  return { layer, parameters, release };
}

/**
 * One training pass through a layer: forward, then the gradients of its input and its adapter. `g`
 * is the gradient of its output. Returns the gradient of the input.
 */
export function trainLayer(
  { layer, parameters }: Pick<ReturnType<typeof adapted>, "layer" | "parameters">,
  x: Tensor,
  g: Tensor,
): Tensor {
  const pass = parameters.length > 0 ? { seed: 1 } : undefined;
  const { backward } = vjp(() => layer.forward(x, pass), [x, ...parameters]);
  return backward(g)[0];
}
