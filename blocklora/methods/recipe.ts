/**
 * The hyperparameters of training. A method may have been published with different values.
 *
 * @module
 */

/** How adapters are trained. */
export interface Recipe {
  /** AdamW's learning rate at the first step. */
  readonly learningRate: number;
  /** The learning rate at the last step, at the end of half a cosine. */
  readonly minimumRate: number;
  /** AdamW's decoupled weight decay. */
  readonly weightDecay: number;
  /** AdamW's decay rates of the two moments. */
  readonly betas: readonly [number, number];
  /** How many steps there are. */
  readonly iterations: number;
  /** The factor that turns cosines into logits. */
  readonly logitScale: number;
  /** Share of each label spread over all classes. */
  readonly labelSmoothing: number;
  /** Largest norm of all gradients together; 0 for no limit. */
  readonly maxNorm: number;
  /** Seed of the dropout masks. */
  readonly seed: number;
}

/**
 * CLIP-LoRA's recipe, for one shot (`run_utils.py` and `lora.py` of
 * github.com/MaxZanella/CLIP-LoRA).
 */
export const DEFAULT_RECIPE: Recipe = {
  learningRate: 2e-4,
  minimumRate: 1e-6,
  weightDecay: 1e-2,
  betas: [0.9, 0.999],
  iterations: 500,
  logitScale: 100,
  labelSmoothing: 0,
  maxNorm: 0,
  seed: 1,
};
