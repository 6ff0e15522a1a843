/**
 * What all methods that put adapters into linear layers have in common, such as the LoRA family.
 *
 * @module
 */

import type { Model } from "../../clip/model.ts";
import type { Adapter, Linear } from "../../clip/layers.ts";
import { attribute } from "../../tensor/measure.ts";
import { inCategory } from "../../tensor/memory.ts";
import type { Random } from "../../tensor/random.ts";
import { keep, scope } from "../../tensor/scope.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { HostTensors } from "./host_tensors.ts";
import type { Learner, Method, MethodConfig, TrainableGroup } from "./method.ts";
import type { PeftConfig } from "./peft_config.ts";
import { type AdaptedLayers, type Site, sites } from "./sites.ts";

/** A trainable change of one layer. */
export interface LayerAdapter extends Adapter {
  /** The tensors that train, by their names in PEFT's files. */
  readonly tensors: Readonly<Record<string, Tensor>>;
  /**
   * Computes what every call of a step needs, once a step, from the tensors that train. Absent if
   * there is nothing to share.
   */
  share?(): Tensor;
  /** The weight `[out, in]` that computes alone what `weight` computes with the adapter. */
  mergedWeight(weight: Tensor): Tensor;
}

/** What an adapter is made with besides its tensors. */
export interface LayerContext<Config> {
  /** The configuration of this layer. */
  readonly config: Config;
  /** The layer. */
  readonly linear: Linear;
  /**
   * The number of this adapter's dropout mask among those of a seed. Each layer needs a different
   * one.
   */
  readonly stream: number;
  /** The frozen tensors that all adapters share, by the names of {@linkcode AdapterKind.frozen}. */
  readonly frozen: Readonly<Record<string, Tensor>>;
}

/** The configuration of a method that adapts layers. */
export type LayerConfig = MethodConfig & AdaptedLayers & { readonly rank: number };

/** Everything that is specific to one kind of adapter. */
export interface AdapterKind<
  Config extends LayerConfig = LayerConfig,
  Made extends LayerAdapter = LayerAdapter,
> extends Omit<Method<Config>, "countParameters" | "learner" | "save" | "load"> {
  /**
   * Checks a configuration.
   *
   * @throws {RangeError} If the configuration is impossible.
   */
  check(config: Config): void;
  /**
   * The shapes of the tensors that train in a layer `[out, in]`, by their names in PEFT's files, in
   * order.
   */
  tensors(config: Config, layer: Shape): Readonly<Record<string, Shape>>;
  /** A fresh tensor for one of those names. `random` belongs to the layer. */
  fresh(name: string, shape: Shape, linear: Linear, random: Random, config: Config): Tensor;
  /** The shapes of the frozen tensors that all adapters share, by name; none by default. */
  frozen?(config: Config, layers: readonly Shape[]): Readonly<Record<string, Shape>>;
  /** A fresh tensor for one of the names of {@linkcode AdapterKind.frozen}. */
  freshFrozen?(name: string, shape: Shape, random: Random): Tensor;
  /** Makes an adapter from its tensors, which {@linkcode Adapters.release} releases. */
  make(tensors: Readonly<Record<string, Tensor>>, context: LayerContext<Config>): Made;
  /** The tensors that train, in groups; all in one group by default. */
  groups?(adapters: readonly Made[], config: Config): readonly TrainableGroup[];

  /** Its keys in PEFT's `adapter_config.json`. */
  peftKeys(adapters: Adapters<Made>, format: "octograd" | "peft"): Record<string, unknown>;
  /** The tensors of a layer in PEFT's format, if that is not the format of {@linkcode tensors}. */
  exported?(values: HostTensors): HostTensors;
  /** Reads a PEFT configuration: what it says about all layers, and about each one. */
  parse(config: Readonly<Record<string, unknown>>): PeftConfig<Omit<Config, keyof AdaptedLayers>>;
}

