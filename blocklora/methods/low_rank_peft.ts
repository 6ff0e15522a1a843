/**
 * The configuration of the LoRA family in PEFT's files.
 *
 * @module
 */

import { type AdapterConfig, scaleOf } from "./adapter_config.ts";
import type { Adapters } from "./adapters.ts";
import type { LowRank } from "./low_rank.ts";
import {
  matched,
  parsePattern,
  type PeftConfig,
  probability,
  refuse,
  refuseOthers,
  wholeNumber,
} from "./peft_config.ts";
import type { AdaptedLayers } from "./sites.ts";

/** The most blocks that are read: each of them has a tensor in every layer. */
const MOST_BLOCKS = 1024;

/**
 * Initializations that leave the model's weights as they are, of PEFT 0.12 to 0.21; PiSSA, OLoRA and
 * more do not.
 */
const PLAIN_STARTS = [true, false, null, "gaussian", "eva", "orthogonal", "mica"];

/**
 * Reads a parsed `adapter_config.json` of LoRA or Block-LoRA.
 *
 * @param known Keys besides those of LoRA that the method knows.
 * @throws {RangeError} If a value is missing or impossible, or asks for something that is not
 * supported here.
 */
export function parseLowRank(
  config: Readonly<Record<string, unknown>>,
  method: string,
  known: readonly string[],
): PeftConfig<Omit<AdapterConfig, keyof AdaptedLayers>> {
  const {
    r,
    blocks,
    lora_alpha,
    lora_dropout = 0,
    use_rslora = false,
    rank_pattern,
    alpha_pattern,
    init_lora_weights = true,
    ...unknown
  } = config;
  refuseOthers(Object.fromEntries(Object.entries(unknown).filter(([key]) => !known.includes(key))));
  const start = typeof init_lora_weights === "string"
    ? init_lora_weights.toLowerCase()
    : init_lora_weights;
  if (!PLAIN_STARTS.includes(start as string)) {
    refuse(
      `its init_lora_weights is ${
        JSON.stringify(init_lora_weights)
      }, which changed the model too; ` +
        "convert it to plain LoRA with PEFT",
    );
  }
  const count = config.peft_type === "LORA" ? null : wholeNumber("blocks", blocks, MOST_BLOCKS);
  if (count === null && blocks !== undefined) refuse("it has blocks, but its peft_type is LORA");
  if (typeof lora_alpha !== "number") refuse(`its lora_alpha is ${JSON.stringify(lora_alpha)}`);
  const common = {
    method,
    rank: wholeNumber("r", r),
    blocks: count ?? 1,
    alpha: lora_alpha,
    scaling: use_rslora ? "sqrt" : "linear",
    dropout: probability("lora_dropout", lora_dropout),
  } as const;
  const ranks = parsePattern("rank_pattern", rank_pattern);
  const alphas = parsePattern("alpha_pattern", alpha_pattern);
  return {
    config: common,
    of(module) {
      const rank = wholeNumber("r", matched("rank_pattern", ranks, module) ?? common.rank);
      if (rank % common.blocks !== 0) {
        refuse(`its rank ${rank} is not a multiple of the number of its blocks, ${common.blocks}`);
      }
      return { ...common, rank, alpha: matched("alpha_pattern", alphas, module) ?? common.alpha };
    },
  };
}

/**
 * What PEFT's configuration says about adapters. Without their blocks, they are one LoRA of rank
 * r/n.
 */
export function lowRankKeys(
  { config, byModule }: Adapters<LowRank>,
  keepsBlocks: boolean,
): Record<string, unknown> {
  const asked = config as AdapterConfig;
  const rooted = asked.scaling === "sqrt";
  const rank = keepsBlocks ? asked.rank : asked.rank / asked.blocks;
  // Fifteen digits drop the rounding error of dividing and multiplying by a square root.
  const alphaFor = (scale: number, rank: number) =>
    Number((scale * (rooted ? Math.sqrt(rank) : rank)).toPrecision(15));
  const alpha = alphaFor(scaleOf(asked), rank);
  const [rankPattern, alphaPattern]: Record<string, number>[] = [{}, {}];
  for (const [module, { down, ups, scale }] of byModule) {
    const rankHere = down.shape[0] * (keepsBlocks ? ups.length : 1);
    const alphaHere = alphaFor(scale, rankHere);
    if (rankHere !== rank) rankPattern[module] = rankHere;
    if (alphaHere !== alpha) alphaPattern[module] = alphaHere;
  }
  return {
    peft_type: keepsBlocks ? "BLOCK_LORA" : "LORA",
    r: rank,
    ...(keepsBlocks && { blocks: asked.blocks }),
    lora_alpha: alpha,
    lora_dropout: asked.dropout,
    use_rslora: rooted,
    rank_pattern: rankPattern,
    alpha_pattern: alphaPattern,
    fan_in_fan_out: false,
    bias: "none",
    init_lora_weights: true,
    layers_to_transform: null,
    layers_pattern: null,
    use_dora: false,
  };
}
