/**
 * Batches of images, which workers read, decode and augment while the GPU is busy. Waiting for the
 * GPU blocks the main thread, so the main thread requests several batches ahead.
 *
 * @module
 */

import type { PreprocessConfig } from "../../clip/config.ts";
import { Random } from "../../tensor/random.ts";
import type { Sample } from "./dataset.ts";
import { ImageError } from "./decode.ts";
import { LoaderPool } from "./loader_pool.ts";
import type { Augmentation, Reply, Request } from "./loader_worker.ts";

/** A batch of images, ready for the vision tower. */
export interface Batch {
  /** Normalized pixels, `[n, 3, S, S]`. */
  readonly pixels: Float32Array<ArrayBuffer>;
  /** The class of each image, `[n]`. */
  readonly labels: Int32Array<ArrayBuffer>;
  /** Files that were left out because they could not be read. Each is reported once. */
  readonly skipped: readonly string[];
  /** Whether it is the last batch of its epoch, in which every image is used once. */
  readonly endsEpoch: boolean;
}

/** How images are loaded. */
export interface LoaderOptions {
  /** How many threads decode images. Default: one per core, at most 4. */
  readonly workers?: number;
  /** Bytes of decoded training images that all workers together may cache. Default 256 MiB. */
  readonly cacheBytes?: number;
  /** Whether an image that cannot be read is an error or is left out. Default `"fail"`. */
  readonly onError?: "fail" | "skip";
}

/** How training batches are drawn. */
export interface TrainingOptions {
  /** Images per batch. The last batch of an epoch may have fewer. */
  readonly batchSize: number;
  /** How many batches to draw. */
  readonly iterations: number;
  /** Seed of the order, the crops and the flips. */
  readonly seed: number;
  /** The number of the first batch that is needed; those before it are not read. Default 0. */
  readonly from?: number;
  /**
   * The smallest and largest fraction of the image area that a random crop covers. Default 0.08 to
   * 1.
   */
  readonly scale?: readonly [number, number];
  /** The smallest and largest aspect ratio of a random crop. Default 3/4 to 4/3. */
  readonly ratio?: readonly [number, number];
  /** Whether images are mirrored with probability 1/2. Default true. */
  readonly flip?: boolean;
}

/** How many batches are requested ahead of the one in use. */
const AHEAD = 3;

/** Describes a batch to be made: the samples, and how they are processed. */
interface BatchSpec {
  readonly indices: readonly number[];
  readonly work: Request["work"];
  readonly endsEpoch: boolean;
}

/**
 * Loads images in workers. They start with the first batch. They end after the last batch, after a
 * generator's `return()`, or with {@linkcode ImageLoader.close}.
 *
 * @example
 * ```ts ignore
 * await using loader = new ImageLoader(config);
 * for await (const { pixels, labels } of loader.evaluation(dataset.test, 32)) {
 *   score(pixels, labels);
 * }
 * ```
 */
export class ImageLoader implements AsyncDisposable {
  readonly #config: PreprocessConfig;
  readonly #count: number;
  readonly #cacheBytes: number;
  readonly #skip: boolean;
  #pool: LoaderPool | undefined;

  /**
   * Makes a loader for the image size, mean and standard deviation of a model.
   *
   * @throws {RangeError} If `workers` is not an integer above 0.
   */
  constructor(config: PreprocessConfig, options: LoaderOptions = {}) {
    const { workers = Math.min(4, navigator.hardwareConcurrency), cacheBytes = 2 ** 28 } = options;
    if (!Number.isInteger(workers) || workers < 1) {
      throw new RangeError(`Cannot load images with ${workers} workers: 1 or more are needed`);
    }
    this.#config = config;
    this.#count = workers;
    this.#cacheBytes = cacheBytes / workers;
    this.#skip = options.onError === "skip";
  }

