import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { crc32, deflateSync } from "node:zlib";
import type { Sample } from "../blocklora/data/dataset.ts";
import { decodeImage, ImageError } from "../blocklora/data/decode.ts";
import { type Batch, ImageLoader, type TrainingOptions } from "../blocklora/data/loader.ts";
import type { PreprocessConfig } from "../clip/config.ts";
import { normalize, preprocess, randomResizedCropBox, resizedCrop } from "../clip/image.ts";
import { Random } from "../tensor/random.ts";

const CONFIG: PreprocessConfig = {
  resize: 10,
  crop: 8,
  mean: [0.5, 0.4, 0.3],
  std: [0.2, 0.3, 0.4],
  cropRule: "round",
};
const SIZE = 3 * 8 * 8;

/** An RGB image of noise, as a PNG file. */
function png(width: number, height: number, seed: number): Uint8Array<ArrayBuffer> {
  const random = new Random(seed, "png");
  const rows = new Uint8Array(height * (1 + 3 * width));
  for (let i = 0; i < rows.length; i++) rows[i] = i % (1 + 3 * width) ? random.below(256) : 0;
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([8, 2], 8);
  const file = [Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)];
  for (
    const [name, data] of [["IHDR", header], ["IDAT", deflateSync(rows)], ["IEND", ""]] as const
  ) {
    const chunk = new Uint8Array(12 + data.length);
    chunk.set(new TextEncoder().encode(name), 4);
    if (typeof data !== "string") chunk.set(data, 8);
    new DataView(chunk.buffer).setUint32(0, data.length);
    new DataView(chunk.buffer).setUint32(
      8 + data.length,
      crc32(chunk.subarray(4, 8 + data.length)),
    );
    file.push(chunk);
  }
  return new Uint8Array(file.flatMap((bytes) => [...bytes]));
}

