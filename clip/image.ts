/**
 * Turns pixels into the input of the vision tower, bit for bit as Pillow and torchvision do, and
 * draws the random crops of training.
 *
 * @module
 */

import type { PreprocessConfig } from "./config.ts";
import { resampleRow, resampleRows, tapsOf } from "./resample.ts";

/** A picture of `[height, width, 3]` bytes: red, green, blue, row by row. */
export interface Image {
  /** Width in pixels. */
  readonly width: number;
  /** Height in pixels. */
  readonly height: number;
  /** The bytes, row-major `[height, width, 3]`. */
  readonly pixels: Uint8Array<ArrayBuffer>;
}

/** A rectangle of pixels. `left` and `top` are negative if it begins outside the picture. */
export interface CropBox {
  /** The first column. */
  readonly left: number;
  /** The first row. */
  readonly top: number;
  /** Number of columns. */
  readonly width: number;
  /** Number of rows. */
  readonly height: number;
}

/**
 * Resizes a picture, as Pillow's `resize((width, height), BICUBIC)` does with an RGB image.
 *
 * @throws {RangeError} If a size is not an integer above 0.
 */
export function resize(image: Image, width: number, height: number): Image {
  const target = { left: 0, top: 0, width, height };
  return resample(image, fullBox(image), width, height, target);
}

/**
 * Returns the pixels within a rectangle. Those outside the picture are black, as with Pillow's
 * `crop`.
 */
export function crop(
  image: Image,
  left: number,
  top: number,
  width: number,
  height: number,
): Image {
  assertSize("crop", width, height);
  assertPixels(image);
  const pixels = new Uint8Array(3 * width * height);
  const [from, to] = [Math.max(0, left), Math.min(image.width, left + width)];
  for (let y = Math.max(0, top); from < to && y < Math.min(image.height, top + height); y++) {
    const row = image.pixels.subarray(3 * (y * image.width + from), 3 * (y * image.width + to));
    pixels.set(row, 3 * ((y - top) * width + from - left));
  }
  return { width, height, pixels };
}

/**
 * Crops the central square of `size` by `size` pixels. A smaller picture gets a black border. If an
 * odd number of pixels is left over, the crop could begin at either of two pixels. `"round"` takes
 * the even one, as torchvision's `CenterCrop` and so OpenAI's CLIP do. `"floor"` takes the first,
 * as Hugging Face's processor does.
 */
export function centerCrop(image: Image, size: number, rule: "round" | "floor"): Image {
  const { left, top } = centerBox(image.width, image.height, size, rule);
  return crop(image, left, top, size, size);
}

/**
 * Resizes a picture so that its shorter side is `size` and its longer side is
 * `size * long / short`, truncated to an integer.
 */
export function shortestEdge(image: Image, size: number): Image {
  const { width, height } = shortestEdgeSize(image, size);
  return resize(image, width, height);
}

/**
 * Computes `(x / 255 - mean) / std` for each channel: `[3, height, width]`. Each step is rounded to
 * float32, as torchvision's `ToTensor` and `Normalize` do.
 */
export function normalize(
  image: Image,
  mean: readonly [number, number, number],
  std: readonly [number, number, number],
): Float32Array<ArrayBuffer> {
  assertPixels(image);
  const area = image.width * image.height;
  const normalized = new Float32Array(3 * area);
  const values = new Float32Array(256);
  for (let channel = 0; channel < 3; channel++) {
    const [m, s] = [Math.fround(mean[channel]), Math.fround(std[channel])];
    for (let x = 0; x < 256; x++) values[x] = Math.fround(Math.fround(x / 255) - m) / s;
    for (let i = 0, at = channel * area; i < area; i++) {
      normalized[at + i] = values[image.pixels[3 * i + channel]];
    }
  }
  return normalized;
}

/**
 * Turns a picture into the input of a CLIP, `[3, crop, crop]`. It resizes the shorter side to
 * `config.resize`, crops the central square of `config.crop` and normalizes. The result is the same
 * as that of {@linkcode shortestEdge}, {@linkcode centerCrop} and {@linkcode normalize} in turn,
 * but only the pixels inside the crop are resized.
 */
export function preprocess(image: Image, config: PreprocessConfig): Float32Array<ArrayBuffer> {
  const { width, height } = shortestEdgeSize(image, config.resize);
  const box = centerBox(width, height, config.crop, config.cropRule);
  const square = box.left < 0 || box.top < 0
    ? centerCrop(resize(image, width, height), config.crop, config.cropRule)
    : resample(image, fullBox(image), width, height, box);
  return normalize(square, config.mean, config.std);
}

/**
 * Draws the rectangle of torchvision's `RandomResizedCrop`. Each of up to ten tries draws a share
 * of the area, uniform in `scale`, and an aspect ratio, log-uniform in `ratio`. If none of them
 * fits, the result is the largest central rectangle within `ratio`.
 *
 * @param random Returns numbers in [0, 1), for example from a seeded generator. It is called 4
 * times for a try that fits, and twice for one that does not.
 */
