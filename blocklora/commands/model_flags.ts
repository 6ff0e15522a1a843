/**
 * Flags of every command that opens a model.
 *
 * @module
 */

import type { PrecisionChoice } from "../../clip/weights.ts";
import { oneOf, text, toggle } from "../system/flag.ts";

/** Flags of every command that opens a model. */
export const MODEL_FLAGS = {
  model: text<string | undefined>(
    "DIR|FILE|ID",
    "CLIP model; the embedded one, or the adapter's, if not given",
    undefined,
  ),
  revision: text<string | undefined>("NAME", "branch, tag or commit of a hub model", undefined),
  offline: toggle("use only what is in the hub's cache"),
  tokenizer: text<string | undefined>(
    "DIR",
    "where the tokenizer is, if not beside the model",
    undefined,
  ),
  precision: oneOf<PrecisionChoice>(
    ["auto", "f32", "f16"],
    "how the frozen matrices are stored on the GPU; auto is as in the model's files",
    "auto",
  ),
};
