/**
 * The interface of a few-shot method: all that commands, sweeps, reports, costs and checkpoints
 * need of one.
 *
 * @module
 */

import type { Model } from "../../clip/model.ts";
import type { Pass } from "../../clip/layers.ts";
import type { Prompts } from "../../clip/text.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { TensorFile } from "../../tensor/tensor_file.ts";
import type { AdaptedSite, MethodCost } from "../cost/formulas.ts";
import type { Flags, FlagValues } from "../system/flag.ts";
import type { Recipe } from "./recipe.ts";

/** What a method was asked to do, as files store it. */
export interface MethodConfig {
  /** The method's name. */
  readonly method: string;
  /** The nominal rank, if the method has one. */
  readonly rank?: number | null;
  /** How many blocks the rank is cut into, if the method does so. */
  readonly blocks?: number | null;
}

/** A few-shot method. Its functions get only configurations that it made itself. */
export interface Method<Config extends MethodConfig = MethodConfig> {
  /** What commands and files call it. */
  readonly name: string;
  /** The flags that it reads, with its presets; two methods may share a flag. */
  readonly flags: Flags;
  /** The values that it was published with, where they differ from CLIP-LoRA's recipe. */
  readonly recipe?: Partial<Recipe>;
  /** The values for the embedded model, where they differ from that model's usual recipe. */
  readonly embeddedRecipe?: Partial<Recipe>;

  /** The configuration that the values of its flags ask for. */
  configOf(values: FlagValues): Config;
  /** What reports call it: `Block-LoRA (8, 4)`. */
  label(config: MethodConfig): string;
  /** What tells its configurations apart in the names of runs: `r8-n4`. */
  variant(config: Config): string;
  /** The values of the flags that a variant stands for; null if the method has no such variant. */
  valuesOf(variant: string): FlagValues | null;

  /**
   * How many numbers train.
   *
   * @throws {RangeError} As {@linkcode learner}.
   */
  countParameters(task: Task, config: Config): number;
  /**
   * Makes a learner from a seed, and puts it into the model.
   *
   * @throws {RangeError} If the configuration does not fit the model.
   */
  learner(task: Task, config: Config, seed: number): Learner;

  /** Encodes what was learned, for writing to files. */
  save(learner: Learner, named: NamedModel, options: SaveOptions): Promise<SavedAdapters>;
  /** Whether this method reads a parsed `adapter_config.json`. */
  reads(config: Readonly<Record<string, unknown>>): boolean;
  /**
   * Reads what was learned, and puts it into the model.
   *
   * @throws {RangeError} If it does not fit. The model is then unchanged.
   */
  load(model: Model, file: TensorFile, config: Readonly<Record<string, unknown>>): Promise<Loaded>;

  /** What it costs in closed form, for comparison with what the engine counts. */
  cost(config: Config, sites: readonly AdaptedSite[]): MethodCost;
}

/** What a method is asked to learn. */
export interface Task {
  /** The model. */
  readonly model: Model;
  /** How many classes there are. */
  readonly classes: number;
  /**
   * The prompts of all classes; `{}` in `template` stands for the class's name. The caller releases
   * them.
   */
  prompts(template: string): Prompts;
}

/** Tensors that train alike. */
export interface TrainableGroup {
  /** What the group is called. */
  readonly name: string;
  /** The tensors. */
  readonly parameters: readonly Tensor[];
  /**
   * How many equal tensors each one stands for, as their sum; 1 for most. The sum moves as far as
   * it would if each of them moved by itself.
   */
  readonly copies: number;
}

/** What learns. It holds the tensors that train, and sits in the model until it is released. */
export interface Learner {
  /** The configuration that was asked for. */
  readonly config: MethodConfig;
  /** The tensors that train, in the optimizer's order. */
  readonly groups: readonly TrainableGroup[];

  /**
   * Whether a tower's features change as it learns. If not, they are computed only once, and what
   * the method does to them belongs in {@linkcode logits}.
   */
  changes(tower: "vision" | "text"): boolean;
  /** Its hooks into the towers, while it learns and afterwards; absent if it has none. */
  hooks?(): Pass["hooks"];
  /**
   * What it adds to all passes of one training step, computed from the tensors that train. The
   * result belongs to the caller's scope.
   */
  pass(): Pick<Pass, "shared">;
  /**
   * Scores of image features `[B, E]` for text features `[K, E]`: `[B, K]`. If absent, the scores
   * are those of `rule`, the model's rule.
   */
  logits?(
    images: Tensor,
    texts: Tensor,
    rule: (images: Tensor, texts: Tensor) => Tensor,
  ): Tensor;
  /** The loss of some images, summed over them. If absent, it is their cross-entropy. */
  loss?(batch: LearnerBatch): Tensor;
  /** Called when every training image has been seen once more. */
  endEpoch?(epoch: number): void;

  /**
   * Folds what was learned into the weights of the model, so that inference costs no more than
   * before.
   *
   * @throws {Error} If what was learned cannot be folded into weights.
   */
  merge(): void;
  /** Takes what was learned out of the weights again; they come back bit for bit. */
  unmerge(): void;
  /** Takes it out of the model, and releases its tensors. */
  release(): void;
}

/** A batch of images in a step: features, scores and labels. */
export interface LearnerBatch {
  /** Features of the images, `[B, E]`. */
  readonly images: Tensor;
  /** Features of the classes, `[K, E]`. */
  readonly texts: Tensor;
  /** Scores, `[B, K]`. */
  readonly logits: Tensor;
  /** The column of each image's class, `[B]`. */
  readonly labels: Tensor;
}

/** A model, and its name in files. */
export interface NamedModel {
  /** Its name. */
  readonly name: string;
  /** Its revision on the hub, if it is from there. */
  readonly revision?: string;
  /** The model. */
  readonly model: Model;
}

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
   * `"octograd"` (default) stores every block, `extra`, and what tells the model from all other
   * models. `"peft"` is the format that every release of PEFT reads: Block-LoRA becomes the LoRA of
   * rank r/n that it equals.
   */
  readonly format?: "octograd" | "peft";
  /** What to store beside the adapters. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** What was read from files. */
export interface Loaded {
  /** What was learned. */
  readonly learner: Learner;
  /** The {@linkcode SaveOptions.extra} that was saved beside it. */
  readonly extra: Record<string, unknown>;
}
