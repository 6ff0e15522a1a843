/**
 * Makes a method from a kind of adapter: it can attach fresh adapters, and save and load them.
 *
 * @module
 */

import type { Model } from "../../clip/model.ts";
import { inCategory } from "../../tensor/memory.ts";
import { Random } from "../../tensor/random.ts";
import { keep } from "../../tensor/scope.ts";
import { numel } from "../../tensor/shape.ts";
import { type AdapterKind, Adapters, type LayerAdapter, type LayerConfig } from "./adapters.ts";
import { loadAdaptersOf, saveAdapters } from "./checkpoint.ts";
import type { Method, MethodConfig } from "./method.ts";
import { chosenSites } from "./sites.ts";

/** A method that adapts layers. */
export interface AdapterMethod<Made extends LayerAdapter = LayerAdapter> extends Method {
  /** Everything that is specific to it. */
  readonly kind: AdapterKind<LayerConfig, Made>;
  /** Makes fresh adapters from a seed, and puts them into a model. */
  attach(model: Model, config: MethodConfig, seed: number): Adapters<Made>;
}

/** Makes a method from a kind of adapter. */
export function adapterMethod<Config extends LayerConfig, Made extends LayerAdapter>(
  kind: AdapterKind<Config, Made>,
): AdapterMethod<Made> {
  const erased = kind as unknown as AdapterKind;
  return {
    ...erased,
    kind: kind as unknown as AdapterKind<LayerConfig, Made>,
    countParameters: ({ model }, config) => countParameters(model, config as Config, kind),
    attach: (model, config, seed) => attach(model, config as Config, kind, seed),
    learner: ({ model }, config, seed) => attach(model, config as Config, kind, seed),
    save: (learner, model, options) => saveAdapters(learner as Adapters, model, options),
    async load(model, file, config) {
      const { adapters, extra } = await loadAdaptersOf(erased, model, file, config);
      return { learner: adapters, extra };
    },
  };
}

function countParameters<Config extends LayerConfig, Made extends LayerAdapter>(
  model: Model,
  config: Config,
  kind: AdapterKind<Config, Made>,
): number {
  kind.check(config);
  const shapes = chosenSites(model, config)
    .flatMap(({ linear }) => Object.values(kind.tensors(config, linear.weight.shape)));
  return shapes.reduce((count, shape) => count + numel(shape), 0);
}

/**
 * Makes fresh adapters. The random numbers of a layer depend only on the seed and the layer's name.
 */
function attach<Config extends LayerConfig, Made extends LayerAdapter>(
  model: Model,
  config: Config,
  kind: AdapterKind<Config, Made>,
  seed: number,
): Adapters<Made> {
  kind.check(config);
  const random = new Random(seed, "adapters");
  const chosen = chosenSites(model, config);
  const layers = chosen.map(({ linear }) => linear.weight.shape);
  const made = <T>(make: () => T) => inCategory("adapterWeights", make);
  const frozen = mapped(
    kind.frozen?.(config, layers) ?? {},
    (name, shape) => made(() => keep(kind.freshFrozen!(name, shape, random.fork(name)))),
  );
  const byModule = new Map<string, Made>();
  for (const [stream, { module, linear }] of chosen.entries()) {
    const drawn = random.fork(module);
    const adapter = made(() => {
      const tensors = mapped(
        kind.tensors(config, linear.weight.shape),
        (name, shape) => keep(kind.fresh(name, shape, linear, drawn, config)),
      );
      return kind.make(tensors, { config, linear, stream, frozen });
    });
    byModule.set(module, adapter);
  }
  return new Adapters(model, config, kind, byModule, frozen);
}

function mapped<T, U>(
  record: Readonly<Record<string, T>>,
  make: (name: string, value: T) => U,
): Record<string, U> {
  return Object.fromEntries(
    Object.entries(record).map(([name, value]) => [name, make(name, value)]),
  );
}