export function randomResizedCropBox(
  width: number,
  height: number,
  random: () => number,
  options: { scale?: readonly [number, number]; ratio?: readonly [number, number] } = {},
): CropBox {
  const { scale = [0.08, 1], ratio = [3 / 4, 4 / 3] } = options;
  const between = (least: number, most: number) => least + random() * (most - least);
  for (let attempt = 0; attempt < 10; attempt++) {
    const area = width * height * between(...scale);
    const aspect = Math.exp(between(Math.log(ratio[0]), Math.log(ratio[1])));
    const w = roundHalfEven(Math.sqrt(area * aspect));
    const h = roundHalfEven(Math.sqrt(area / aspect));
    if (w < 1 || w > width || h < 1 || h > height) continue;
    const top = Math.floor(random() * (height - h + 1));
    const left = Math.floor(random() * (width - w + 1));
    return { left, top, width: w, height: h };
  }
  const aspect = Math.min(Math.max(width / height, ratio[0]), ratio[1]);
  const w = Math.min(width, Math.max(1, roundHalfEven(height * aspect)));
  const h = Math.min(height, Math.max(1, roundHalfEven(width / aspect)));
  return { left: (width - w) >> 1, top: (height - h) >> 1, width: w, height: h };
}

/**
 * Resizes the rectangle `box` of a picture to `size` by `size` pixels, then mirrors it left to
 * right if `flip` is true. Pixels outside the rectangle have no influence.
 *
 * @throws {RangeError} If the rectangle is empty or extends beyond the picture.
 */
export function resizedCrop(image: Image, box: CropBox, size: number, flip: boolean): Image {
  const { left, top, width, height } = box;
  assertSize("crop", width, height);
  if (left < 0 || top < 0 || left + width > image.width || top + height > image.height) {
    throw new RangeError(
      `Cannot crop ${width}x${height} at ${left},${top}: ` +
        `the picture is ${image.width}x${image.height}`,
    );
  }
  const resized = resample(image, box, size, size, { left: 0, top: 0, width: size, height: size });
  if (flip) mirror(resized);
  return resized;
}

/**
 * Resizes the rectangle `from` of a picture to `width` by `height`, horizontally first as Pillow
 * does, and returns the rectangle `box` of the result. Each output depends only on its taps, so
 * skipping the pixels outside `box` changes nothing.
 */
function resample(
  image: Image,
  from: CropBox,
  width: number,
  height: number,
  box: CropBox,
): Image {
  assertSize("resize", width, height);
  assertPixels(image);
  const across = tapsOf(from.width, width, box.left, box.width);
  const down = tapsOf(from.height, height, box.top, box.height);
  const last = box.height - 1;
  const first = down.starts[0];
  const rows = down.starts[last] + down.counts[last] - first;
  const narrowed = new Uint8Array(3 * box.width * rows);
  for (let row = 0; row < rows; row++) {
    const at = 3 * ((from.top + first + row) * image.width + from.left);
    resampleRow(image.pixels, at, across, narrowed, 3 * row * box.width);
  }
  const pixels = resampleRows(narrowed, 3 * box.width, down);
  return { width: box.width, height: box.height, pixels };
}

function mirror({ width, height, pixels }: Image): void {
  for (let y = 0; y < height; y++) {
    let left = 3 * y * width, right = left + 3 * (width - 1);
    for (; left < right; left += 3, right -= 3) {
      for (let channel = 0; channel < 3; channel++) {
        const value = pixels[left + channel];
        pixels[left + channel] = pixels[right + channel];
        pixels[right + channel] = value;
      }
    }
  }
}

function fullBox({ width, height }: Image): CropBox {
  return { left: 0, top: 0, width, height };
}

/** The size of a picture after its shorter side is resized to `size`. */
function shortestEdgeSize(
  { width, height }: Image,
  size: number,
): { width: number; height: number } {
  return width <= height
    ? { width: size, height: Math.trunc(size * height / width) }
    : { width: Math.trunc(size * width / height), height: size };
}

function centerBox(width: number, height: number, size: number, rule: "round" | "floor"): CropBox {
  const [left, top] = [centerOf(width - size, rule), centerOf(height - size, rule)];
  return { left, top, width: size, height: size };
}

/** Where a centred crop begins, if the picture has `spare` pixels more than the crop. */
function centerOf(spare: number, rule: "round" | "floor"): number {
  if (rule === "floor") return Math.floor(spare / 2);
  // torchvision does not round if the picture is too small. It pads, with the odd pixel on the
  // right or at the bottom.
  return spare < 0 ? Math.ceil(spare / 2) : roundHalfEven(spare / 2);
}

/** Rounds a half to even, as Python's `round` does. */
function roundHalfEven(x: number): number {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + below % 2 : Math.round(x);
}

/**
 * Throws unless there are three bytes per pixel. A canvas has four, which would mix up the colours.
 */
function assertPixels({ width, height, pixels }: Image): void {
  if (pixels.length === 3 * width * height) return;
  throw new RangeError(
    `Cannot use a picture of ${width}x${height} with ${pixels.length} bytes: ` +
      "it takes 3 a pixel, red, green and blue",
  );
}

function assertSize(action: string, width: number, height: number): void {
  if (Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0) return;
  throw new RangeError(
    `Cannot ${action} to ${width}x${height}: both sizes must be integers above 0`,
  );
}
