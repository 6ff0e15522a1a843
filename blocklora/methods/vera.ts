/**
 * VeRA: all layers share two frozen random matrices, and each trains two vectors.
 *
 * @module
 */

import { full, zeros } from "../../autograd/ops/create.ts";
import type { DropoutKey } from "../../autograd/ops/dropout.ts";
import type { LinearOptions } from "../../autograd/ops/linear.ts";
import { lowRankLinear } from "../../autograd/ops/low_rank.ts";
import { matmul } from "../../autograd/ops/matmul.ts";
import { add, mul } from "../../autograd/ops/pointwise.ts";
import { slice, unsqueeze } from "../../autograd/ops/view.ts";
import type { FrozenLinear, Pass } from "../../clip/layers.ts";
import { tensor } from "../../tensor/create.ts";
import { attribute } from "../../tensor/measure.ts";
import { scope } from "../../tensor/scope.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { DROPOUT, totalCost } from "../cost/formulas.ts";
import { number } from "../system/flag.ts";
import { type AdapterMethod, adapterMethod } from "./adapter_method.ts";
import type { LayerAdapter, LayerConfig, LayerContext } from "./adapters.ts";
import { probability, refuse, refuseOthers, wholeNumber } from "./peft_config.ts";
import { LAYER_FLAGS, layersOf } from "./sites.ts";

/** What to adapt, and how. */
export interface VeraConfig extends LayerConfig {
  /** The initial value of every element of d. */
  readonly initial: number;
  /** Probability of dropping an element of an adapter's input. */
  readonly dropout: number;
}

/** PEFT's names for the tensors. */
const [LAMBDA_B, LAMBDA_D, DOWN, UP] = ["vera_lambda_b", "vera_lambda_d", "vera_A", "vera_B"];

/**
 * `W' = W + diag(b) B diag(d) A`, A `[r, in]` and B `[out, r]` frozen and shared, b `[out]` and d
 * `[r]` trained (Kopiczko et al., arXiv 2310.11454, equation 2). A and B are as large as the
 * largest layer needs. A layer takes the first columns of A and the first rows of B (PEFT's
 * `VeraModel`).
 */
export class Vera implements LayerAdapter {
  readonly tensors: Readonly<Record<string, Tensor>>;
  readonly #frozen: Readonly<Record<string, Tensor>>;
  readonly #config: VeraConfig;
  readonly #stream: number;

  /** Takes the vectors and the frozen matrices, which the caller releases. */
  constructor(
    tensors: Readonly<Record<string, Tensor>>,
    { frozen, config, stream }: LayerContext<VeraConfig>,
  ) {
    this.tensors = tensors;
    this.#frozen = frozen;
    this.#config = config;
    this.#stream = stream;
  }

