/** The content of a `result.json`, for tests of what reads it. */

import type { RunResult } from "../blocklora/training/result.ts";

/** A class name that is markup. */
export const NASTY = '<b>&"';

/** A run as a sweep leaves it, of two classes and four images. */
export function runOf(given: Partial<RunResult>): RunResult {
  return {
    format: 1,
    version: "0.1.0",
    device: "a device",
    model: "a model",
    data: "two things",
    classes: [NASTY, "plain"],
    template: "a photo of a {}.",
    method: "lora",
    rank: 2,
    blocks: 1,
    shots: 1,
    seed: 1,
    iterations: 3,
    trainableParameters: 100,
    accuracy: 50,
    zeroShotAccuracy: 25,
    losses: [[0, 3], [1, 2], [2, 1]],
    peakGpuBytes: 6e6,
    peakBytesByOwner: {
      frozenWeights: 1e6,
      adapterWeights: 1e6,
      gradients: 1e6,
      optimizerState: 1e6,
      savedActivations: 1e6,
      workspace: 1e6,
    },
    labels: [0, 0, 1, 1],
    predictions: [0, 1, 1, 1],
    images: ["test/bag/a.png", "test/bag/b.png", "test/bag/c.png", "test/bag/d.png"],
    settings: { learningRate: 1 },
    ...given,
  };
}
