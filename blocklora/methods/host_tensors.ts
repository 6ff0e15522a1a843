/**
 * Tensors on the host, as files store them.
 *
 * @module
 */

import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** A tensor on the host. */
export interface HostTensor {
  /** Its shape. */
  readonly shape: Shape;
  /** Its elements. */
  readonly data: Float32Array<ArrayBuffer>;
}

/** Tensors on the host, by name. */
export type HostTensors = Readonly<Record<string, HostTensor>>;

/** Reads tensors back. All at once, so that all wait for the GPU together. */
export async function onHost(tensors: Readonly<Record<string, Tensor>>): Promise<HostTensors> {
  const entries = Object.entries(tensors).map(async ([name, tensor]) => {
    const data = await tensor.data() as Float32Array<ArrayBuffer>;
    return [name, { shape: tensor.shape, data }] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}
