/**
 * The methods of the LoRA family: their configuration, their flags, and their form in PEFT's files.
 *
 * @module
 */

import { zeros } from "../../autograd/ops/create.ts";
import { tensor } from "../../tensor/create.ts";
import type { Random } from "../../tensor/random.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { AdaptedSite, MethodCost, ThinShape } from "../cost/formulas.ts";
import { number, oneOf } from "../system/flag.ts";
import { type AdapterMethod, adapterMethod } from "./adapter_method.ts";
import { type AdapterConfig, DEFAULT_ADAPTER, scaleOf } from "./adapter_config.ts";
import type { AdapterKind, LayerContext } from "./adapters.ts";
import type { HostTensors } from "./host_tensors.ts";
import { type LowRank, type LowRankOptions, partNames } from "./low_rank.ts";
import { lowRankKeys, parseLowRank } from "./low_rank_peft.ts";
import type { MethodConfig } from "./method.ts";
import { LAYER_FLAGS, layersOf } from "./sites.ts";

/** The flags of the family. Only methods that split the rank have `blocks`. */
const FLAGS = {
  rank: number({ from: 1, to: 4096, integer: true }, "nominal rank r", DEFAULT_ADAPTER.rank),
  blocks: number(
    { from: 1, integer: true },
    "blocks n, which divide the rank",
    DEFAULT_ADAPTER.blocks,
  ),
  alpha: number({}, "numerator of the adapter's scale", DEFAULT_ADAPTER.alpha),
  scaling: oneOf(
    ["sqrt", "linear"],
    "scale is alpha/sqrt(r), or alpha/r",
    DEFAULT_ADAPTER.scaling,
  ),
  dropout: number(
    { from: 0, to: 0.999 },
    "share of an adapter's input that is dropped",
    DEFAULT_ADAPTER.dropout,
  ),
  ...LAYER_FLAGS,
};

/** Everything that is specific to one method of the family. */
export interface LowRankKind<Made extends LowRank> {
  /** Its name. */
  readonly name: string;
  /** What reports call it. */
  readonly label: (config: MethodConfig) => string;
  /**
   * If the method splits the rank into n blocks: how many up-projections it has, and how many
   * blocks each of them stands for.
   */
  readonly splits?: {
    readonly ups: (blocks: number) => number;
    readonly copies: (blocks: number) => number;
  };
  /** What PEFT calls it; `LORA` by default. */
  readonly peftType?: "LORA" | "BLOCK_LORA";
  /** Keys of PEFT's configuration that differ from LoRA's. */
  readonly peftKeys?: Readonly<Record<string, unknown>>;
  /** Whether the method reads a configuration of that `peft_type`; it reads all by default. */
  readonly reads?: (config: Readonly<Record<string, unknown>>) => boolean;
  /** Makes an adapter from A, the up-projections, and the tensors of {@linkcode more}. */
  readonly make: (
    tensors: Tensor[],
    options: LowRankOptions,
    context: LayerContext<AdapterConfig>,
  ) => Made;
  /**
   * The tensors that train besides A and the up-projections, by their names in PEFT's files; none
   * by default.
   */
  readonly more?: Readonly<
    Record<string, {
      readonly shape: (layer: Shape) => Shape;
      readonly fresh: (weight: Tensor) => Tensor;
    }>
  >;
  /** Its costs in closed form. */
  readonly cost: (shape: ThinShape, sites: readonly AdaptedSite[]) => MethodCost;
}

