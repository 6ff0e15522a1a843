/**
 * **octograd**: tensors and reverse-mode autograd on WebGPU, the CLIP encoders, and Block-LoRA
 * (arXiv 2501.16720), which adapts CLIP to a new task from a few labelled images a class.
 *
 * Nothing here touches files or the network: bytes are passed in, so that the same sources run in
 * Deno and in browsers.
 *
 * @example Gradients
 * ```ts
 * import { init, matmul, mean, square, sub, tensor, valueAndGrad } from "./mod.ts";
 *
 * await init();
 * const x = tensor([[1, 2], [3, 4], [5, 6]]);
 * const y = tensor([[1], [2], [3]]);
 * const w = tensor([[0.5], [0.5]]);
 * const { value, grads } = valueAndGrad(() => mean(square(sub(matmul(x, w), y))), [w]);
 * console.log(await value.item()); // 2.9166667461395264
 * console.log(await grads[0].data()); // Float32Array(2) [ 11.666666984558105, 14.666666030883789 ]
 * for (const t of [x, y, w, value, ...grads]) t.release();
 * ```
 *
 * @module
 */

export * from "./tensor/mod.ts";
export * from "./kernels/mod.ts";
export * from "./autograd/mod.ts";
export * from "./clip/mod.ts";
export * from "./blocklora/mod.ts";
