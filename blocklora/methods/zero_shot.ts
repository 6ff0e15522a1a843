/**
 * The zero-shot baseline: the model as it is.
 *
 * @module
 */

import type { Baseline } from "./baseline.ts";

/** Zero-shot classification (Radford et al., arXiv 2103.00020, section 3.1). */
export const zeroShot: Baseline = {
  name: "zero-shot",
  label: "zero-shot",
  learns: false,
  settings: ({ template, logitScale }) => ({ template, logitScale }),
  predict: async ({ zeroShot }) => ({ score: await zeroShot(), losses: [], parameters: 0 }),
};
