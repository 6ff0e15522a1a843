/**
 * Which layers of a model get adapters.
 *
 * @module
 */

import { type Projection, PROJECTIONS } from "../../clip/layers.ts";
import type { Model } from "../../clip/model.ts";
import type { NamedLinear } from "../../clip/tower.ts";
import { type FlagValues, oneOf, text } from "../system/flag.ts";

/**
 * The names of the layers that can be adapted: those of each block, and the one that computes a
 * tower's features.
 */
export const ADAPTABLE = [...Object.keys(PROJECTIONS) as Projection[], "proj"] as const;
/**
 * A layer that can be adapted: `q`, `k`, `v`, `o`, `fc1` or `fc2` of the blocks, or a tower's
 * `proj`.
 */
export type Adaptable = typeof ADAPTABLE[number];
/** The towers that can be adapted. */
export const ENCODERS = ["both", "vision", "text"] as const;

/** Which layers are adapted. */
export interface AdaptedLayers {
  /** The projections to adapt. */
  readonly projections: readonly Adaptable[];
  /** The towers to adapt. */
  readonly encoder: typeof ENCODERS[number];
  /** The blocks to adapt: a name that {@linkcode layersAt} knows, or their numbers. */
  readonly position: string | readonly number[];
}

/** CLIP-LoRA's layers: q, k and v of every block of both towers. */
export const DEFAULT_LAYERS: AdaptedLayers = {
  projections: ["q", "k", "v"],
  encoder: "both",
  position: "all",
};

/** The flags that choose layers. */
export const LAYER_FLAGS = {
  projections: text(
    "LIST",
    "layers to adapt, of q,k,v,o,fc1,fc2 in the blocks and proj, which makes the features",
    DEFAULT_LAYERS.projections.join(),
  ),
  encoder: oneOf(ENCODERS, "towers to adapt", DEFAULT_LAYERS.encoder),
  position: text(
    "WHICH",
    "blocks to adapt: all, bottom, mid, up, half-up, half-bottom, topN, or numbers 0,1,5",
    "all",
  ),
};

/** The layers that the values of these flags choose. */
export function layersOf(values: FlagValues): AdaptedLayers {
  const { projections, encoder, position } = values as {
    readonly projections: string;
    readonly encoder: AdaptedLayers["encoder"];
    readonly position: string;
  };
  const numbers = /^\d+(,\d+)*$/.test(position);
  return {
    projections: projections.split(",").map((name) => name.trim()) as Adaptable[],
    encoder,
    position: numbers ? position.split(",").map(Number) : position,
  };
}

/**
 * The layers that a position names in a tower of `layers` blocks: `all`; the thirds `bottom`, `mid`
 * and `up`; the halves `half-bottom` and `half-up`; `topN`, the last N; or a list of numbers.
 *
 * @throws {RangeError} If the position is unknown or names no layer, or a number is not a layer's.
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

/** A linear layer that can be adapted. */
export type Site = NamedLinear;

/** Every linear layer of a model's towers. */
export function sites(model: Pick<Model, "vision" | "text">): Site[] {
  return [...model.text?.linears ?? [], ...model.vision.linears];
}

/** The sites that a configuration chooses. */
export function chosenSites(
  model: Pick<Model, "vision" | "text">,
  { projections, encoder, position }: AdaptedLayers,
): Site[] {
  const unknown = projections.find((name) => !ADAPTABLE.includes(name));
  if (unknown !== undefined || projections.length === 0) {
    throw new RangeError(
      `Cannot adapt projection "${unknown ?? ""}": choose from ${ADAPTABLE.join(", ")}`,
    );
  }
  if (encoder === "text" && !model.text) {
    throw new RangeError("Cannot adapt the text tower: the model has none");
  }
  const towers = [
    encoder !== "vision" ? model.text : null,
    encoder !== "text" ? model.vision : null,
  ].filter((tower) => tower !== null);
  return towers.flatMap(({ depth, linears }) => {
    const blocks = layersAt(position, depth);
    return linears.filter(({ role, block }) =>
      projections.includes(role) && (block === null || blocks.includes(block))
    );
  });
}

/** The closest description of the layers whose names are given. */
export function describeSites(
  model: Pick<Model, "vision" | "text">,
  modules: readonly string[],
): AdaptedLayers {
  const towers = (["vision", "text"] as const).map((name) => ({
    name,
    depth: model[name]?.depth ?? 0,
    adapted: model[name]?.linears.filter(({ module }) => modules.includes(module)) ?? [],
  })).filter(({ adapted }) => adapted.length > 0);
  const adapted = towers.flatMap(({ adapted }) => adapted);
  const blocks = new Set(adapted.flatMap(({ block }) => block ?? []));
  const all = blocks.size === 0 ||
    towers.every(({ depth }) =>
      Array.from({ length: depth }, (_, i) => i).every((i) => blocks.has(i))
    );
  return {
    projections: ADAPTABLE.filter((name) => adapted.some(({ role }) => role === name)),
    encoder: towers.length > 1 ? "both" : towers[0].name,
    position: all ? "all" : [...blocks].sort((a, b) => a - b),
  };
}
