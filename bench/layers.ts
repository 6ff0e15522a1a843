/**
 * Single layers with adapters, to be timed.
 *
 * @module
 */

import { zeros } from "../autograd/ops/create.ts";
import { vjp } from "../autograd/tape.ts";
import { BlockLora } from "../blocklora/methods/block_lora.ts";
import { Lora } from "../blocklora/methods/lora.ts";
import { DenseLora } from "../blocklora/methods/lora_dense.ts";
import type { AdapterConfig } from "../blocklora/methods/adapter_config.ts";
import { Linear } from "../clip/layers.ts";
import { tensor } from "../tensor/create.ts";
import { Random } from "../tensor/random.ts";
import { keep } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** One adapter. */
export type Shape = Pick<AdapterConfig, "method" | "rank" | "blocks">;

const KINDS = {
  "block-lora": BlockLora,
  "block-lora-collapsed": Lora,
  "lora": Lora,
  "lora-dense": DenseLora,
} as const;

/** A linear layer `[width, width]` with an adapter of random matrices, or none. */
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
  const parameters: Tensor[] = [];
  if (shape) {
    const inner = shape.rank / shape.blocks;
    const arms = shape.method === "block-lora" ? shape.blocks : 1;
    const ups = Array.from({ length: arms }, () => normal(width, inner));
    const options = { scale: 0.5, dropout: 0.25, stream: 1 };
    const adapter = new KINDS[shape.method](normal(inner, width), ups, options);
    parameters.push(...adapter.parameters);
    layer.adapter = adapter;
  }
  const release = () => {
    for (const made of [layer.weight, layer.bias!, ...parameters]) made.release();
  };
  return { layer, parameters, release };
}

/** One pass of training through a layer: forward, and the gradients of its adapter and its input, which it gives. */
export function trainLayer(
  { layer, parameters }: Pick<ReturnType<typeof adapted>, "layer" | "parameters">,
  x: Tensor,
  g: Tensor,
): Tensor {
  const pass = parameters.length > 0 ? { seed: 1 } : undefined;
  const { backward } = vjp(() => layer.forward(x, pass), [x, ...parameters]);
  return backward(g)[0];
}
