/**
 * Batches of images, read, decoded and augmented by workers while the GPU is at work: waiting for it blocks the main
 * thread, which therefore asks some batches ahead.
 *
 * @module
 */

import type { PreprocessConfig } from "../../clip/config.ts";
import { Random } from "../../tensor/random.ts";
import type { Sample } from "./dataset.ts";
import { ImageError } from "./decode.ts";
import type { Augmentation, Reply, Request, STOP } from "./loader_worker.ts";

/** Images, ready for the vision tower. */
export interface Batch {
  /** Normalized pixels, `[n, 3, S, S]`. */
  readonly pixels: Float32Array<ArrayBuffer>;
  /** The class of each image, `[n]`. */
  readonly labels: Int32Array<ArrayBuffer>;
  /** Files that were left out because they could not be read, each named once. */
  readonly skipped: readonly string[];
}

/** How images are loaded. */
export interface LoaderOptions {
  /** Threads that decode. Default: one for each core, 4 at most. */
  readonly workers?: number;
  /** Bytes of decoded training images that are kept, by all workers together. Default 256 MiB. */
  readonly cacheBytes?: number;
  /** What an image that cannot be read does: fail, or be left out. Default `"fail"`. */
  readonly onError?: "fail" | "skip";
}

/** How training batches are drawn. */
export interface TrainingOptions {
  /** Images in a batch; fewer at the end of an epoch. */
  readonly batchSize: number;
  /** How many batches. */
  readonly iterations: number;
  /** Seed of the order, the crops and the flips. */
  readonly seed: number;
  /** Least and largest share of the area that a random crop keeps. Default 0.08 to 1. */
  readonly scale?: readonly [number, number];
  /** Least and largest aspect ratio of a random crop. Default 3/4 to 4/3. */
  readonly ratio?: readonly [number, number];
  /** Whether half of the images are mirrored. Default true. */
  readonly flip?: boolean;
}

/** Batches asked for ahead of the one in use. */
const AHEAD = 3;

/** A batch to be made: which samples, and what becomes of them. */
interface Plan {
  readonly indices: readonly number[];
  readonly work: Request["work"];
}

/**
 * Loads images in workers, which start with the first batch and end with the last, with a generator's `return()`, or
 * with {@linkcode ImageLoader.close}.
 *
 * @example
 * ```ts ignore
 * await using loader = new ImageLoader(config);
 * for await (const { pixels, labels } of loader.evaluation(dataset.test, 32)) score(pixels, labels);
 * ```
 */
export class ImageLoader implements AsyncDisposable {
  readonly #config: PreprocessConfig;
  readonly #count: number;
  readonly #cacheBytes: number;
  readonly #skip: boolean;
  #pool: Pool | undefined;

