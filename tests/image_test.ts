import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { decodeImage } from "../blocklora/data/decode.ts";
import type { PreprocessConfig } from "../clip/config.ts";
import {
  centerCrop,
  crop,
  type Image,
  normalize,
  preprocess,
  randomResizedCropBox,
  resize,
  resizedCrop,
  shortestEdge,
} from "../clip/image.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { fixtures, shared, skip } from "./fixtures.ts";

const MEAN = [0.48145466, 0.4578275, 0.40821073] as const;
const STD = [0.26862954, 0.26130258, 0.27577711] as const;

/**
 * One of the pictures in `fixtures/preprocess/manifest.json`; keys such as `openai_32` are found by
 * their names.
 */
interface Picture extends Record<string, unknown> {
  file: string;
  mode: string;
  lossy: boolean;
  decoded_rgb?: string;
}

/** The result of a transform of a picture. */
interface Transformed {
  u8: string;
  tensor?: string;
  resized_width: number;
  resized_height: number;
}

interface Resized {
  id: string;
  mode: string;
  from: [number, number];
  to: [number, number];
}

interface Cropped {
  id: number;
  top: number;
  left: number;
  height: number;
  width: number;
  size: number;
  hflip: boolean;
}

interface Statistics {
  width: number;
  height: number;
  draws: number;
  quantiles: number[];
  area_fraction: number[];
  aspect_w_over_h: number[];
  top_over_free: number;
  left_over_free: number;
  whole_image_or_fallback_fraction: number;
}

interface GoldenPicture {
  file: string;
  mode: string;
  format: string;
  size: [number, number];
  rgb_sha256: string;
  crops: {
    size: number;
    tensor: string;
    resized: [number, number];
    left_top_floor: [number, number];
    left_top_round: [number, number];
    normalized_mean: number[];
    normalized_first_pixel: number[];
  }[];
}

const read = (url: URL) => Deno.readFileSync(url);
const readJson = (url: URL) => JSON.parse(Deno.readTextFileSync(url));
const open = (url: URL) => SafetensorsFile.open(bytesSource(read(url), url.pathname));

/** A repeatable generator of numbers in [0, 1). */
function generator(seed: number): () => number {
  return () =>
    (seed = Math.imul(seed ^ seed >>> 15, 0x2c1b3c6d) + 0x9e3779b9 | 0, seed >>> 0) / 2 ** 32;
}

/** A picture without any structure. */
function noise(width: number, height: number, seed = 1): Image {
  const random = generator(seed);
  const pixels = Uint8Array.from({ length: 3 * width * height }, () => 256 * random());
  return { width, height, pixels };
}

function config(size: number, cropRule: "round" | "floor", shortest = size): PreprocessConfig {
  return { resize: shortest, crop: size, mean: MEAN, std: STD, cropRule };
}

/** How many bytes differ, and by how much at most. */
function difference(actual: Uint8Array, expected: Uint8Array): { count: number; most: number } {
  assertEquals(actual.length, expected.length);
  let count = 0, most = 0;
  for (let i = 0; i < actual.length; i++) {
    const by = Math.abs(actual[i] - expected[i]);
    if (by > 0) count++;
    most = Math.max(most, by);
  }
  return { count, most };
}

function assertSame(actual: Uint8Array, expected: Uint8Array, what: string): void {
  const { count, most } = difference(actual, expected);
  assert(count === 0, `${what}: ${count} of ${actual.length} bytes differ, by ${most} at most`);
}

function assertClose(
  actual: Float32Array,
  expected: Float32Array,
  tolerance: number,
  what: string,
) {
  assertEquals(actual.length, expected.length);
  const most = actual.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
  assert(most <= tolerance, `${what}: off by ${most}`);
}

Deno.test("resize() to the same size gives the same pixels", () => {
  const image = noise(31, 17);
  assertEquals(resize(image, 31, 17), image);
});