/** Makes `count` images, sample `i` with label `100 + i`, and runs `body` on them. */
async function withImages(
  count: number,
  body: (samples: Sample[], directory: string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const samples = Array.from({ length: count }, (_, i) => ({
      path: `${directory}/${i}.png`,
      label: 100 + i,
    }));
    for (const [i, { path }] of samples.entries()) {
      await Deno.writeFile(path, png(12 + i, 20 - i, i));
    }
    await body(samples, directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const collect = (batches: AsyncIterable<Batch>) => Array.fromAsync(batches);

/** The pixels of each image of a batch. */
const images = ({ pixels, labels }: Batch) =>
  Array.from(labels, (_, i) => pixels.slice(i * SIZE, (i + 1) * SIZE));

const decode = async (path: string) => await decodeImage(await Deno.readFile(path), path);

const TRAINING: TrainingOptions = { batchSize: 3, iterations: 7, seed: 5 };

Deno.test("ImageLoader.evaluation() gives all images in order, the last batch ragged", () =>
  withImages(7, async (samples) => {
    const expected = await Promise.all(
      samples.map(async ({ path }) => preprocess(await decode(path), CONFIG)),
    );
    for (const workers of [1, 2, 3]) {
      await using loader = new ImageLoader(CONFIG, { workers });
      const batches = await collect(loader.evaluation(samples, 3));
      assertEquals(batches.map(({ labels }) => [...labels]), [
        [100, 101, 102],
        [103, 104, 105],
        [106],
      ]);
      assertEquals(batches.flatMap(images), expected);
      assert(batches.every(({ skipped }) => skipped.length === 0));
    }
    await using loader = new ImageLoader(CONFIG);
    assertEquals((await collect(loader.evaluation(samples, 100))).length, 1);
    assertEquals(await collect(loader.evaluation([], 4)), []);
  }));

Deno.test("ImageLoader.training() shuffles epochs whose last batch has the remaining images", () =>
  withImages(8, async (samples) => {
    await using loader = new ImageLoader(CONFIG, { workers: 2 });
    const batches = await collect(loader.training(samples, TRAINING));
    assertEquals(batches.map(({ labels }) => labels.length), [3, 3, 2, 3, 3, 2, 3]);
    const order = batches.flatMap(({ labels }) => [...labels]);
    const all = samples.map(({ label }) => label);
    assertEquals(order.slice(0, 8).sort(), all);
    assertEquals(order.slice(8, 16).sort(), all);
    assertNotEquals(order.slice(0, 8), order.slice(8, 16));
    assertNotEquals(order.slice(0, 8), all);
    const large = await collect(
      loader.training(samples, { ...TRAINING, batchSize: 32, iterations: 2 }),
    );
    assertEquals(large.map(({ labels }) => labels.length), [8, 8]);
    assertEquals(await collect(loader.training(samples, { ...TRAINING, iterations: 0 })), []);
  }));

Deno.test("ImageLoader.training() depends on seed, batch and position alone", () =>
  withImages(8, async (samples) => {
    await using first = new ImageLoader(CONFIG, { workers: 1, cacheBytes: 0 });
    const batches = await collect(first.training(samples, TRAINING));
    for (const [b, batch] of batches.entries()) {
      for (const [position, pixels] of images(batch).entries()) {
        const random = new Random(5, "augmentation").fork(b).fork(position);
        const draw = () => random.uniform();
        const image = await decode(samples[batch.labels[position] - 100].path);
        const box = randomResizedCropBox(image.width, image.height, draw);
        const crop = resizedCrop(image, box, 8, draw() < 0.5);
        assertEquals(pixels, normalize(crop, CONFIG.mean, CONFIG.std));
      }
    }
    for (const workers of [2, 3]) {
      await using loader = new ImageLoader(CONFIG, { workers });
      const [again, other, longer] = await Promise.all([
        collect(loader.training(samples, TRAINING)),
        collect(loader.training(samples, { ...TRAINING, seed: 6 })),
        collect(loader.training(samples, { ...TRAINING, iterations: 9 })),
      ]);
      assertEquals(again, batches);
      assertEquals(longer.slice(0, 7), batches);
      assertNotEquals(other[0].labels, batches[0].labels);
    }
  }));

Deno.test("ImageLoader.training() crops and mirrors as asked", () =>
  withImages(2, async (samples) => {
    await using loader = new ImageLoader(CONFIG, { workers: 2 });
    const square = samples.slice(0, 1);
    await Deno.writeFile(square[0].path, png(16, 16, 3));
    const image = await decode(square[0].path);
    const box = { left: 0, top: 0, width: 16, height: 16 };
    const [plain, mirrored] = [false, true].map((flip) =>
      normalize(resizedCrop(image, box, 8, flip), CONFIG.mean, CONFIG.std)
    );
    const options: TrainingOptions = {
      batchSize: 1,
      iterations: 60,
      seed: 1,
      scale: [1, 1],
      ratio: [1, 1],
    };
    const unflipped = await collect(loader.training(square, { ...options, flip: false }));
    for (const { pixels } of unflipped) assertEquals(pixels, plain);
    const flipped = await collect(loader.training(square, options));
    const isMirrored = flipped.map(({ pixels }) => pixels.every((x, i) => x === mirrored[i]));
    for (const [i, { pixels }] of flipped.entries()) {
      if (!isMirrored[i]) assertEquals(pixels, plain);
    }
    const count = isMirrored.filter(Boolean).length;
    assert(count > 15 && count < 45, `${count} of 60 mirrored`);
    const cropped = await collect(loader.training(square, { ...options, scale: [0.2, 0.5] }));
    assert(new Set(cropped.map(({ pixels }) => pixels.join())).size > 50);
  }));

Deno.test("ImageLoader fails on an image that cannot be read, by name", () =>
  withImages(6, async (samples, directory) => {
    const content = await Deno.readFile(samples[4].path);
    const broken: [string, () => Promise<void>][] = [
      ["is cut short", () => Deno.writeFile(samples[4].path, content.subarray(0, 90))],
      ["it is not a JPEG, PNG or WebP image", () => Deno.writeTextFile(samples[4].path, "text")],
      ["no such file", () => Deno.remove(samples[4].path)],
    ];
    await using loader = new ImageLoader(CONFIG, { workers: 2 });
    for (const [reason, damage] of broken) {
      await damage();
      for (const batches of [loader.evaluation(samples, 2), loader.training(samples, TRAINING)]) {
        const error = await assertRejects(() => collect(batches), ImageError, reason);
        assert(error.message.startsWith(`Cannot decode ${directory}/4.png: `), error.message);
        assert(!error.message.slice(10).includes("Cannot decode"), error.message);
      }
    }
    // The batches before it are still given.
    const batches = loader.evaluation(samples, 2);
    assertEquals([...(await batches.next()).value!.labels], [100, 101]);
    await batches.return();
  }));

Deno.test("ImageLoader leaves out unreadable images if asked to, and names each once", () =>
  withImages(6, async (samples) => {
    for (const i of [1, 2, 3]) await Deno.writeTextFile(samples[i].path, "no image");
    const names = [1, 2, 3].map((i) => samples[i].path);
    await using loader = new ImageLoader(CONFIG, { workers: 2, onError: "skip" });
    const evaluated = await collect(loader.evaluation(samples, 2));
    assertEquals(evaluated.map(({ labels }) => [...labels]), [[100], [], [104, 105]]);
    assertEquals(evaluated.map(({ skipped }) => skipped), [names.slice(0, 1), names.slice(1), []]);
    assertEquals(images(evaluated[2])[1], preprocess(await decode(samples[5].path), CONFIG));

    const trained = await collect(loader.training(samples, { ...TRAINING, batchSize: 2 }));
    assertEquals(trained.map(({ labels }) => labels.length), [2, 1, 2, 1, 2, 1, 2]);
    assertEquals(trained.map(({ skipped }) => skipped), [names, [], [], [], [], [], []]);
    const ends = [false, true, false, true, false, true, false];
    assertEquals(trained.map(({ endsEpoch }) => endsEpoch), ends);
    assertEquals(
      new Set(trained.flatMap(({ labels }) => [...labels])),
      new Set([100, 104, 105]),
    );
    for (const { path } of samples) await Deno.writeTextFile(path, "no image");
    await assertRejects(
      () => collect(loader.training(samples, TRAINING)),
      ImageError,
      "nor can any other",
    );
  }));

Deno.test("ImageLoader ends its workers when a loop breaks off, and starts them again", () =>
  withImages(8, async (samples) => {
    const loader = new ImageLoader(CONFIG, { workers: 2 });
    for (let run = 0; run < 2; run++) {
      for await (const { labels } of loader.training(samples, { ...TRAINING, iterations: 1e6 })) {
        assertEquals(labels.length, 3);
        break;
      }
    }
    // Never started: nothing to end.
    loader.evaluation(samples, 2);
  }));

Deno.test("ImageLoader.close() fails a batch that is under way", () =>
  withImages(8, async (samples) => {
    const loader = new ImageLoader(CONFIG, { workers: 2 });
    const batches = loader.training(samples, { ...TRAINING, iterations: 1e6 });
    await batches.next();
    const waiting = loader.evaluation(samples, 8).next();
    const closed = loader.close();
    await assertRejects(() => waiting, Error, "the loader has been closed");
    await assertRejects(
      async () => {
        for await (const _ of batches);
      },
      Error,
      "the loader has been closed",
    );
    await closed;
    await loader.close();
  }));

Deno.test("ImageLoader refuses sizes that make no sense", () => {
  for (const workers of [0, -1, 1.5, NaN]) {
    assertThrows(() => new ImageLoader(CONFIG, { workers }), RangeError, "1 or more");
  }
  const loader = new ImageLoader(CONFIG);
  for (const size of [0, 2.5, NaN]) {
    assertThrows(() => loader.evaluation([], size), RangeError, "1 or more");
  }
  assertThrows(() => loader.training([], TRAINING), RangeError, "there are no images");
});