  /**
   * A loader for a model's image size, mean and deviation.
   *
   * @throws {RangeError} If `workers` is not a whole number above 0.
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
   * All samples in order, as the model's preprocessing has them; the last batch may be smaller. Where images are left
   * out a batch has fewer, or none.
   *
   * @throws {ImageError} If an image cannot be read and is not to be left out.
   */
  evaluation(samples: readonly Sample[], batchSize: number): AsyncGenerator<Batch, void> {
    assertCount(batchSize);
    const indices = [...samples.keys()];
    return this.#batches(samples, function* () {
      for (let at = 0; at < indices.length; at += batchSize) {
        yield { indices: indices.slice(at, at + batchSize), work: "evaluate" };
      }
    });
  }

  /**
   * Shuffled epochs of samples, cropped and mirrored at random, as torch's `DataLoader(shuffle=True)` with
   * torchvision's `RandomResizedCrop` and `RandomHorizontalFlip` gives them: the last batch of an epoch has what is
   * left of it. Which images a batch has, and their pixels, depend on the seed and the batch's number alone. Images to
   * be left out are found before the first batch, which names them.
   *
   * @throws {ImageError} If an image cannot be read and is not to be left out, or none can be read.
   */
  training(samples: readonly Sample[], options: TrainingOptions): AsyncGenerator<Batch, void> {
    const { batchSize, iterations, seed, scale, ratio, flip = true } = options;
    assertCount(batchSize);
    if (samples.length === 0) throw new RangeError("Cannot train: there are no images");
    const random = new Random(seed, "order");
    return this.#batches(samples, function* (readable) {
      for (let epoch = 0, batch = 0; batch < iterations; epoch++) {
        const order = random.fork(epoch).shuffle(readable);
        for (let at = 0; at < order.length && batch < iterations; at += batchSize, batch++) {
          const indices = order.slice(at, at + batchSize);
          yield { indices, work: { seed, batch, scale, ratio, flip } satisfies Augmentation };
        }
      }
    }, this.#skip);
  }

  /** Ends the workers, each after the image it is at. A batch that somebody waits for fails at once. */
  async close(): Promise<void> {
    const pool = this.#pool;
    this.#pool = undefined;
    await pool?.close();
  }

  /** The same as {@linkcode ImageLoader.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async *#batches(
    samples: readonly Sample[],
    plan: (readable: readonly number[]) => Iterable<Plan>,
    check = false,
  ): AsyncGenerator<Batch, void> {
    const pool = this.#pool ??= new Pool(this.#count);
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
      const plans = plan(readable)[Symbol.iterator]();
      const queue: Promise<Batch>[] = [];
      const ask = () => {
        for (let next; queue.length < AHEAD && !(next = plans.next()).done;) {
          const batch = this.#load(pool, samples, next.value);
          batch.catch(() => {}); // until somebody waits for it
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

  /** Why each of the samples cannot be read; null where it can. What is decoded here, training finds in the cache. */
  async #check(pool: Pool, samples: readonly Sample[]): Promise<(string | null)[]> {
    const reasons = new Array<string | null>(samples.length);
    await this.#distribute(
      pool,
      samples,
      { indices: [...samples.keys()], work: "check" },
      (reply, places) => {
        for (const [i, place] of places.entries()) reasons[place] = reply.reasons[i];
      },
    );
    return reasons;
  }

  async #load(pool: Pool, samples: readonly Sample[], plan: Plan): Promise<Batch> {
    const size = 3 * this.#config.crop ** 2;
    const images = new Array<Float32Array<ArrayBuffer> | string>(plan.indices.length);
    await this.#distribute(pool, samples, plan, ({ pixels, reasons }, places) => {
      let made = 0;
      for (const [i, place] of places.entries()) {
        images[place] = reasons[i] ?? pixels.subarray(made * size, ++made * size);
      }
    });
    const skipped: string[] = [];
    const labels: number[] = [];
    const pixels: Float32Array<ArrayBuffer>[] = [];
    for (const [place, image] of images.entries()) {
      const { path, label } = samples[plan.indices[place]];
      if (typeof image !== "string") {
        labels.push(label);
        pixels.push(image);
      } else if (this.#skip && plan.work === "evaluate") skipped.push(path);
      else throw new ImageError(path, image);
    }
    const batch = new Float32Array(labels.length * size);
    for (const [i, image] of pixels.entries()) batch.set(image, i * size);
    return { pixels: batch, labels: Int32Array.from(labels), skipped };
  }

  /** Sends each image of a plan to its worker: always the same one, so that no two keep the same image. */
  async #distribute(
    pool: Pool,
    samples: readonly Sample[],
    { indices, work }: Plan,
    receive: (reply: Reply, places: readonly number[]) => void,
  ): Promise<void> {
    const shares = Array.from({ length: this.#count }, (): number[] => []);
    for (const [place, index] of indices.entries()) shares[index % this.#count].push(place);
    const asked = shares.map(async (places, worker) => {
      if (places.length === 0) return;
      const images = places.map((place) => ({ path: samples[indices[place]].path, place }));
      const [config, cacheBytes] = [this.#config, this.#cacheBytes];
      receive(await pool.ask(worker, { config, cacheBytes, work, images }), places);
    });
    await Promise.all(asked);
  }
}

/** A worker, and a promise that it has come to rest. */
interface Thread {
  readonly worker: Worker;
  readonly rest: Promise<void>;
}

/** Workers, each started when it is first asked. */
class Pool {
  users = 0;
  readonly #threads: (Thread | undefined)[];
  readonly #waiting = new Map<number, PromiseWithResolvers<Reply>>();
  #nextId = 0;
  #failure: Error | undefined;

  constructor(count: number) {
    this.#threads = new Array(count);
  }

  ask(thread: number, request: Omit<Request, "id">): Promise<Reply> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = this.#nextId++;
    const answer = Promise.withResolvers<Reply>();
    this.#waiting.set(id, answer);
    (this.#threads[thread] ??= this.#start()).worker.postMessage({ ...request, id });
    return answer.promise;
  }

  async close(): Promise<void> {
    this.#fail(new Error("Cannot go on loading images: the loader has been closed"));
    const stop: typeof STOP = "stop";
    await Promise.all(this.#threads.map(async (thread) => {
      if (!thread) return;
      thread.worker.postMessage(stop);
      await thread.rest;
      thread.worker.terminate();
    }));
  }

  #start(): Thread {
    const worker = new Worker(new URL("./loader_worker.ts", import.meta.url), { type: "module" });
    const { promise: rest, resolve } = Promise.withResolvers<void>();
    worker.onmessage = ({ data }: MessageEvent<Reply | typeof STOP>) => {
      if (data === "stop") return resolve();
      this.#waiting.get(data.id)?.resolve(data);
      this.#waiting.delete(data.id);
    };
    worker.onerror = (event) => {
      event.preventDefault(); // it reaches the caller instead
      this.#fail(new Error(`Cannot load images: a worker failed (${event.message})`));
      resolve();
    };
    return { worker, rest };
  }

  #fail(reason: Error): void {
    this.#failure ??= reason;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }
}

function assertCount(batchSize: number): void {
  if (Number.isInteger(batchSize) && batchSize > 0) return;
  throw new RangeError(`Cannot make batches of ${batchSize} images: 1 or more are needed`);
}