Deno.test("resize() keeps a flat picture flat, at any size", () => {
  for (const [width, height] of [[1, 1], [2, 300], [64, 5], [257, 40]]) {
    const flat = { width: 23, height: 41, pixels: new Uint8Array(3 * 23 * 41).fill(201) };
    const resized = resize(flat, width, height);
    assertEquals(resized.pixels, new Uint8Array(3 * width * height).fill(201));
  }
});

Deno.test("resize() overshoots at a step and is clipped to a byte", () => {
  const image = {
    width: 4,
    height: 1,
    pixels: new Uint8Array([0, 0, 0, 255, 255, 255].flatMap((x) => [x, x])),
  };
  const { pixels } = resize(image, 8, 1);
  // A quarter of a pixel before the step the kernel gives 0.203 of its height; three quarters of a
  // pixel before it, -0.07.
  const row = [...pixels].filter((_, i) => i % 3 === 0);
  assertEquals(row, [0, 0, 0, 52, 203, 255, 255, 255]);
});

Deno.test("resize() throws when a size is not an integer above 0", () => {
  assertThrows(() => resize(noise(4, 4), 0, 4), RangeError, "Cannot resize to 0x4");
  assertThrows(() => resize(noise(4, 4), 4, 2.5), RangeError, "Cannot resize to 4x2.5");
});

Deno.test("crop() gives the pixels within, and black outside the picture", () => {
  const image = noise(5, 4);
  const at = (
    x: number,
    y: number,
  ) => [...image.pixels.subarray(3 * (5 * y + x), 3 * (5 * y + x) + 3)];
  assertEquals(
    [...crop(image, 3, 1, 2, 2).pixels],
    [at(3, 1), at(4, 1), at(3, 2), at(4, 2)].flat(),
  );
  assertEquals(
    [...crop(image, -1, 3, 2, 2).pixels],
    [[0, 0, 0], at(0, 3), Array(6).fill(0)].flat(),
  );
  assertEquals(crop(image, 7, 9, 2, 1).pixels, new Uint8Array(6));
});

Deno.test("centerCrop() puts the odd pixel on the side that each rule says", () => {
  // The column or row at which a crop of 4 begins, for pictures of 1 to 9 pixels.
  const first = { round: [-1, -1, 0, 0, 0, 1, 2, 2, 2], floor: [-2, -1, -1, 0, 0, 1, 1, 2, 2] };
  for (const rule of ["round", "floor"] as const) {
    for (const [i, left] of first[rule].entries()) {
      const wide = noise(i + 1, 4), tall = noise(4, i + 1);
      assertEquals(centerCrop(wide, 4, rule), crop(wide, left, 0, 4, 4), `${rule} ${i + 1}x4`);
      assertEquals(centerCrop(tall, 4, rule), crop(tall, 0, left, 4, 4), `${rule} 4x${i + 1}`);
    }
  }
});

Deno.test("shortestEdge() cuts the longer side", () => {
  const size = ({ width, height }: Image) => [width, height];
  assertEquals(size(shortestEdge(noise(400, 9), 32)), [1422, 32]);
  assertEquals(size(shortestEdge(noise(9, 40), 32)), [32, 142]);
  assertEquals(size(shortestEdge(noise(7, 7), 3)), [3, 3]);
});

Deno.test("normalize() rounds each step to float32", () => {
  const image = { width: 2, height: 1, pixels: new Uint8Array([0, 128, 255, 7, 8, 9]) };
  const expected = [0, 7, 128, 8, 255, 9].map((x, i) => {
    const channel = i >> 1;
    return (x / 255 - MEAN[channel]) / STD[channel];
  });
  assertClose(normalize(image, MEAN, STD), new Float32Array(expected), 5e-7, "normalize");
});