/** Makes a method of the family. */
export function lowRankMethod<Made extends LowRank>(spec: LowRankKind<Made>): AdapterMethod<Made> {
  const { name, splits, peftType = "LORA", reads = () => true, more = {} } = spec;
  const { blocks, ...common } = FLAGS;
  const numbered = peftType === "BLOCK_LORA";
  const ups = (config: AdapterConfig) => splits?.ups(config.blocks) ?? 1;
  const kind: AdapterKind<AdapterConfig, Made> = {
    name,
    label: spec.label,
    flags: splits ? { ...common, blocks } : common,
    configOf: (values) => {
      const { rank, blocks = 1, alpha, scaling, dropout } = values as unknown as AdapterConfig;
      return { method: name, rank, blocks, alpha, scaling, dropout, ...layersOf(values) };
    },
    variant: ({ rank, blocks }) => splits ? `r${rank}-n${blocks}` : `r${rank}`,
    valuesOf(variant) {
      const [, rank, blocks] = /^r(\d+)(?:-n(\d+))?$/.exec(variant) ?? [];
      if (rank === undefined || (blocks !== undefined && !splits)) return null;
      return { rank: Number(rank), ...(splits && { blocks: Number(blocks ?? 1) }) };
    },
    check: (config) => checkRank(config, splits !== undefined),
    tensors: (config, layer) => {
      const inner = config.rank / config.blocks;
      const [outputs, inputs] = layer;
      const names = partNames(numbered ? config.blocks : null);
      return Object.fromEntries([
        [names[0], [inner, inputs]],
        ...Array.from({ length: ups(config) }, (_, i) => [names[i + 1], [outputs, inner]]),
        ...Object.entries(more).map(([name, { shape }]) => [name, shape(layer)]),
      ]);
    },
    fresh: (name, shape, { weight }, random) =>
      name === "lora_A.weight"
        ? tensor(uniform(shape, random), shape)
        : more[name]?.fresh(weight) ?? zeros(shape),
    make: (tensors, context) => {
      const { config, stream } = context;
      const options = { scale: scaleOf(config), dropout: config.dropout, stream };
      return spec.make(Object.values(tensors), options, context);
    },
    groups: (adapters, { blocks = 1 }) => [
      { name: "down", parameters: adapters.map(({ down }) => down), copies: 1 },
      {
        name: "up",
        parameters: adapters.flatMap(({ ups }) => ups),
        copies: splits?.copies(blocks) ?? 1,
      },
      ...Object.keys(more).map((name) => ({
        name,
        parameters: adapters.map(({ tensors }) => tensors[name]),
        copies: 1,
      })),
    ],
    peftKeys: (adapters, format) => ({
      ...lowRankKeys(adapters, numbered && format === "octograd"),
      ...spec.peftKeys,
    }),
    exported: numbered ? summed : undefined,
    reads: (config) => (config.peft_type === peftType) && reads(config),
    parse: (config) => parseLowRank(config, name, Object.keys(spec.peftKeys ?? {})),
    cost: ({ rank, blocks }, sites) =>
      spec.cost({ inner: rank / blocks, ups: splits?.ups(blocks) ?? 1 }, sites),
  };
  return adapterMethod(kind);
}

function checkRank({ rank, blocks }: AdapterConfig, splits: boolean): void {
  if (!Number.isInteger(rank) || rank < 1) {
    throw new RangeError(`Cannot adapt with rank ${rank}: it must be a positive integer`);
  }
  if (!Number.isInteger(blocks) || blocks < 1 || rank % blocks !== 0) {
    throw new RangeError(
      `Cannot split rank ${rank} into ${blocks} blocks: ` +
        "the rank must be a multiple of the number of blocks",
    );
  }
  if (!splits && blocks !== 1) {
    throw new RangeError(
      `Cannot make LoRA of ${blocks} blocks: it has one, use block-lora for more`,
    );
  }
}

/**
 * Initial values of A, as in CLIP-LoRA: uniform in ±1/√in. The model does not change while every B
 * is 0.
 */
function uniform([rows, inputs]: Shape, random: Random): Float32Array<ArrayBuffer> {
  const bound = 1 / Math.sqrt(inputs);
  return Float32Array.from(
    { length: rows * inputs },
    () => (2 * random.uniform() - 1) * bound,
  );
}

/**
 * The LoRA of rank r/n that equals the blocks. Its B is their sum, element by element, in float64.
 */
function summed(values: HostTensors): HostTensors {
  const [down, ...ups] = Object.values(values);
  const data = ups[0].data.map((_, i) => ups.reduce((total, { data }) => total + data[i], 0));
  const [nameOfDown, nameOfUp] = partNames(null);
  return { [nameOfDown]: down, [nameOfUp]: { shape: ups[0].shape, data } };
}
