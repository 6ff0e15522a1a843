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
import { fileURLToPath } from "node:url";
import { DEFAULT_ADAPTER } from "../../blocklora/methods/adapter_config.ts";
import { attach } from "../../blocklora/methods/lookup.ts";
import { classPrompts } from "../../blocklora/training/classifier.ts";
import { EMBEDDED_MODEL, openModel } from "../../blocklora/models/open_model.ts";
import { DEFAULT_RECIPE } from "../../blocklora/methods/recipe.ts";
import { Trainer } from "../../blocklora/training/trainer.ts";
import { PROJECTIONS, ResidualBlock } from "../../clip/layers.ts";
import { VisionTower } from "../../clip/vision.ts";
import { Weights } from "../../clip/weights.ts";
import config from "../../deno.json" with { type: "json" };
import { gpuName } from "../../tensor/device.ts";
import { arraysOf, BLOCK_WEIGHTS, type Case, type Inputs } from "./cases.ts";
import type { Engine } from "./engine.ts";
import { labelOf, RATE } from "./reference.ts";

type Tensors = Readonly<Record<string, Tensor>>;

/** What checkpoints call the modules of a block. */
const MODULES = { norm1: "layer_norm1", norm2: "layer_norm2", ...PROJECTIONS };

/** A block whose weights are named as in {@linkcode BLOCK_WEIGHTS}. */
function blockOf(t: Tensors, heads: number): ResidualBlock {
  const weights = Object.entries(MODULES).flatMap(([short, name]) => [
    [`b.${name}.weight`, t[short]] as const,
    [`b.${name}.bias`, t[`${short}Bias`]] as const,
  ]);
  const tower = { width: t.x.shape[2], layers: 1, heads, mlpWidth: t.fc1.shape[0] };
  return new ResidualBlock(
    new Weights(new Map(weights)).at("b"),
    { ...tower, layerNormEps: 1e-5, activation: "quick_gelu" },
    false,
  );
}

/** An image tower whose layers have weights `q0`, `q1` and so on. */
function towerOf(t: Tensors, heads: number, layers: number): VisionTower {
  const named = new Map<string, Tensor>([
    ["vision_model.embeddings.patch_embedding.weight", t.patch],
    ["vision_model.embeddings.class_embedding", t.token],
    ["vision_model.embeddings.position_embedding.weight", t.positions],
    ["vision_model.pre_layrnorm.weight", t.preNorm],
    ["vision_model.pre_layrnorm.bias", t.preNormBias],
    ["vision_model.post_layernorm.weight", t.postNorm],
    ["vision_model.post_layernorm.bias", t.postNormBias],
    ["visual_projection.weight", t.projection],
  ]);
  for (let layer = 0; layer < layers; layer++) {
    for (const [short, name] of Object.entries(MODULES)) {
      named.set(`vision_model.encoder.layers.${layer}.${name}.weight`, t[`${short}${layer}`]);
      named.set(`vision_model.encoder.layers.${layer}.${name}.bias`, t[`${short}Bias${layer}`]);
    }
  }
  const [width, , patchSize] = t.patch.shape;
  return new VisionTower(new Weights(named), {
    ...{ width, layers, heads, mlpWidth: t.fc1.shape[0], activation: "quick_gelu" },
    ...{ layerNormEps: 1e-5, imageSize: t.x.shape[2], patchSize },
  }, t.projection.shape[0]);
}

/** A training step of adapters of the embedded model, ready to be taken any number of times. */
async function trainStep(inputs: Inputs): Promise<() => Tensor[]> {
  const { model, tokenizer } = await openModel(fileURLToPath(EMBEDDED_MODEL));
  const names = Array.from({ length: 10 }, (_, i) => `thing number ${i}`);
  const prompts = classPrompts(model, tokenizer, names, "a photo of a {}.");
  const trainer = new Trainer(model, attach(model, DEFAULT_ADAPTER, 1), prompts, DEFAULT_RECIPE);
  const labels = Int32Array.from({ length: 32 }, (_, i) => i % 10);
  return () => [trainer.step({ pixels: inputs.x, labels })];
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
      return () => vjp(() => block.forward(t.x), weights).backward(t.g);
    }
    case "tower": {
      const tower = towerOf(t, program.heads, program.layers);
      return () => [tower.forward(t.x)];
    }
    case "train_step":
      throw new RangeError("Not a program of tensors");
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
    return gpuName();
  },
  async prepare(of, inputs) {
    const tensors = arraysOf(of, inputs, (values, shape) => keep(tensor(values, shape)));
    if (of.program.op === "mlp_step") {
      tensors.labels = keep(tensor(Uint32Array.from(inputs.y, labelOf), [128]));
    }
    const program = of.program.op === "train_step"
      ? await trainStep(inputs)
      : programOf(of, tensors);
    return {
      run: () => scope(program),
      read: (result: Tensor[]) =>
        Promise.all(result.map(async (y) => await y.data() as Float32Array)),
      wait: (results: Tensor[][]) => results.at(-1)!.at(-1)!.data(),
      free: (result: Tensor[]) => result.forEach((y) => y.release()),
    };
  },
};