Deno.test("preprocess() resizes only what it keeps, and gives the same", () => {
  const sizes = [[1, 1], [31, 57], [224, 32], [500, 375], [33, 32], [35, 32], [3, 200]];
  for (const rule of ["round", "floor"] as const) {
    for (const [width, height] of sizes) {
      for (const [size, shortest] of [[32, 32], [28, 32], [40, 32], [7, 9]]) {
        const image = noise(width, height);
        assertEquals(
          preprocess(image, config(size, rule, shortest)),
          normalize(centerCrop(shortestEdge(image, shortest), size, rule), MEAN, STD),
          `${width}x${height} to ${shortest}, ${size} of it`,
        );
      }
    }
  }
});

Deno.test("preprocess() does not resize a very long picture in full", () => {
  // Resized in full it would have 224 x 11,200,000 pixels, 7.5 GB.
  const line = { width: 1, height: 50_000, pixels: new Uint8Array(150_000).fill(255) };
  const tensor = preprocess(line, config(224, "round"));
  assertEquals(tensor.length, 3 * 224 * 224);
  assert(tensor.every((value) => value > 1.9));
});

Deno.test("resizedCrop() is crop(), resize() and a mirror", () => {
  const image = noise(90, 70);
  const box = { left: 7, top: 3, width: 33, height: 61 };
  const plain = resizedCrop(image, box, 24, false);
  assertEquals(plain, resize(crop(image, 7, 3, 33, 61), 24, 24));
  const flipped = resizedCrop(image, box, 24, true);
  for (let y = 0; y < 24; y++) {
    for (let x = 0; x < 24; x++) {
      assertEquals(crop(flipped, x, y, 1, 1).pixels, crop(plain, 23 - x, y, 1, 1).pixels);
    }
  }
});

Deno.test("resizedCrop() throws when the rectangle is empty or leaves the picture", () => {
  const image = noise(9, 7);
  const attempt = (left: number, top: number, width: number, height: number) => () =>
    resizedCrop(image, { left, top, width, height }, 4, false);
  assertThrows(attempt(1, 0, 9, 7), RangeError, "Cannot crop 9x7 at 1,0: the picture is 9x7");
  assertThrows(attempt(0, -1, 2, 2), RangeError, "Cannot crop 2x2 at 0,-1");
  assertThrows(attempt(0, 0, 0, 2), RangeError, "Cannot crop to 0x2");
});

Deno.test("randomResizedCropBox() stays within the picture, and falls back to its centre", () => {
  const random = generator(5);
  for (const [width, height] of [[1, 1], [1, 500], [500, 1], [2, 3], [640, 480]]) {
    for (let draw = 0; draw < 200; draw++) {
      const box = randomResizedCropBox(width, height, random);
      assert(box.width >= 1 && box.height >= 1 && box.left >= 0 && box.top >= 0);
      assert(box.left + box.width <= width && box.top + box.height <= height);
    }
  }
  const all = { scale: [1, 1] } as const;
  assertEquals(
    randomResizedCropBox(300, 1000, random, all),
    { left: 0, top: 300, width: 300, height: 400 },
  );
  assertEquals(
    randomResizedCropBox(1000, 301, random, all),
    { left: 299, top: 0, width: 401, height: 301 },
  );
});

