/**
 * The other side of `loader.ts`: a worker that reads, decodes and augments images.
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
import { reasonOf } from "../system/files.ts";
import { decodeImage, ImageError } from "./decode.ts";

/** How training images are cropped and mirrored. */
export interface Augmentation {
  /** Seed of all draws. */
  readonly seed: number;
  /** The number of the batch: an image's draws depend on the seed, this and its position. */
  readonly batch: number;
  /** Least and largest share of the area. */
  readonly scale?: readonly [number, number];
  /** Least and largest aspect ratio. */
  readonly ratio?: readonly [number, number];
  /** Whether half of the images are mirrored. */
  readonly flip: boolean;
}

/** Images for a worker. */
export interface Request {
  /** Comes back with the reply. */
  readonly id: number;
  /** Sizes, mean and deviation of the model. */
  readonly config: PreprocessConfig;
  /** Bytes of decoded images that the worker may keep. */
  readonly cacheBytes: number;
  /**
   * What becomes of them: they are only tried whether they can be decoded, prepared as the model
   * asks, or cropped at random.
   */
  readonly work: "check" | "evaluate" | Augmentation;
  /** The files, with the position of each in its batch. */
  readonly images: readonly { readonly path: string; readonly position: number }[];
}

/** What a worker made of a request. */
export interface Reply {
  /** That of the request. */
  readonly id: number;
  /** The images that could be read, `[n, 3, crop, crop]`; empty if they were only checked. */
  readonly pixels: Float32Array<ArrayBuffer>;
  /** For each image, why it could not be read; null where it could. */
  readonly reasons: readonly (string | null)[];
}

/** Asks a worker to stop. It answers with the same when it is safe to terminate. */
export const STOP = "stop";

// The same few shots are seen thousands of times. What is in the cache stays there: in epochs all
// images come equally often, and to throw out the oldest for the newest would make every look a
// miss.
const cache = new Map<string, Image>();
let cachedBytes = 0;

async function open(path: string, budget: number): Promise<Image> {
  const known = cache.get(path);
  if (known) return known;
  const image = await decodeImage(await Deno.readFile(path), path);
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

// Deno's types of `self` are those of the main thread.
const worker = self as unknown as {
  onmessage: (event: MessageEvent<Request | typeof STOP>) => void;
  postMessage(reply: Reply | typeof STOP, transfer?: Transferable[]): void;
};

// V8 ends the process if a worker is terminated while it compiles a codec ("Check failed:
// validate_functions_job_handle_", Deno 2.9.6): the worker has to come to rest first.
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