  /**
   * All samples in order, prepared as the model expects. The last batch may be smaller. Images that
   * are left out are missing from their batch, which may therefore be empty.
   *
   * @throws {ImageError} If an image cannot be read and `onError` is `"fail"`.
   */
  evaluation(samples: readonly Sample[], batchSize: number): AsyncGenerator<Batch, void> {
    assertCount(batchSize);
    const indices = [...samples.keys()];
    return this.#batches(samples, function* () {
      for (let at = 0; at < indices.length; at += batchSize) {
        const endsEpoch = at + batchSize >= indices.length;
        yield { indices: indices.slice(at, at + batchSize), work: "evaluate", endsEpoch };
      }
    });
  }

  /**
   * Shuffled epochs of samples, cropped and mirrored at random, like torch's
   * `DataLoader(shuffle=True)` with torchvision's `RandomResizedCrop` and `RandomHorizontalFlip`.
   * The last batch of an epoch has the remaining images. The images of a batch and their pixels
   * depend only on the seed and the number of the batch. Images to be left out are found before the
   * first batch, which reports them in `skipped`.
   *
   * @throws {ImageError} If an image cannot be read and `onError` is `"fail"`, or if no image can
   * be read.
   */
  training(samples: readonly Sample[], options: TrainingOptions): AsyncGenerator<Batch, void> {
    const { batchSize, iterations, seed, from = 0, scale, ratio, flip = true } = options;
    assertCount(batchSize);
    if (samples.length === 0) throw new RangeError("Cannot train: there are no images");
    const random = new Random(seed, "order");
    return this.#batches(samples, function* (readable) {
      for (let epoch = 0, batch = 0; batch < iterations; epoch++) {
        const order = random.fork(epoch).shuffle(readable);
        for (let at = 0; at < order.length && batch < iterations; at += batchSize, batch++) {
          if (batch < from) continue;
          const indices = order.slice(at, at + batchSize);
          const work: Augmentation = { seed, batch, scale, ratio, flip };
          yield { indices, work, endsEpoch: at + batchSize >= order.length };
        }
      }
    }, this.#skip);
  }

  /**
   * Stops the workers, each after its current image. Batches that are still awaited fail at once.
   */
  async close(): Promise<void> {
    const pool = this.#pool;
    this.#pool = undefined;
    await pool?.close();
  }

  /** Calls {@linkcode ImageLoader.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async *#batches(
    samples: readonly Sample[],
    specsOf: (readable: readonly number[]) => Iterable<BatchSpec>,
    check = false,
  ): AsyncGenerator<Batch, void> {
    const pool = this.#pool ??= new LoaderPool(this.#count);
    pool.users++;
    try {
      let skipped: string[] = [];
      let readable = [...samples.keys()];
      if (check) {
        const reasons = await this.#check(pool, samples);
        readable = readable.filter((index) => reasons[index] === null);
        skipped = samples.filter((_, index) => reasons[index] !== null).map(({ path }) => path);
        if (readable.length === 0) {
          throw new ImageError(samples[0].path, `${reasons[0]}, nor can any other`);
        }
      }
      const specs = specsOf(readable)[Symbol.iterator]();
      const queue: Promise<Batch>[] = [];
      const ask = () => {
        for (let next; queue.length < AHEAD && !(next = specs.next()).done;) {
          const batch = this.#load(pool, samples, next.value);
          batch.catch(() => {}); // reported when the batch is awaited
          queue.push(batch);
        }
      };
      ask();
      for (let next; (next = queue.shift());) {
        const batch = await next;
        ask();
        yield { ...batch, skipped: [...skipped, ...batch.skipped] };
        skipped = [];
      }
    } finally {
      if (--pool.users === 0) {
        if (this.#pool === pool) this.#pool = undefined;
        await pool.close();
      }
    }
  }

  /**
   * For each sample, why it cannot be read, or null if it can. The images that are decoded here go
   * into the cache, where training finds them.
   */
  async #check(pool: LoaderPool, samples: readonly Sample[]): Promise<(string | null)[]> {
    const reasons = new Array<string | null>(samples.length);
    await this.#distribute(
      pool,
      samples,
      { indices: [...samples.keys()], work: "check" },
      (reply, positions) => {
        for (const [i, position] of positions.entries()) reasons[position] = reply.reasons[i];
      },
    );
    return reasons;
  }

  async #load(pool: LoaderPool, samples: readonly Sample[], spec: BatchSpec): Promise<Batch> {
    const size = 3 * this.#config.crop ** 2;
    const images = new Array<Float32Array<ArrayBuffer> | string>(spec.indices.length);
    await this.#distribute(pool, samples, spec, ({ pixels, reasons }, positions) => {
      let made = 0;
      for (const [i, position] of positions.entries()) {
        images[position] = reasons[i] ?? pixels.subarray(made * size, ++made * size);
      }
    });
    const skipped: string[] = [];
    const labels: number[] = [];
    const pixels: Float32Array<ArrayBuffer>[] = [];
    for (const [position, image] of images.entries()) {
      const { path, label } = samples[spec.indices[position]];
      if (typeof image !== "string") {
        labels.push(label);
        pixels.push(image);
      } else if (this.#skip && spec.work === "evaluate") skipped.push(path);
      else throw new ImageError(path, image);
    }
    const batch = new Float32Array(labels.length * size);
    for (const [i, image] of pixels.entries()) batch.set(image, i * size);
    const { endsEpoch } = spec;
    return { pixels: batch, labels: Int32Array.from(labels), skipped, endsEpoch };
  }

  /**
   * Sends each image to a worker. An image always goes to the same worker, so that it is cached
   * only once.
   */
  async #distribute(
    pool: LoaderPool,
    samples: readonly Sample[],
    { indices, work }: Pick<BatchSpec, "indices" | "work">,
    receive: (reply: Reply, positions: readonly number[]) => void,
  ): Promise<void> {
    const shares = Array.from({ length: this.#count }, (): number[] => []);
    for (const [position, index] of indices.entries()) shares[index % this.#count].push(position);
    const asked = shares.map(async (positions, worker) => {
      if (positions.length === 0) return;
      const images = positions.map((position) => ({
        path: samples[indices[position]].path,
        position,
      }));
      const [config, cacheBytes] = [this.#config, this.#cacheBytes];
      receive(await pool.ask(worker, { config, cacheBytes, work, images }), positions);
    });
    await Promise.all(asked);
  }
}

function assertCount(batchSize: number): void {
  if (Number.isInteger(batchSize) && batchSize > 0) return;
  throw new RangeError(`Cannot make batches of ${batchSize} images: 1 or more are needed`);
}