const directory = fixtures("preprocess");
if (directory === null) {
  skip("resize(), resizedCrop() and preprocess() agree with Pillow");
} else {
  const manifest = readJson(new URL("manifest.json", directory));
  const resizes = new URL("resize.safetensors", directory);

  Deno.test("resize() agrees with Pillow", async () => {
    const file = await open(resizes);
    const excluded: string[] = [];
    const cases: Resized[] = manifest.resize;
    for (const { id, mode, from: [width, height], to } of cases) {
      if (mode !== "RGB" && mode !== "L") {
        excluded.push(`${id} (${mode}: pictures have no alpha here)`);
        continue;
      }
      const [given, expected] = [await file.bytes(`${id}.in`), await file.bytes(`${id}.out`)];
      const asRgb = (bytes: Uint8Array) =>
        mode === "RGB"
          ? new Uint8Array(bytes)
          : Uint8Array.from([...bytes].flatMap((x) => [x, x, x]));
      const { pixels } = resize({ width, height, pixels: asRgb(given) }, ...to);
      assertSame(pixels, asRgb(expected), `resize ${id}`);
    }
    const agreeing = cases.length - excluded.length;
    console.log(
      `resize: ${agreeing} of ${cases.length} equal; excluded: ${excluded.join(", ") || "none"}`,
    );
  });

  Deno.test("resizedCrop() agrees with torchvision", async () => {
    const file = await open(resizes);
    const [height, width] = file.tensors.get("crop.in")!.shape;
    const pixels = new Uint8Array(await file.bytes("crop.in"));
    const cases: Cropped[] = manifest.resized_crop;
    for (const { id, size, hflip, ...box } of cases) {
      const cropped = resizedCrop({ width, height, pixels }, box, size, hflip);
      assertSame(cropped.pixels, await file.bytes(`crop.${id}.out`), `crop ${id}`);
    }
    console.log(`resized_crop: ${cases.length} of ${cases.length} equal`);
  });

  Deno.test("randomResizedCropBox() draws as torchvision does", () => {
    const cases: Statistics[] = manifest.random_resized_crop_statistics;
    for (const expected of cases) {
      const { width, height, draws } = expected;
      const random = generator(width * height);
      const boxes = Array.from(
        { length: draws },
        () => randomResizedCropBox(width, height, random),
      );
      const quantiles = (values: number[]) => {
        const sorted = Float64Array.from(values).sort();
        return expected.quantiles.map((q) => sorted[Math.round(q * (draws - 1))]);
      };
      const mean = (values: number[]) => values.reduce((sum, value) => sum + value) / draws;
      // In small pictures the shares and ratios change in steps, and a quantile may fall on either
      // side of one.
      const tolerance = 0.01 + 0.5 / Math.min(width, height);
      const assertNear = (actual: number[], values: number[], what: string) =>
        actual.forEach((value, i) =>
          assertAlmostEquals(value, values[i], tolerance, `${what} of ${width}x${height}`)
        );
      const area = boxes.map((box) => box.width * box.height / (width * height));
      assertNear(quantiles(area), expected.area_fraction, "area");
      const aspect = boxes.map((box) => box.width / box.height);
      assertNear(quantiles(aspect), expected.aspect_w_over_h, "aspect ratio");
      const top = boxes.map((box) => box.top / Math.max(1, height - box.height));
      assertAlmostEquals(mean(top), expected.top_over_free, 0.01);
      const left = boxes.map((box) => box.left / Math.max(1, width - box.width));
      assertAlmostEquals(mean(left), expected.left_over_free, 0.01);
      const full = boxes.map((box) => Number(box.width === width && box.height === height));
      assertAlmostEquals(mean(full), expected.whole_image_or_fallback_fraction, 0.002);
    }
    console.log(`random_resized_crop_statistics: ${cases.length} of ${cases.length} agree`);
  });

  Deno.test("preprocess() agrees with OpenAI's transform", async () => {
    const opened = new Map<number, Promise<SafetensorsFile>>();
    const tensors = (size: number) => {
      const url = new URL(`tensors_${size}.safetensors`, directory);
      return opened.get(size) ?? opened.set(size, open(url)).get(size)!;
    };
    const counts = { bytes: 0, floats: 0 };
    const excluded: string[] = [];
    const pictures: Picture[] = manifest.images;
    for (const picture of pictures) {
      let image: Image;
      if (picture.decoded_rgb) {
        const file = await tensors(32);
        const [height, width] = file.tensors.get(picture.decoded_rgb)!.shape;
        image = { width, height, pixels: new Uint8Array(await file.bytes(picture.decoded_rgb)) };
      } else if (picture.lossy) {
        excluded.push(`${picture.file} (lossy, and its decoded pixels are not given)`);
        continue;
      } else {
        image = await decodeImage(read(new URL(picture.file, directory)), picture.file);
      }
      for (const key of Object.keys(picture)) {
        const match = /^(openai|rgb_first)_(\d+)$/.exec(key);
        if (!match) continue;
        if (match[1] === "openai" && !["RGB", "L"].includes(picture.mode)) {
          excluded.push(`${picture.file} ${key} (Pillow resizes ${picture.mode} before it is RGB)`);
          continue;
        }
        const size = Number(match[2]);
        const file = await tensors(size);
        const expected = picture[key] as Transformed;
        const resized = shortestEdge(image, size);
        assertEquals([resized.width, resized.height], [
          expected.resized_width,
          expected.resized_height,
        ]);
        const square = centerCrop(resized, size, "round");
        assertSame(square.pixels, await file.bytes(expected.u8), `${picture.file} ${key}`);
        counts.bytes++;
        if (!expected.tensor) continue;
        const tensor = preprocess(image, config(size, "round"));
        assertClose(tensor, await file.floats(expected.tensor), 2e-6, `${picture.file} ${key}`);
        counts.floats++;
      }
    }
    assert(counts.bytes > 0);
    console.log(
      `preprocess: ${pictures.length} pictures, ${counts.bytes} results equal as bytes, ` +
        `${counts.floats} within 2e-6 as floats; excluded: ${excluded.join(", ") || "none"}`,
    );
  });
}

