/**
 * Which layers of a CLIP get adapters, and the list of what trains.
 *
 * @module
 */

import { zeros } from "../../autograd/ops/create.ts";
import { add } from "../../autograd/ops/pointwise.ts";
import type { Clip } from "../../clip/clip.ts";
import { type Linear, type Projection, PROJECTIONS } from "../../clip/layers.ts";
import { tensor } from "../../tensor/create.ts";
import { Random } from "../../tensor/random.ts";
import { attribute } from "../../tensor/measure.ts";
import { owned } from "../../tensor/memory.ts";
import { keep, scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { BlockLora, DenseLora, Lora, type LowRank } from "./adapter.ts";

/**
 * The kinds of adapter: Block-LoRA; Block-LoRA whose blocks, equal at every step, are kept as the one sum that they
 * make; LoRA in two thin products; LoRA with the dense product that CLIP-LoRA's code makes.
 */
export const METHODS = ["block-lora", "block-lora-collapsed", "lora", "lora-dense"] as const;
/** The layers that can be adapted, by name: those of each block, and what makes a tower's features. */
export const ADAPTABLE = [...Object.keys(PROJECTIONS) as Projection[], "proj"] as const;
/** A layer that can be adapted: `q`, `k`, `v`, `o`, `fc1` or `fc2` of the blocks, or a tower's `proj`. */
export type Adaptable = typeof ADAPTABLE[number];
/** The towers that can be adapted. */
export const ENCODERS = ["both", "vision", "text"] as const;

/** What to adapt, and how. */
export interface AdapterConfig {
  /** The kind of adapter. */
  readonly method: typeof METHODS[number];
  /** The nominal rank r. */
  readonly rank: number;
  /** Block-LoRA's n, which divides the rank; 1 for the two kinds of LoRA. */
  readonly blocks: number;
  /** The numerator of the scale. */
  readonly alpha: number;
  /** Whether the scale is `alpha / √r`, as in CLIP-LoRA (PEFT: `use_rslora`), or `alpha / r`, as in LoRA's paper. */
  readonly scaling: "sqrt" | "linear";
  /** Probability of dropping an element of an adapter's input. */
  readonly dropout: number;
  /** The projections to adapt. */
  readonly projections: readonly Adaptable[];
  /** The towers to adapt. */
  readonly encoder: typeof ENCODERS[number];
  /** The blocks to adapt: a name that {@linkcode layersAt} knows, or their numbers. */
  readonly position: string | readonly number[];
}

/** CLIP-LoRA's choices, with Block-LoRA as the method (`run_utils.py` of github.com/MaxZanella/CLIP-LoRA). */
export const DEFAULT_ADAPTER: AdapterConfig = {
  method: "block-lora",
  rank: 8,
  blocks: 4,
  alpha: 1,
  scaling: "sqrt",
  dropout: 0.25,
  projections: ["q", "k", "v"],
  encoder: "both",
  position: "all",
};

/** The factor of an adapter's change. */
export function scaleOf({ alpha, rank, scaling }: AdapterConfig): number {
  return alpha / (scaling === "sqrt" ? Math.sqrt(rank) : rank);
}

/**
 * The layers that a position names, of a tower of `layers` blocks: `all`; `bottom`, `mid` and `up`, its thirds;
 * `half-bottom` and `half-up`, its halves; `topN`, the last N; or a list of their numbers.
 *
 * @throws {RangeError} If the position is unknown, or a number is no layer.
 */
export function layersAt(position: string | readonly number[], layers: number): number[] {
  const all = Array.from({ length: layers }, (_, layer) => layer);
  if (typeof position !== "string") {
    const stray = position.find((layer) => !all.includes(layer));
    if (stray === undefined && position.length > 0) {
      return [...new Set(position)].sort((a, b) => a - b);
    }
    throw new RangeError(
      `Cannot adapt layer ${stray ?? "(none given)"}: the tower's layers are 0 to ${layers - 1}`,
    );
  }
  const [third, twoThirds, half] = [layers / 3, layers * 2 / 3, layers / 2].map(Math.floor);
  const top = /^top(\d+)$/.exec(position);
  if (top) {
    const count = Number(top[1]);
    if (count >= 1 && count <= layers) return all.slice(-count);
    throw new RangeError(`Cannot adapt the top ${count} layers: the tower has ${layers}`);
  }
  const ranges: Record<string, [number, number]> = {
    "all": [0, layers],
    "bottom": [0, third],
    "mid": [third, twoThirds],
    "up": [twoThirds, layers],
    "half-bottom": [0, half],
    "half-up": [half, layers],
  };
  if (!Object.hasOwn(ranges, position)) {
    throw new RangeError(
      `Cannot adapt position "${position}": it must be ${
        Object.keys(ranges).join(", ")
      }, topN, or layer numbers`,
    );
  }
  const chosen = all.slice(...ranges[position]);
  if (chosen.length === 0) {
    throw new RangeError(`Cannot adapt position "${position}": the tower has ${layers} layers`);
  }
  return chosen;
}

/** A linear layer that can be adapted, by the name that checkpoints give it. */
export interface Site {
  /** For example `vision_model.encoder.layers.0.self_attn.q_proj`. */
  readonly module: string;
  /** The layer. */
  readonly linear: Linear;
}

/** What checkpoints call the layer that makes a tower's features. */
export const FEATURE_PROJECTIONS = {
  vision: "visual_projection",
  text: "text_projection",
} as const;

/** Every linear layer of both towers. */
export function sites(clip: Clip): Site[] {
  return (["text", "vision"] as const).flatMap((tower) => [
    ...clip[tower].blocks.flatMap((block, layer) =>
      (Object.keys(PROJECTIONS) as Projection[]).map((name) => ({
        module: moduleOf(tower, layer, name),
        linear: block.projections[name],
      }))
    ),
    { module: FEATURE_PROJECTIONS[tower], linear: clip[tower].projection },
  ]);
}

function moduleOf(tower: "vision" | "text", layer: number, name: Projection): string {
  return `${tower}_model.encoder.layers.${layer}.${PROJECTIONS[name]}`;
}

/** The tower that a layer of this name is in. */
export function towerOf(module: string): "vision" | "text" {
  return /^(vision_model\.|visual_projection$)/.test(module) ? "vision" : "text";
}

/** The sites that a configuration chooses. */
export function chosenSites(clip: Clip, { projections, encoder, position }: AdapterConfig): Site[] {
  const unknown = projections.find((name) => !ADAPTABLE.includes(name));
  if (unknown !== undefined || projections.length === 0) {
    throw new RangeError(
      `Cannot adapt projection "${unknown ?? ""}": choose from ${ADAPTABLE.join(", ")}`,
    );
  }
  const towers = encoder === "both" ? ["text", "vision"] as const : [encoder];
  const inBlocks = projections.filter((name) => name !== "proj");
  const wanted = new Set<string>(
    towers.flatMap((tower) => [
      ...layersAt(position, clip[tower].blocks.length).flatMap((layer) =>
        inBlocks.map((name) => moduleOf(tower, layer, name))
      ),
      ...(projections.includes("proj") ? [FEATURE_PROJECTIONS[tower]] : []),
    ]),
  );
  return sites(clip).filter(({ module }) => wanted.has(module));
}

/** The adapters of a model. They own their matrices, and sit in the model until released. */
export class Adapters {
  /** What was adapted, and how. */
  readonly config: AdapterConfig;
  /** The adapters, by the name of the layer that each sits in. */
  readonly byModule: ReadonlyMap<string, LowRank>;
  readonly #clip: Clip;
  #frozen: Map<Linear, Tensor> | null = null;

  /** Puts adapters into a model's layers, and takes their matrices over. */
  constructor(clip: Clip, config: AdapterConfig, byModule: ReadonlyMap<string, LowRank>) {
    this.config = config;
    this.byModule = byModule;
    this.#clip = clip;
    for (const { adapter, linear } of this.#placed()) linear.adapter = adapter;
  }

  /** Every trainable matrix, in the order of the layers, A before the Bᵢ. */
  get parameters(): Tensor[] {
    return [...this.byModule.values()].flatMap(({ parameters }) => parameters);
  }

  /** Every A, in the order of the layers. */
  get downs(): Tensor[] {
    return [...this.byModule.values()].map(({ down }) => down);
  }

  /** Every B or Bᵢ, in the order of the layers. */
  get ups(): Tensor[] {
    return [...this.byModule.values()].flatMap(({ ups }) => ups);
  }

  /** What adapters compute once for all calls of a step: it belongs to the caller's scope. */
  shared(): Map<LowRank, Tensor> {
    return attribute(
      "adapter",
      () => new Map([...this.byModule.values()].map((adapter) => [adapter, adapter.share()])),
    );
  }

  /** How many numbers train. */
  get parameterCount(): number {
    return this.parameters.reduce((count, { size }) => count + size, 0);
  }

  /** Whether any adapter sits in a tower: one without runs the same at every step. */
  adapts(tower: "vision" | "text"): boolean {
    return [...this.byModule.keys()].some((module) => towerOf(module) === tower);
  }

  /** Whether the changes are in the weights now. */
  get merged(): boolean {
    return this.#frozen !== null;
  }

  /** Folds the changes into the weights, so that inference costs what it cost before. */
  merge(): void {
    if (this.#frozen) throw new Error("Cannot merge adapters twice: unmerge() them first");
    this.#frozen = new Map();
    for (const { adapter, linear } of this.#placed()) {
      this.#frozen.set(linear, linear.weight);
      linear.weight = owned(
        "frozenWeights",
        () => keep(scope(() => add(linear.weight, adapter.weightDelta()))),
      );
      linear.adapter = null;
    }
  }

  /** Takes the changes out again. The frozen weights were kept, so that they come back bit for bit. */
  unmerge(): void {
    if (!this.#frozen) throw new Error("Cannot unmerge adapters that are not merged");
    for (const { adapter, linear } of this.#placed()) {
      linear.weight.release();
      linear.weight = this.#frozen.get(linear)!;
      linear.adapter = adapter;
    }
    this.#frozen = null;
  }

  /** Takes the adapters out of the model and gives their matrices back. */
  release(): void {
    if (this.#frozen) this.unmerge();
    for (const { linear } of this.#placed()) linear.adapter = null;
    for (const parameter of this.parameters) parameter.release();
  }

  #placed(): { adapter: LowRank; linear: Linear }[] {
    return sites(this.#clip)
      .filter(({ module }) => this.byModule.has(module))
      .map(({ module, linear }) => ({ adapter: this.byModule.get(module)!, linear }));
  }
}

/** How many numbers {@linkcode attach} would make trainable, and its errors. */
export function countParameters(clip: Clip, config: AdapterConfig): number {
  checkConfig(config);
  const inner = config.rank / config.blocks;
  const ups = KINDS[config.method].ups(config.blocks);
  return chosenSites(clip, config).reduce((count, { linear }) => {
    const [outputs, inputs] = linear.weight.shape;
    return count + inner * (inputs + ups * outputs);
  }, 0);
}

function checkConfig({ method, rank, blocks }: AdapterConfig): void {
  if (!Number.isInteger(rank) || rank < 1) {
    throw new RangeError(`Cannot adapt with rank ${rank}: it must be a positive whole number`);
  }
  if (!Number.isInteger(blocks) || blocks < 1 || rank % blocks !== 0) {
    throw new RangeError(
      `Cannot split rank ${rank} into ${blocks} blocks: the rank must be a multiple of the number of blocks`,
    );
  }
  if (method.startsWith("lora") && blocks !== 1) {
    throw new RangeError(
      `Cannot make LoRA of ${blocks} blocks: it has one, use block-lora for more`,
    );
  }
}

/** The class of each kind, and how many up-projections it keeps of n blocks. */
const KINDS = {
  "block-lora": { Kind: BlockLora, ups: (blocks: number) => blocks },
  "block-lora-collapsed": { Kind: Lora, ups: () => 1 },
  "lora": { Kind: Lora, ups: () => 1 },
  "lora-dense": { Kind: DenseLora, ups: () => 1 },
} as const;

/**
 * Makes fresh adapters and puts them into a model: A uniform in ±1/√in from `seed`, every B zero, so that the model
 * does not change until a step is taken.
 *
 * @throws {RangeError} If the blocks do not divide the rank, or a choice of layers is not one.
 */
export function attach(clip: Clip, config: AdapterConfig, seed: number): Adapters {
  checkConfig(config);
  const { method, rank, blocks } = config;
  const random = new Random(seed, "adapters");
  const inner = rank / blocks;
  const { Kind, ups: count } = KINDS[method];
  const byModule = new Map<string, LowRank>();
  for (const [stream, { module, linear }] of chosenSites(clip, config).entries()) {
    const [outputs, inputs] = linear.weight.shape;
    const bound = 1 / Math.sqrt(inputs);
    const own = random.fork(module);
    const values = Float32Array.from(
      { length: inner * inputs },
      () => (2 * own.uniform() - 1) * bound,
    );
    const options = { scale: scaleOf(config), dropout: config.dropout, stream };
    const adapter = owned("adapterWeights", () => {
      const down = keep(tensor(values, [inner, inputs]));
      const ups = Array.from({ length: count(blocks) }, () => keep(zeros([outputs, inner])));
      return new Kind(down, ups, options);
    });
    byModule.set(module, adapter);
  }
  return new Adapters(clip, config, byModule);
}
