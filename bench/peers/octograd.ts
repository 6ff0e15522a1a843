/**
 * The compared programs in octograd.
 *
 * @module
 */

import {
  Adam,
  attention,
  crossEntropy,
  init,
  keep,
  layerNorm,
  linear,
  matmul,
  quickGelu,
  relu,
  scope,
  softmax,
  type Tensor,
  tensor,
  transpose,
  valueAndGrad,
  vjp,
} from "../../mod.ts";
import { adapterName } from "../../tensor/device.ts";
import { PROJECTIONS, ResidualBlock } from "../../clip/layers.ts";
import { Weights } from "../../clip/weights.ts";
import config from "../../deno.json" with { type: "json" };
import { BLOCK_WEIGHTS, type Case } from "./cases.ts";
import type { Engine } from "./engine.ts";
import { labelOf, RATE } from "./reference.ts";

type Tensors = Readonly<Record<string, Tensor>>;

/** A block over weights named as in `BLOCK_WEIGHTS`. */
function blockOf(t: Tensors, heads: number): ResidualBlock {
  const parts = { norm1: "layer_norm1", norm2: "layer_norm2", ...PROJECTIONS };
  const weights = Object.entries(parts).flatMap(([short, part]) => [
    [`b.${part}.weight`, t[short]] as const,
    [`b.${part}.bias`, t[`${short}Bias`]] as const,
  ]);
  const tower = { width: t.x.shape[2], layers: 1, heads, mlpWidth: t.fc1.shape[0] };
  return new ResidualBlock(
    new Weights(new Map(weights)),
    "b",
    { ...tower, layerNormEps: 1e-5, activation: "quick_gelu" },
    false,
  );
}

function programOf({ program }: Case, t: Tensors): () => Tensor[] {
  switch (program.op) {
    case "matmul": {
      const { transpose: which } = program;
      return () => [
        matmul(which === "a" ? transpose(t.a) : t.a, which === "b" ? transpose(t.b) : t.b),
      ];
    }
    case "softmax":
      return () => [softmax(t.x)];
    case "layer_norm":
      return () => [layerNorm(t.x, t.weight, t.bias)];
    case "quick_gelu":
      return () => [quickGelu(t.x)];
    case "attention":
      return () => [attention(t.q, t.k, t.v, { causal: program.causal })];
    case "block": {
      const block = blockOf(t, program.heads);
      return () => [block.forward(t.x)];
    }
    case "block_gradients": {
      const block = blockOf(t, program.heads);
      const weights = BLOCK_WEIGHTS.map((name) => t[name]);
      return () => vjp(() => block.forward(t.x), weights).backward(t.flow);
    }
    case "mlp_step": {
      const parameters = [t.w1, t.b1, t.w2, t.b2];
      const adam = new Adam(parameters, { learningRate: RATE });
      const loss = () => crossEntropy(linear(relu(linear(t.x, t.w1, t.b1)), t.w2, t.b2), t.labels);
      return () => {
        const { value, grads } = valueAndGrad(loss, parameters);
        adam.step(grads);
        return [value];
      };
    }
  }
}

/** This engine. */
export const engine: Engine = {
  title: `octograd ${config.version}`,
  async start() {
    await init();
    return adapterName();
  },
  prepare(of, inputs) {
    const tensors: Record<string, Tensor> = Object.fromEntries(
      Object.entries(of.shapes).map(([name, shape]) => [name, keep(tensor(inputs[name], shape))]),
    );
    if (of.program.op === "mlp_step") {
      tensors.labels = keep(tensor(Uint32Array.from(inputs.y, labelOf), [128]));
    }
    const program = programOf(of, tensors);
    return {
      run: () => scope(program),
      read: (result: Tensor[]) =>
        Promise.all(result.map(async (y) => await y.data() as Float32Array)),
      wait: (results: Tensor[][]) => results.at(-1)!.at(-1)!.data(),
      free: (result: Tensor[]) => result.forEach((y) => y.release()),
    };
  },
};
