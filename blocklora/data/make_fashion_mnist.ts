/**
 * Makes the embedded data set: 16 training and 50 test images per class of Fashion-MNIST, as PNG
 * files. The images come from the four files of Debian's package `dataset-fashion-mnist`.
 * `DIRECTORY` holds these files; the default is where the package puts them.
 *
 * ```sh
 * apt-get install dataset-fashion-mnist
 * deno run -A blocklora/data/make_fashion_mnist.ts [DIRECTORY]
 * ```
 *
 * @module
 */

import { deflateSync, gunzipSync } from "node:zlib";
import { Random } from "../../tensor/random.ts";
import { crc32 } from "./crc32.ts";

/** The directory that the package puts its files into. */
export const PACKAGE = "/usr/share/datasets/fashion-mnist";
const SHOTS = { train: ["train", 16], test: ["t10k", 50] } as const;
const SEED = "octograd fashion-mnist";
const SIDE = 28;

/** The classes in the order of the labels: the folder, and the name in prompts. */
const CLASSES = [
  ["t-shirt", "t-shirt"],
  ["trouser", "trouser"],
  ["pullover", "pullover"],
  ["dress", "dress"],
  ["coat", "coat"],
  ["sandal", "sandal"],
  ["shirt", "shirt"],
  ["sneaker", "sneaker"],
  ["bag", "bag"],
  ["ankle-boot", "ankle boot"],
] as const;

/**
 * The data of a gzipped IDX file. The header, which is left out, is a magic number that ends in the
 * number of axes, followed by their sizes.
 */
async function readIdx(path: string): Promise<Uint8Array> {
  const bytes = gunzipSync(await Deno.readFile(path));
  return bytes.subarray(4 + 4 * bytes[3]);
}

/**
 * A greyscale PNG. All rows use the same filter, the one of PNG's five that makes the file
 * smallest.
 */
export function encodePng(pixels: Uint8Array, side: number): Uint8Array {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, side);
  view.setUint32(4, side);
  header[8] = 8; // bits per pixel; the bytes after it stay 0, for greyscale and the default methods
  const packed = [0, 1, 2, 3, 4].map((filter) =>
    deflateSync(filtered(pixels, side, filter), { level: 9 })
  );
  const smallest = packed.reduce((best, next) => next.length < best.length ? next : best);
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const file = [
    ...signature,
    ...chunk("IHDR", header),
    ...chunk("IDAT", smallest),
    ...chunk("IEND", new Uint8Array()),
  ];
  return Uint8Array.from(file);
}

/**
 * Each row as its differences from the values that the filter predicts, after a byte with the
 * number of the filter (PNG specification, section 9).
 */
function filtered(pixels: Uint8Array, side: number, filter: number): Uint8Array {
  const rows = new Uint8Array(side * (side + 1));
  for (let y = 0; y < side; y++) {
    rows[y * (side + 1)] = filter;
    for (let x = 0; x < side; x++) {
      const left = x > 0 ? pixels[y * side + x - 1] : 0;
      const up = y > 0 ? pixels[(y - 1) * side + x] : 0;
      const corner = x > 0 && y > 0 ? pixels[(y - 1) * side + x - 1] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      rows[y * (side + 1) + 1 + x] = pixels[y * side + x] - guess;
    }
  }
  return rows;
}

/** The predictor of PNG's filter 4: the neighbour that is nearest to `left + up - corner`. */
function paeth(left: number, up: number, corner: number): number {
  const [a, b, c] = [
    Math.abs(up - corner),
    Math.abs(left - corner),
    Math.abs(left + up - 2 * corner),
  ];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

/** A chunk of a PNG file: length, type, data and checksum. */
function chunk(type: string, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

/**
 * Writes the data set into `to`, from the package's files in `from`. Gives the total bytes of all
 * PNGs.
 */
export async function makeFashionMnist(to: URL, from = PACKAGE): Promise<number> {
  let total = 0;
  for (const [split, [prefix, shots]] of Object.entries(SHOTS)) {
    const images = await readIdx(`${from}/${prefix}-images-idx3-ubyte.gz`);
    const labels = await readIdx(`${from}/${prefix}-labels-idx1-ubyte.gz`);
    for (const [label, [folder]] of CLASSES.entries()) {
      const all = [...labels.keys()].filter((i) => labels[i] === label);
      const chosen = new Random(SEED).fork(split).fork(folder).shuffle(all).slice(0, shots);
      const directory = new URL(`${split}/${folder}/`, to);
      await Deno.mkdir(directory, { recursive: true });
      for (const i of chosen) {
        const png = encodePng(images.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE), SIDE);
        await Deno.writeFile(new URL(`${String(i).padStart(5, "0")}.png`, directory), png);
        total += png.length;
      }
    }
  }
  const names = {
    dataset: "Fashion-MNIST (few-shot subset)",
    template: "a photo of a {}.",
    classes: CLASSES.map(([folder, name]) => ({ folder, name })),
  };
  await Deno.writeTextFile(new URL("classnames.json", to), `${JSON.stringify(names, null, 2)}\n`);
  return total;
}

if (import.meta.main) {
  const to = new URL("../fashion_mnist/", import.meta.url);
  console.log(`${await makeFashionMnist(to, Deno.args[0])} bytes of PNG`);
}
