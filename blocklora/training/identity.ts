/**
 * Identifies a run by the contents of the model and images that it reads, regardless of where they
 * are stored and what they are called.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { relative, sep } from "node:path";
import { readBytes } from "../system/files.ts";
import type { Dataset, Sample } from "../data/dataset.ts";

/** Hashes of everything that determines the numbers of a run, besides its configuration. */
export interface Identity {
  /** Hash of the model: {@linkcode OpenedModel.fingerprint}. */
  readonly model: string;
  /** Hash of the training images in order, with their labels; null if nothing is trained. */
  readonly train: string | null;
  /** Hash of the test images in order, with their labels and the names of all classes. */
  readonly test: string;
}

/** Stands for the hash of a file that cannot be read. */
const UNREADABLE = "unreadable";

/** Hashes the images of a data set. Each file is read only once. */
export class ImageHashes {
  readonly #dataset: Dataset;
  readonly #signal: AbortSignal | undefined;
  readonly #known: Map<string, string> = new Map();

  /** Reads nothing yet. Once `signal` is aborted, reading throws its reason. */
  constructor(dataset: Dataset, signal?: AbortSignal) {
    this.#dataset = dataset;
    this.#signal = signal;
  }

  /**
   * A hash of `samples`, their order, their labels and the names of all classes. An image that
   * cannot be read never equals one that can.
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

  /** The images of `samples` whose files are byte for byte equal to one of `references`. */
  async shared(samples: readonly Sample[], references: readonly Sample[]): Promise<Sample[]> {
    const hashes = new Set<string>();
    for (const { path } of references) hashes.add(await this.#hashOf(path));
    hashes.delete(UNREADABLE);
    const found: Sample[] = [];
    for (const sample of samples) {
      if (hashes.has(await this.#hashOf(sample.path))) found.push(sample);
    }
    return found;
  }

  async #hashOf(path: string): Promise<string> {
    this.#signal?.throwIfAborted();
    const known = this.#known.get(path);
    if (known !== undefined) return known;
    const content = await readBytes(path).catch(() => null);
    const hash = content ? createHash("sha256").update(content).digest("hex") : UNREADABLE;
    this.#known.set(path, hash);
    return hash;
  }
}
