/**
 * Adapters as files: Hugging Face PEFT's format, and its extension to several blocks.
 *
 * @module
 */

import type { Clip } from "../clip/clip.ts";
import { type Projection, PROJECTIONS } from "../clip/layers.ts";
import { tensor } from "../tensor/create.ts";
import { encodeSafetensors, type SafetensorsFile } from "../tensor/safetensors.ts";
import { keep } from "../tensor/scope.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { BlockLora, Lora, type LowRank } from "./adapter.ts";
import { type AdapterConfig, Adapters, scaleOf, type Site, sites } from "./attach.ts";

/** Adapters, ready to be written. */
export interface SavedAdapters {
  /** The content of `adapter_model.safetensors`. */
  readonly weights: Uint8Array<ArrayBuffer>;
  /** The content of `adapter_config.json`. */
  readonly config: string;
}

/** How adapters are saved. */
export interface SaveOptions {
  /**
   * `"octograd"` (default) keeps every block, and tells the model that the adapters were made for from others. `"peft"`
   * is what any release of PEFT reads: Block-LoRA becomes the rank r/n LoRA that it equals.
   */
  readonly format?: "octograd" | "peft";
  /** What to keep beside the adapters, under the key `octograd`; not in PEFT's format. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** The prefix that PEFT gives the names of a model's layers. */
const PREFIX = "base_model.model.";

/** How many of the model's weights are kept to tell it from another of the same sizes, and to how many digits. */
const SAMPLE = { count: 16, digits: 6 } as const;

/** How far a sample may be off, as a part of its largest value: far above the rounding to bfloat16, 2⁻⁹. */
const SAMPLE_TOLERANCE = 0.02;

/** An adapter on the host: what is in a file. */
interface Record_ {
  readonly module: string;
  /** The nominal rank r, and the number that `s = alpha / √r` or `alpha / r` is made from. */
  readonly rank: number;
  readonly alpha: number;
}