const golden = shared("data/preprocess-golden/");
if (golden === null) {
  skip("preprocess() agrees with Pillow on photographs");
} else {
  Deno.test("preprocess() agrees with Pillow on photographs, with both rules", async () => {
    const file = await open(new URL("expected.safetensors", golden));
    const pictures: GoldenPicture[] = readJson(new URL("manifest.json", golden)).images;
    const counts = { pictures: 0, equal: 0, near: 0 };
    for (const { file: path, size, format, rgb_sha256, crops } of pictures) {
      const image = await decodeImage(read(new URL(path, golden)), path);
      assertEquals([image.width, image.height], size);
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", image.pixels)).toHex();
      if (format === "PNG") assertEquals(hash, rgb_sha256, path);
      if (hash === rgb_sha256) counts.pictures++;
      for (const given of crops) {
        for (const rule of ["floor", "round"] as const) {
          const rounded = file.tensors.has(`${given.tensor}_round`) && rule === "round";
          const expected = await file.bytes(rounded ? `${given.tensor}_round` : given.tensor);
          const resized = shortestEdge(image, given.size);
          assertEquals([resized.width, resized.height], given.resized, path);
          const square = centerCrop(resized, given.size, rule);
          const { count, most } = difference(square.pixels, expected);
          assert(most <= (format === "PNG" ? 0 : 4), `${given.tensor} ${rule}: off by ${most}`);
          count === 0 ? counts.equal++ : counts.near++;
          if (rule === "round") continue;
          const tensor = preprocess(image, config(given.size, rule));
          const area = given.size ** 2;
          for (let channel = 0; channel < 3; channel++) {
            const values = tensor.subarray(channel * area, (channel + 1) * area);
            const mean = values.reduce((sum, value) => sum + value, 0) / area;
            assertAlmostEquals(
              mean,
              given.normalized_mean[channel],
              format === "PNG" ? 1e-5 : 0.02,
            );
            assertAlmostEquals(
              values[0],
              given.normalized_first_pixel[channel],
              format === "PNG" ? 1e-5 : 0.08,
            );
          }
        }
      }
    }
    console.log(
      `preprocess-golden: ${counts.pictures} of ${pictures.length} decoded to the same bytes, ` +
        `${counts.equal} crops equal, ${counts.near} within 4 levels`,
    );
  });
}