/** The adapters of a model. They hold their tensors, and sit in the model until released. */
export class Adapters<
  Made extends LayerAdapter = LayerAdapter,
  Config extends LayerConfig = LayerConfig,
> implements Learner {
  /** What was adapted, and how. */
  readonly config: Config;
  /** The kind of the adapters. */
  readonly kind: AdapterKind;
  /** The adapters, by the names of their layers. */
  readonly byModule: ReadonlyMap<string, Made>;
  /** The frozen tensors that all of them share. */
  readonly frozen: Readonly<Record<string, Tensor>>;
  readonly #model: Model;
  #weights: Map<Linear, Tensor> | null = null;

  /** Puts adapters into a model's layers. {@linkcode Adapters.release} releases their tensors. */
  constructor(
    model: Model,
    config: Config,
    // deno-lint-ignore no-explicit-any
    kind: AdapterKind<any, Made>,
    byModule: ReadonlyMap<string, Made>,
    frozen: Readonly<Record<string, Tensor>> = {},
  ) {
    this.config = config;
    this.kind = kind;
    this.byModule = byModule;
    this.frozen = frozen;
    this.#model = model;
    for (const { adapter, linear } of this.#placed()) linear.adapter = adapter;
  }

  /** Every tensor that trains, layer by layer. */
  get parameters(): Tensor[] {
    return [...this.byModule.values()].flatMap(({ tensors }) => Object.values(tensors));
  }

  /** The tensors that train, in the optimizer's order. */
  get groups(): readonly TrainableGroup[] {
    const { kind, config, parameters } = this;
    return kind.groups?.([...this.byModule.values()], config) ??
      [{ name: "adapters", parameters, copies: 1 }];
  }

  /** How many numbers train. */
  get parameterCount(): number {
    return this.parameters.reduce((count, { size }) => count + size, 0);
  }

  /** What adapters compute once for all calls of a step. */
  pass(): { shared: Map<LayerAdapter, Tensor> } {
    return attribute("adapter", () => {
      const sharing = [...this.byModule.values()].filter(({ share }) => share);
      return { shared: new Map(sharing.map((adapter) => [adapter, adapter.share!()])) };
    });
  }

  /**
   * Whether any adapter sits in a tower. A tower without adapters gives the same result at every
   * step.
   */
  changes(tower: "vision" | "text"): boolean {
    return !!this.#model[tower]?.linears.some(({ module }) => this.byModule.has(module));
  }

  /** Whether the changes are folded into the weights. */
  get merged(): boolean {
    return this.#weights !== null;
  }

  /** Folds the changes into the weights. */
  merge(): void {
    if (this.#weights) throw new Error("Cannot merge adapters twice: unmerge() them first");
    this.#weights = new Map();
    for (const { adapter, linear } of this.#placed()) {
      this.#weights.set(linear, linear.weight);
      linear.weight = inCategory(
        "frozenWeights",
        () => keep(scope(() => adapter.mergedWeight(linear.weight))),
      );
      linear.adapter = null;
    }
  }

  /**
   * Takes the changes out again. {@linkcode Adapters.merge} set the frozen weights aside, so they
   * come back bit for bit.
   */
  unmerge(): void {
    if (!this.#weights) throw new Error("Cannot unmerge adapters that are not merged");
    for (const { adapter, linear } of this.#placed()) {
      linear.weight.release();
      linear.weight = this.#weights.get(linear)!;
      linear.adapter = adapter;
    }
    this.#weights = null;
  }

  /** Takes the adapters out of the model and releases their tensors. */
  release(): void {
    if (this.#weights) this.unmerge();
    for (const { linear } of this.#placed()) linear.adapter = null;
    for (const tensor of [...this.parameters, ...Object.values(this.frozen)]) tensor.release();
  }

  #placed(): (Site & { adapter: Made })[] {
    return sites(this.#model)
      .filter(({ module }) => this.byModule.has(module))
      .map((site) => ({ ...site, adapter: this.byModule.get(site.module)! }));
  }
}
