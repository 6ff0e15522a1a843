/**
 * What methods are compared with: nothing of the model trains, and nothing is left but a result.
 *
 * @module
 */

/** A baseline. */
export interface Baseline {
  /** What commands and files call it. */
  readonly name: string;
  /** What reports call it. */
  readonly label: string;
  /** Whether it learns from the shots, so that it has a result for each number of them and seed. */
  readonly learns: boolean;
  /** What decides its numbers beside the model and what it learned from. */
  settings(settings: { readonly template: string; readonly logitScale: number }): Readonly<
    Record<string, unknown>
  >;
  /** Predicts the class of every test image. */
  predict(given: BaselineTask): Promise<BaselineResult>;
}

/** What a baseline is given; what it does not ask for is not computed. */
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

/** What was predicted of test images. */
export interface TestPredictions {
  /** How much of it is right, 0 to 1. */
  readonly accuracy: number;
  /** The class of each image. */
  readonly labels: readonly number[];
  /** What was predicted of it. */
  readonly predictions: readonly number[];
  /** Its file. */
  readonly paths: readonly string[];
}

/** What came of a baseline. */
export interface BaselineResult {
  /** What it predicted. */
  readonly score: TestPredictions;
  /** The objective at each step, in nats, of one that learns. */
  readonly losses: readonly number[];
  /** How many numbers were trained. */
  readonly parameters: number;
}

/** Features of images, on the host. */
export interface Features {
  /** One row an image, `[n, width]`. */
  readonly values: Float32Array<ArrayBuffer>;
  /** The class of each image. */
  readonly labels: readonly number[];
  /** Elements of a row. */
  readonly width: number;
}
