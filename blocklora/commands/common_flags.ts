/**
 * Flags that several commands share.
 *
 * @module
 */

import { number, oneOf, toggle } from "../system/flag.ts";

/** Flags of every command that reads images. */
export const IMAGE_FLAGS = {
  batchSize: number({ from: 1, integer: true }, "images a batch", 32),
  workers: number<number | undefined>(
    { from: 1, integer: true },
    "threads that decode images",
    undefined,
  ),
  onError: oneOf(["fail", "skip"], "what a broken image does", "fail"),
};

/** Flags of every command. */
export const COMMON_FLAGS = {
  json: toggle("print one JSON document on stdout, everything else on stderr"),
  help: toggle("print this help"),
};
