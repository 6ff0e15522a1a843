/**
 * The worker of `loader.ts`, which reads, decodes and augments images.
 *
 * @module
 */

import type { PreprocessConfig } from "../../clip/config.ts";
import {
  type Image,
  normalize,
  preprocess,
  randomResizedCropBox,
  resizedCrop,
} from "../../clip/image.ts";
import { Random } from "../../tensor/random.ts";
import { readBytes, reasonOf } from "../system/files.ts";
import { decodeImage, ImageError } from "./decode.ts";

/** How training images are cropped and mirrored. */
export interface Augmentation {
  /** Seed of all random numbers. */
  readonly seed: number;
  /**
   * The number of the batch. The random numbers of an image depend on the seed, the batch and the
   * position of the image in it.
   */
  readonly batch: number;
  /** The smallest and largest fraction of the image area that a crop covers. */
  readonly scale?: readonly [number, number];
  /** The smallest and largest aspect ratio of a crop. */
  readonly ratio?: readonly [number, number];
  /** Whether images are mirrored with probability 1/2. */
  readonly flip: boolean;
}

/** A request to a worker: images to process. */
export interface Request {
  /** The id of the request, which the reply repeats. */
  readonly id: number;
  /** The image size, mean and standard deviation of the model. */
  readonly config: PreprocessConfig;
  /** How many bytes of decoded images the worker may cache. */
  readonly cacheBytes: number;
  /**
   * What to do with the images: only check that they can be decoded, prepare them as the model
   * expects, or crop and mirror them at random.
   */
  readonly work: "check" | "evaluate" | Augmentation;
  /** The image files, each with its position in the batch. */
  readonly images: readonly { readonly path: string; readonly position: number }[];
}

/** The reply to a request. */
export interface Reply {
  /** The id of the request. */
  readonly id: number;
  /** The pixels of the images that could be read, `[n, 3, crop, crop]`; empty after a check. */
  readonly pixels: Float32Array<ArrayBuffer>;
  /** For each image, why it could not be read, or null if it could. */
  readonly reasons: readonly (string | null)[];
}

/**
 * The message that asks a worker to stop. The worker sends it back when it is safe to terminate.
 */
export const STOP = "stop";

// Training sees the same few images thousands of times. The cache evicts nothing: every epoch uses
// each image once, so if the oldest image were evicted for the newest, every lookup would miss.
const cache = new Map<string, Image>();
let cachedBytes = 0;

async function open(path: string, budget: number): Promise<Image> {
  const known = cache.get(path);
  if (known) return known;
  const image = await decodeImage(await readBytes(path), path);
  const bytes = image.pixels.byteLength;
  if (!cache.has(path) && cachedBytes + bytes <= budget) {
    cache.set(path, image);
    cachedBytes += bytes;
  }
  return image;
}

function augment(
  image: Image,
  { mean, std, crop }: PreprocessConfig,
  { seed, batch, scale, ratio, flip }: Augmentation,
  position: number,
): Float32Array<ArrayBuffer> {
  const random = new Random(seed, "augmentation").fork(batch).fork(position);
  const draw = () => random.uniform();
  const box = randomResizedCropBox(image.width, image.height, draw, { scale, ratio });
  return normalize(resizedCrop(image, box, crop, flip && draw() < 0.5), mean, std);
}

async function answer({ id, config, cacheBytes, work, images }: Request): Promise<Reply> {
  const size = 3 * config.crop ** 2;
  const pixels = new Float32Array(work === "check" ? 0 : images.length * size);
  const reasons: (string | null)[] = [];
  let made = 0;
  for (const { path, position } of images) {
    if (stopping) break;
    try {
      const image = await open(path, work === "evaluate" ? 0 : cacheBytes);
      if (work === "evaluate") pixels.set(preprocess(image, config), made * size);
      else if (work !== "check") pixels.set(augment(image, config, work, position), made * size);
      made++;
      reasons.push(null);
    } catch (error) {
      const known = error instanceof ImageError;
      reasons.push(known ? error.message.replace(`Cannot decode ${path}: `, "") : reasonOf(error));
    }
  }
  return { id, pixels, reasons };
}

// Deno types `self` as the global object of the main thread.
const worker = self as unknown as {
  onmessage: (event: MessageEvent<Request | typeof STOP>) => void;
  postMessage(reply: Reply | typeof STOP, transfer?: Transferable[]): void;
};

// V8 aborts the process if a worker is terminated while it compiles a codec ("Check failed:
// validate_functions_job_handle_", Deno 2.9.6). So the worker finishes its work before it answers
// STOP.
let stopping = false;
let answering = 0;

worker.onmessage = async ({ data }) => {
  answering++;
  if (data === STOP) stopping = true;
  else if (!stopping) {
    const reply = await answer(data);
    if (!stopping) worker.postMessage(reply, [reply.pixels.buffer]);
  }
  if (--answering === 0 && stopping) worker.postMessage(STOP);
};
