/**
 * Baselines that methods are compared with. They train nothing of the model, and leave only a
 * result.
 *
 * @module
 */

/** A baseline. */
export interface Baseline {
  /** What commands and files call it. */
  readonly name: string;
  /** What reports call it. */
  readonly label: string;
  /**
   * Whether it learns from the shots, and so has a result for each number of shots and each seed.
   */
  readonly learns: boolean;
  /** What its result depends on, besides the model and the images. */
  settings(settings: { readonly template: string; readonly logitScale: number }): Readonly<
    Record<string, unknown>
  >;
  /** Predicts the class of every test image. */
  predict(given: BaselineTask): Promise<BaselineResult>;
}

/** What a baseline can ask for. What it does not ask for is not computed. */
export interface BaselineTask {
  /** How many classes there are. */
  readonly classes: number;
  /** Predictions of the model as it is. */
  zeroShot(): Promise<TestPredictions>;
  /** Features of the shots. */
  trainFeatures(): Promise<Features>;
  /** Features of the test images. */
  testFeatures(): Promise<Features & { readonly paths: readonly string[] }>;
}

/** Predictions for test images. */
export interface TestPredictions {
  /** The share of the predictions that are right, 0 to 1. */
  readonly accuracy: number;
  /** The true class of each image. */
  readonly labels: readonly number[];
  /** The predicted class of each image. */
  readonly predictions: readonly number[];
  /** The file of each image. */
  readonly paths: readonly string[];
}

/** The result of a baseline. */
export interface BaselineResult {
  /** Its predictions. */
  readonly score: TestPredictions;
  /** The objective at each step, in nats; empty if the baseline does not learn. */
  readonly losses: readonly number[];
  /** How many numbers were trained. */
  readonly parameters: number;
}

/** Features of images, on the host. */
export interface Features {
  /** One row for each image, `[n, width]`. */
  readonly values: Float32Array<ArrayBuffer>;
  /** The true class of each image. */
  readonly labels: readonly number[];
  /** Number of elements in a row. */
  readonly width: number;
}
