/**
 * What a few-shot method is: all that commands, sweeps, reports, costs and checkpoints need of one.
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

/** What a method was asked to do, as files keep it. */
export interface MethodConfig {
  /** The method's name. */
  readonly method: string;
  /** The nominal rank, of a method that has one. */
  readonly rank?: number | null;
  /** In how many blocks the rank is cut, of a method that does it. */
  readonly blocks?: number | null;
}

/** A few-shot method. Its methods are given the configurations that it made itself. */
export interface Method<Config extends MethodConfig = MethodConfig> {
  /** What commands and files call it. */
  readonly name: string;
  /** The flags that it reads, with its presets; two methods may share a flag. */
  readonly flags: Flags;
  /** What it was published with, where that is not CLIP-LoRA's recipe. */
  readonly recipe?: Partial<Recipe>;
  /** What the embedded model takes, where that is not the embedded model's recipe. */
  readonly embeddedRecipe?: Partial<Recipe>;

  /** The configuration that the values of its flags ask for. */
  configOf(values: FlagValues): Config;
  /** What reports call it: `Block-LoRA (8, 4)`. */
  label(config: MethodConfig): string;
  /** What tells its configurations apart in the names of runs: `r8-n4`. */
  variant(config: Config): string;
  /** The values of the flags that a variant stands for; null if it is none. */
  valuesOf(variant: string): FlagValues | null;

  /**
   * How many numbers train.
   *
   * @throws {RangeError} As {@linkcode learner}.
   */
  countParameters(task: Task, config: Config): number;
  /**
   * Makes what learns, from a seed, and puts it into the model.
   *
   * @throws {RangeError} If the configuration does not fit the model.
   */
  learner(task: Task, config: Config, seed: number): Learner;

  /** What it writes of what was learned. */
  save(learner: Learner, named: NamedModel, options: SaveOptions): Promise<SavedAdapters>;
  /** Whether a parsed `adapter_config.json` is of this method. */
  reads(config: Readonly<Record<string, unknown>>): boolean;
  /**
   * Reads what was learned, and puts it into the model.
   *
   * @throws {RangeError} If it does not fit; the model is then as it was.
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
   * The prompts of all classes by a template, `{}` for the name; they are the caller's to release.
   */
  prompts(template: string): Prompts;
}

/** Tensors that train alike. */
export interface TrainableGroup {
  /** What the group is called. */
  readonly name: string;
  /** What trains. */
  readonly parameters: readonly Tensor[];
  /**
   * How many equal tensors each stands for: their sum moves by as much as if each moved by itself.
   * 1 for most.
   */
  readonly copies: number;
}

/** What learns. It owns what trains, and sits in the model until it is released. */
export interface Learner {
  /** What was asked for. */
  readonly config: MethodConfig;
  /** What trains, in the order of the optimizer. */
  readonly groups: readonly TrainableGroup[];

  /**
   * Whether what a tower gives changes as it learns. Of a tower that does not change the features
   * are computed once; what is made of them then belongs into {@linkcode logits}.
   */
  changes(tower: "vision" | "text"): boolean;
  /** What it does within the towers, while it learns and afterwards; nothing if it has none. */
  hooks?(): Pass["hooks"];
  /**
   * What it adds to all passes of one step of training, made of what trains: its tensors belong to
   * the caller's scope.
   */
  pass(): Pick<Pass, "shared">;
  /**
   * Scores of features, `[B, E]` and `[K, E]` → `[B, K]`; what the `rule` of the model makes of
   * them, if it has none.
   */
  logits?(
    images: Tensor,
    texts: Tensor,
    rule: (images: Tensor, texts: Tensor) => Tensor,
  ): Tensor;
  /** The loss of some images, summed over them; their cross entropy if it has none. */
  loss?(batch: LearnerBatch): Tensor;
  /** What happens when every training image has been seen once more. */
  endEpoch?(epoch: number): void;

  /**
   * Folds what was learned into the weights of the model, so that inference costs what it cost
   * before.
   *
   * @throws {Error} If the method has no such form.
   */
  merge(): void;
  /** Takes it out again; the weights come back bit for bit. */
  unmerge(): void;
  /** Takes it out of the model, and gives its tensors back. */
  release(): void;
}

/** Images of a step, and what the towers made of them. */
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

/** A model, and what files shall call it. */
export interface NamedModel {
  /** Its name. */
  readonly name: string;
  /** Its revision on the hub, if it is there. */
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
   * `"octograd"` (default) keeps every block, `extra`, and what tells the model from all other
   * models. `"peft"` is what every release of PEFT reads: Block-LoRA becomes the rank r/n LoRA that
   * it equals.
   */
  readonly format?: "octograd" | "peft";
  /** What to keep beside the adapters. */
  readonly extra?: Readonly<Record<string, unknown>>;
}

/** What was read. */
export interface Loaded {
  /** What was learned. */
  readonly learner: Learner;
  /** What {@linkcode SaveOptions.extra} put beside it. */
  readonly extra: Record<string, unknown>;
}
