/**
 * What an adapter adds to the time of a training step of ViT-B/16 and ViT-L/14: forward and
 * backward of one projection, and of one transformer block with adapters on q, k and v. LoRA in
 * thin products is the baseline of each group. The batch is 32 images on a GPU, and one on a
 * software GPU.
 *
 * @module
 */

import { vjp } from "../autograd/tape.ts";
import { ARCHITECTURES, type VisionConfig } from "../clip/config.ts";
import { ResidualBlock } from "../clip/layers.ts";
import { weightShapes } from "../clip/clip.ts";
import { Weights } from "../clip/weights.ts";
import { tensor } from "../tensor/create.ts";
import { init, isSoftware } from "../tensor/device.ts";
import { Random } from "../tensor/random.ts";
import { keep, scope } from "../tensor/scope.ts";
import { numel } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { adapted, type Shape, trainLayer } from "./layers.ts";

await init();
const IMAGES = isSoftware() ? 1 : 32;

/** The adapters to time, the baseline first. */
const SHAPES: readonly Shape[] = [
  { method: "lora", rank: 8, blocks: 1 },
  { method: "lora-dense", rank: 8, blocks: 1 },
  { method: "block-lora", rank: 8, blocks: 2 },
  { method: "block-lora", rank: 8, blocks: 4 },
  { method: "block-lora", rank: 16, blocks: 8 },
  { method: "block-lora-collapsed", rank: 8, blocks: 4 },
];
const nameOf = ({ method, rank, blocks }: Shape) => `${method} (${rank},${blocks})`;

const random = new Random(1, "adapters bench");
const normal = (shape: readonly number[], deviation = 1): Tensor =>
  keep(tensor(
    Float32Array.from({ length: numel(shape) }, () => deviation * random.normal()),
    shape,
  ));

/** Runs `body` and waits for the tensor that it returns. */
async function waited(body: () => Tensor): Promise<void> {
  const made = scope(body);
  await made.data();
  made.release();
}

for (const model of ["vit-b-16", "vit-l-14"]) {
  const config = ARCHITECTURES[model].vision;
  const { width, imageSize, patchSize } = config;
  const tokens = 1 + (imageSize / patchSize) ** 2;
  const [rows, g] = [normal([IMAGES * tokens, width]), normal([IMAGES * tokens, width])];
  const group = `${model}: a projection, ${IMAGES} × ${tokens} tokens of width ${width}`;
  for (const [i, shape] of SHAPES.entries()) {
    const made = adapted(shape, width);
    const run = () => waited(() => trainLayer(made, rows, g));
    await run(); // compiles
    Deno.bench({ name: nameOf(shape), group, baseline: i === 0, n: 10 }, run);
  }

  const x = normal([IMAGES, tokens, width]);
  const gradient = normal([IMAGES, tokens, width]);
  const blockGroup =
    `${model}: a transformer block, ${IMAGES} × ${tokens} tokens of width ${width}`;
  for (const [i, shape] of SHAPES.entries()) {
    const { block, parameters } = blockOf(config, shape);
    const run = () =>
      waited(() => {
        const { backward } = vjp(() => block.forward(x, { seed: 1 }), [x, ...parameters]);
        return backward(gradient)[0];
      });
    await run();
    Deno.bench({ name: nameOf(shape), group: blockGroup, baseline: i === 0, n: 5 }, run);
  }
}

/** A transformer block of random weights, with adapters on q, k and v. */
function blockOf(
  config: VisionConfig,
  shape: Shape,
): { block: ResidualBlock; parameters: Tensor[] } {
  const one = { ...ARCHITECTURES["vit-b-16"], vision: { ...config, layers: 1 } };
  const prefix = "vision_model.encoder.layers.0";
  const tensors = [...weightShapes(one)].filter(([name]) => name.startsWith(`${prefix}.`))
    .map(([name, size]) => [name, normal(size, 0.02)] as const);
  const block = new ResidualBlock(new Weights(new Map(tensors)).at(prefix), config, false);
  const parameters = (["q", "k", "v"] as const).flatMap((name) => {
    const made = adapted(shape, config.width);
    block.projections[name].adapter = made.layer.adapter;
    return made.parameters;
  });
  return { block, parameters };
}
