/**
 * What tells a run from every other: the contents of what it reads, wherever that lies and whatever
 * it is called.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { relative, sep } from "node:path";
import type { Dataset, Sample } from "../data/dataset.ts";

/** Hashes of all that decides the numbers of a run besides its settings. */
export interface Identity {
  /** Of the model, {@linkcode OpenedModel.fingerprint}. */
  readonly model: string;
  /**
   * Of the images that it was trained on, in order, with their labels; null where nothing is
   * trained.
   */
  readonly train: string | null;
  /** Of the images that it was tested on, likewise, and of the names of all classes. */
  readonly test: string;
}

/** Hashes the images of a data set; each file is read once. */
export class ImageHashes {
  readonly #dataset: Dataset;
  readonly #known: Map<string, string> = new Map();

  /** Reads nothing yet. */
  constructor(dataset: Dataset) {
    this.#dataset = dataset;
  }

  /**
   * What tells images, their order and their classes from all other images. One that cannot be read
   * is like no other that can.
   */
  async of(samples: readonly Sample[]): Promise<string> {
    const { root, classes } = this.#dataset;
    const digest = createHash("sha256").update(JSON.stringify(classes));
    for (const { path, label } of samples) {
      const name = relative(root, path).replaceAll(sep, "/");
      digest.update(JSON.stringify([name, label, await this.#hashOf(path)]));
    }
    return digest.digest("hex").slice(0, 32);
  }

  async #hashOf(path: string): Promise<string> {
    const known = this.#known.get(path);
    if (known !== undefined) return known;
    const content = await Deno.readFile(path).catch(() => null);
    const hash = content ? createHash("sha256").update(content).digest("hex") : "unreadable";
    this.#known.set(path, hash);
    return hash;
  }
}