  /** `diag(b) B diag(d)`, `[out, r]`. */
  share(): Tensor {
    return scope(() => {
      const { [LAMBDA_B]: b, [LAMBDA_D]: d } = this.tensors;
      const rows = slice(this.#frozen[UP], 0, 0, b.size);
      return mul(mul(rows, unsqueeze(d, 0)), unsqueeze(b, 1));
    });
  }

  #down(inputs: number): Tensor {
    return slice(this.#frozen[DOWN], 1, 0, inputs);
  }

  /** Computes both products in one pass with that of the layer, as LoRA does. */
  forward(
    x: Tensor,
    { weight, bias }: FrozenLinear,
    pass?: Pass,
    options?: LinearOptions,
  ): Tensor {
    return scope(() => {
      const [down, up] = attribute("adapter", () => [
        this.#down(weight.shape[1]),
        pass?.shared?.get(this) ?? this.share(),
      ]);
      const change = { down, up, scale: 1, dropout: this.#dropped(x, pass), label: "adapter" };
      return lowRankLinear(x, weight, bias, change, options);
    });
  }

  #dropped(x: Tensor, pass?: Pass): { p: number; key: DropoutKey } | undefined {
    if (pass?.seed === undefined) return undefined;
    const { seed, items } = pass;
    const rows = items && { numbers: items.numbers, size: items.tokens * x.shape.at(-1)! };
    return { p: this.#config.dropout, key: { seed, stream: this.#stream, rows } };
  }

  /** `W + diag(b) B diag(d) A`. */
  mergedWeight(weight: Tensor): Tensor {
    return scope(() => add(weight, matmul(this.share(), this.#down(weight.shape[1]))));
  }
}

/** VeRA, with the rank of the paper's vision models. */
export const vera: AdapterMethod<Vera> = adapterMethod<VeraConfig, Vera>({
  name: "vera",
  label: ({ rank }) => `VeRA r = ${rank}`,
  flags: {
    rank: number({ from: 1, to: 4096, integer: true }, "nominal rank r", 256),
    initial: number({}, "what VeRA's d begins with", 0.1),
    dropout: number({ from: 0, to: 0.999 }, "share of an adapter's input that is dropped", 0),
    ...LAYER_FLAGS,
  },
  // Ten times the learning rates of LoRA, because few numbers have to change a matrix.
  recipe: { learningRate: 2e-3 },
  embeddedRecipe: { learningRate: 5e-2 },
  configOf(values) {
    const { rank, initial, dropout } = values as unknown as VeraConfig;
    return { method: "vera", rank, initial, dropout, ...layersOf(values) };
  },
  variant: ({ rank }) => `r${rank}`,
  valuesOf(variant) {
    const [, rank] = /^r(\d+)$/.exec(variant) ?? [];
    return rank === undefined ? null : { rank: Number(rank) };
  },
  check({ rank }) {
    if (Number.isInteger(rank) && rank >= 1) return;
    throw new RangeError(`Cannot adapt with rank ${rank}: it must be a positive integer`);
  },
  tensors: ({ rank }, [outputs]) => ({ [LAMBDA_B]: [outputs], [LAMBDA_D]: [rank] }),
  fresh: (name, shape, _linear, _random, { initial }) =>
    name === LAMBDA_D ? full(shape, initial) : zeros(shape),
  frozen: ({ rank }, layers) => ({
    [DOWN]: [rank, Math.max(...layers.map(([, inputs]) => inputs))],
    [UP]: [Math.max(...layers.map(([outputs]) => outputs)), rank],
  }),
  // Kaiming's uniform initialization, as in PEFT: ±√6 / √(columns).
  freshFrozen(_name, [rows, columns], random) {
    const bound = Math.sqrt(6 / columns);
    const values = Float32Array.from(
      { length: rows * columns },
      () => (2 * random.uniform() - 1) * bound,
    );
    return tensor(values, [rows, columns]);
  },
  make: (tensors, context) => new Vera(tensors, context),

  peftKeys({ config }) {
    const { rank, initial, dropout } = config as VeraConfig;
    return {
      peft_type: "VERA",
      r: rank,
      projection_prng_key: 0,
      save_projection: true,
      vera_dropout: dropout,
      d_initial: initial,
      fan_in_fan_out: false,
      bias: "none",
      init_weights: true,
      layers_to_transform: null,
      layers_pattern: null,
    };
  },
  reads: ({ peft_type }) => peft_type === "VERA",
  parse(config) {
    const { r, vera_dropout = 0, d_initial = 0.1, save_projection = true, ...more } = config;
    const { projection_prng_key: _key, init_weights: _init, ...unknown } = more;
    refuseOthers(unknown);
    if (save_projection !== true) {
      refuse(
        "its random matrices are not in its file and only PyTorch draws them again, " +
          "save it with save_projection",
      );
    }
    if (typeof d_initial !== "number") refuse(`its d_initial is ${JSON.stringify(d_initial)}`);
    const parsed = {
      method: "vera",
      rank: wholeNumber("r", r),
      initial: d_initial,
      dropout: probability("vera_dropout", vera_dropout),
    };
    return { config: parsed, of: () => parsed };
  },
  // The second stage of sums over many rows is not counted.
  cost: ({ rank, dropout }, sites) =>
    totalCost(sites, ({ inputs, outputs, rows, tracked }) => {
      const [down, up] = [2 * rows * inputs * rank, 2 * rows * rank * outputs];
      const scale = rows * rank;
      const drop = dropout > 0 ? DROPOUT * rows * inputs : 0;
      const matrix = outputs * rank; // diag(b) B diag(d), made once a step
      return {
        parameters: outputs + rank,
        forward: 2 * matrix + drop + down + scale + up,
        backward: up + 5 * matrix + (tracked ? up + scale + down + drop : 0),
        saved: rows * rank + (tracked ? 2 : 1) * matrix,
      };
    }),
});
