import { assert, assertEquals, assertLess, assertRejects } from "@std/assert";
import encodeJpeg from "@jsquash/jpeg/encode.js";
import encodeWebp from "@jsquash/webp/encode.js";
import { Buffer } from "node:buffer";
import { crc32, deflateSync } from "node:zlib";
import { decodeImage, ImageError } from "../blocklora/data/decode.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { fixtures, skip } from "./fixtures.ts";

type Bytes = Uint8Array<ArrayBuffer>;

const bytes = (...pieces: (number[] | Uint8Array | string)[]): Bytes =>
  new Uint8Array(Buffer.concat(pieces.map((piece) => Buffer.from(piece as string, "latin1"))));

const u16 = (value: number) => [value >> 8, value & 0xff];
const u32 = (value: number) => [...u16(value >>> 16), ...u16(value & 0xffff)];
const u24LittleEndian = (value: number) => [value & 0xff, value >> 8 & 0xff, value >> 16];

function chunk(kind: string, data: number[] | Uint8Array): Bytes {
  const checked = bytes(kind, data);
  return bytes(u32(data.length), checked, u32(crc32(checked)));
}

/** A PNG of the given rows, each with its filter byte. */
function png(
  [width, height, depth, color, interlace = 0]: number[],
  rows: number[],
  ...extra: Bytes[]
): Bytes {
  return bytes(
    "\x89PNG\r\n\x1a\n",
    chunk("IHDR", [...u32(width), ...u32(height), depth, color, 0, 0, interlace]),
    ...extra,
    chunk("IDAT", deflateSync(new Uint8Array(rows))),
    chunk("IEND", []),
  );
}

/** A picture with alpha, for the encoders. */
function gradient(width: number, height: number): ImageData {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const [x, y] = [i % width / width, i / width / height];
    image.data.set([255 * x, 255 * y, 255 * (1 - x), 255 * y], 4 * i);
  }
  return image;
}

const rgbOf = ({ data }: ImageData) => data.filter((_, i) => i % 4 < 3);
const JPEG = new Uint8Array(await encodeJpeg(gradient(21, 13)));
const WEBP = new Uint8Array(await encodeWebp(gradient(21, 13), { lossless: 1, exact: 1 }));
const PNG = png([2, 1, 8, 2], [0, 1, 2, 3, 4, 5, 6]);

/** A JPEG's start-of-frame segment. */
const frame = (width: number, height: number, components: number) => [
  ...[0xff, 0xc0, ...u16(8 + 3 * components), 8, ...u16(height), ...u16(width), components],
  ...Array.from({ length: components }, (_, i) => [i + 1, 0x11, 0]).flat(),
];
const START = [0xff, 0xd8], END = [0xff, 0xd9];

const refused = async (file: Bytes, reason: string) => {
  const error = await assertRejects(() => decodeImage(file, "dir/x.jpg"), ImageError);
  assertEquals(
    error.message.slice(0, 24 + reason.length),
    `Cannot decode dir/x.jpg: ${reason}`.slice(0, 24 + reason.length),
  );
  assert(!error.message.includes("\n"));
};

Deno.test("decodeImage() converts every kind of PNG to RGB, as Pillow does", async () => {
  const palette = chunk("PLTE", [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120]);
  const black = [0, 0, 0], white = [255, 255, 255];
  const gray = (...levels: number[]) => levels.flatMap((level) => [level, level, level]);
  const rows: [string, Bytes, number[]][] = [
    ["bilevel", png([2, 1, 1, 0], [0, 0b01_000000]), [...black, ...white]],
    ["2-bit grey", png([4, 1, 2, 0], [0, 0b00_01_10_11]), gray(0, 85, 170, 255)],
    ["4-bit grey", png([2, 1, 4, 0], [0, 0x1f]), gray(17, 255)],
    ["grey", png([2, 1, 8, 0], [0, 7, 200]), gray(7, 200)],
    ["16-bit grey", png([2, 1, 16, 0], [0, 7, 255, 200, 0]), gray(7, 200)],
    ["grey with alpha", png([2, 1, 8, 4], [0, 7, 0, 200, 128]), gray(7, 200)],
    ["16-bit grey with alpha", png([1, 1, 16, 4], [0, 7, 255, 0, 1]), gray(7)],
    ["RGB", PNG, [1, 2, 3, 4, 5, 6]],
    ["16-bit RGB", png([1, 1, 16, 2], [0, 1, 255, 2, 255, 3, 255]), [1, 2, 3]],
    ["RGBA", png([2, 1, 8, 6], [0, 1, 2, 3, 0, 4, 5, 6, 9]), [1, 2, 3, 4, 5, 6]],
    ["16-bit RGBA", png([1, 1, 16, 6], [0, 1, 255, 2, 0, 3, 0, 0, 0]), [1, 2, 3]],
    ["1-bit palette", png([2, 1, 1, 3], [0, 0b01_000000], palette), [10, 20, 30, 40, 50, 60]],
    ["2-bit palette", png([2, 1, 2, 3], [0, 0b11_00_0000], palette), [100, 110, 120, 10, 20, 30]],
    ["4-bit palette", png([2, 1, 4, 3], [0, 0x21], palette), [70, 80, 90, 40, 50, 60]],
    ["palette", png([2, 1, 8, 3], [0, 3, 0], palette), [100, 110, 120, 10, 20, 30]],
    [
      "palette with transparency",
      png([2, 1, 8, 3], [0, 0, 2], palette, chunk("tRNS", [0, 255, 7])),
      [10, 20, 30, 70, 80, 90],
    ],
    [
      "RGB with a transparent colour",
      png([2, 1, 8, 2], [0, 1, 2, 3, 4, 5, 6], chunk("tRNS", [0, 1, 0, 2, 0, 3])),
      [1, 2, 3, 4, 5, 6],
    ],
    ["interlaced", png([2, 2, 8, 0, 1], [0, 1, 0, 2, 0, 3, 4]), gray(1, 2, 3, 4)],
    ["filtered", png([2, 2, 8, 0], [1, 9, 1, 2, 1, 1]), gray(9, 10, 10, 11)],
    ["with more after its end", bytes(PNG, "more"), [1, 2, 3, 4, 5, 6]],
    [
      "an animation of one frame",
      png([2, 1, 8, 2], [0, 1, 2, 3, 4, 5, 6], chunk("acTL", [...u32(1), ...u32(0)])),
      [1, 2, 3, 4, 5, 6],
    ],
  ];
  for (const [name, file, expected] of rows) {
    assertEquals([...(await decodeImage(file, name)).pixels], expected, name);
  }
});

Deno.test("decodeImage() gives a lossless WebP's pixels, without alpha", async () => {
  const { width, height, pixels } = await decodeImage(WEBP, "x.webp");
  assertEquals([width, height], [21, 13]);
  assertEquals([...pixels], [...rgbOf(gradient(21, 13))]);
});

Deno.test("decodeImage() ignores a JPEG's metadata, and what follows its end", async () => {
  const plain = await decodeImage(JPEG, "x.jpg");
  assertEquals([plain.width, plain.height], [21, 13]);
  const wanted = rgbOf(gradient(21, 13));
  const error = plain.pixels.reduce((sum, value, i) => sum + Math.abs(value - wanted[i]), 0);
  assertLess(error / wanted.length, 4);

  // Orientation 6: to be turned by 90 degrees.
  const exif = bytes(
    "Exif\0\0MM\0*",
    u32(8),
    u16(1),
    u16(0x112),
    u16(3),
    u32(1),
    u16(6),
    u16(0),
    u32(0),
  );
  const segments = {
    exif: bytes([0xff, 0xe1], u16(2 + exif.length), exif),
    comment: bytes([0xff, 0xfe], u16(6), END, END),
    "fill bytes": bytes([0xff, 0xff, 0xff]),
  };
  for (const [name, segment] of Object.entries(segments)) {
    const file = bytes(JPEG.subarray(0, 2), segment, JPEG.subarray(2));
    const before = file.slice();
    assertEquals(await decodeImage(file, name), plain, name);
    assertEquals(file, before, "the caller's bytes stay as they are");
  }
  assertEquals(await decodeImage(bytes(JPEG, new Uint8Array(99), JPEG), "two"), plain);
});

Deno.test("decodeImage() reads a view into a larger buffer", async () => {
  for (const file of [JPEG, PNG, WEBP]) {
    const view = bytes([1, 2, 3, 4, 5], file, [6, 7]).subarray(5, 5 + file.length);
    assertEquals(await decodeImage(view, "view"), await decodeImage(file, "file"));
  }
});

Deno.test("decodeImage() refuses a file that is cut anywhere", async () => {
  for (const [name, file] of Object.entries({ "x.jpg": JPEG, "x.png": PNG, "x.webp": WEBP })) {
    for (let length = 0; length < file.length; length++) {
      await assertRejects(
        () => decodeImage(file.slice(0, length), name),
        ImageError,
        `Cannot decode ${name}: `,
      );
    }
  }
});

Deno.test("decodeImage() says what is wrong with a file", async () => {
  await refused(bytes(), "the file is empty");
  await refused(bytes("This is not a picture.\n"), "it is not a JPEG, PNG or WebP image");
  await refused(bytes("GIF89a", new Uint8Array(99)), "it is not a JPEG, PNG or WebP image");
  await refused(
    JPEG.slice(0, -20),
    `the JPEG is cut short after ${JPEG.length - 20} bytes, replace`,
  );
  await refused(bytes(JPEG.slice(0, -20), new Uint8Array(99)), "the JPEG is cut short");
  await refused(PNG.slice(0, -1), "the PNG is cut short");
  await refused(WEBP.slice(0, -1), "the WebP is cut short");
  await refused(
    bytes(START, frame(8, 8, 4), END),
    "it is a JPEG of 4 inks (CMYK), convert it to RGB",
  );
  await refused(
    bytes(START, frame(8, 8, 3), END),
    "its data is damaged (Invalid JPEG file structure: missing SOS marker), replace",
  );
  await refused(png([2, 1, 8, 2], [0, 1, 2]), "its data is damaged, replace");
  const flipped = PNG.slice();
  flipped[45] ^= 1;
  await refused(flipped, "its data is damaged (wrong checksum of the IDAT chunk at byte 33)");
  await refused(
    bytes("\x89PNG\r\n\x1a\n", chunk("IEND", [])),
    "its data is damaged (it does not begin with a header)",
  );
  const vp8 = WEBP.slice();
  vp8[12] ^= 0x20;
  await refused(vp8, 'its data is damaged (unknown chunk "vP8L")');
});

Deno.test("decodeImage() refuses sizes that no memory holds", async () => {
  const reason = "its header says 60000x60000 pixels, between 1 and 134217728 can be decoded";
  await refused(bytes(START, frame(60_000, 60_000, 3), END), reason);
  await refused(png([60_000, 60_000, 8, 2], [0]), reason);
  const riff = (kind: string, data: number[]) =>
    bytes("RIFF", [4 + 8 + data.length, 0, 0, 0], "WEBP", kind, [data.length, 0, 0, 0], data);
  const extended = (flags: number, size: number) => [
    ...[flags, 0, 0, 0],
    ...u24LittleEndian(size - 1),
    ...u24LittleEndian(size - 1),
  ];
  await refused(riff("VP8X", extended(0, 60_000)), reason);
  await refused(riff("VP8X", extended(2, 8)), "it is an animated WebP, save one frame");
  await refused(
    png([2, 1, 8, 2], [0, 1, 2, 3, 4, 5, 6], chunk("acTL", [...u32(2), ...u32(0)])),
    "it is an animated PNG, save one frame",
  );
  const most = "its header says 16383x16383 pixels";
  await refused(riff("VP8 ", [0, 0, 0, 0x9d, 1, 0x2a, 0xff, 0x3f, 0xff, 0x3f]), most);
  await refused(riff("VP8L", [0x2f, 0xfe, 0xbf, 0xff, 0x0f, 0, 0, 0, 0, 0]), most);
  await refused(bytes(START, frame(8, 0, 3), END), "its header says 8x0 pixels");
});

Deno.test("decodeImage() decodes after many failures, and logs nothing", async () => {
  // Each of these passes the checks of structure, then makes its codec exit, panic or give up. If
  // nobody restored the stack, 98 exits or 743 panics would exhaust it.
  const broken = WEBP.slice();
  broken.fill(0xff, 26);
  const bad = [bytes(START, frame(8, 8, 3), END), png([2, 1, 8, 2], [0, 1, 2]), broken];
  const good = [JPEG, PNG, WEBP];
  const expected = await Promise.all(good.map((file) => decodeImage(file, "good")));
  const methods = ["log", "info", "warn", "error", "debug"] as const;
  const originals = methods.map((method) => console[method]);
  const said: unknown[] = [];
  for (const method of methods) console[method] = (...words: unknown[]) => said.push(words);
  try {
    for (let round = 0; round < 50; round++) {
      const fails = bad.flatMap((file, i) => Array<Bytes>([3, 16, 3][i]).fill(file));
      const failing = fails.map((file) =>
        assertRejects(() => decodeImage(file, "bad"), ImageError)
      );
      const decoded = await Promise.all(good.map((file) => decodeImage(file, "good")));
      await Promise.all(failing);
      assertEquals(decoded, expected);
    }
  } finally {
    methods.forEach((method, i) => console[method] = originals[i]);
  }
  assertEquals(said, []);
});

Deno.test({
  name: "decodeImage() needs no permission but to read, and runs in a worker",
  permissions: { read: true },
  async fn() {
    const code = `
      import { decodeImage } from ${
      JSON.stringify(import.meta.resolve("../blocklora/data/decode.ts"))
    };
      self.onmessage = async ({ data }) => {
        const images = [];
        for (const file of data) images.push(await decodeImage(file, "x"));
        self.postMessage(images);
      };`;
    const worker = new Worker(`data:text/javascript,${encodeURIComponent(code)}`, {
      type: "module",
    });
    const files = [JPEG, PNG, WEBP];
    const decoded = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage(files);
    });
    worker.terminate();
    assertEquals(decoded, await Promise.all(files.map((file) => decodeImage(file, "x"))));
  },
});

const directory = fixtures("preprocess");
if (directory === null) {
  skip("decodeImage() agrees with Pillow");
} else {
  Deno.test("decodeImage() agrees with Pillow", async () => {
    const url = new URL("tensors_32.safetensors", directory);
    const file = await SafetensorsFile.open(bytesSource(Deno.readFileSync(url), url.pathname));
    const { images } = JSON.parse(Deno.readTextFileSync(new URL("manifest.json", directory)));
    const excluded: string[] = [];
    const counts = { equal: 0, near: 0, unknown: 0 };
    for (const { file: path, mode, lossy, width, height, decoded_rgb } of images) {
      const given = Deno.readFileSync(new URL(path, directory));
      if (mode === "CMYK") {
        await assertRejects(
          () => decodeImage(given, path),
          ImageError,
          "(CMYK), convert it to RGB",
        );
        excluded.push(`${path} (CMYK is refused)`);
        continue;
      }
      const image = await decodeImage(given, path);
      assertEquals([image.width, image.height], [width, height], path);
      if (mode.startsWith("I")) {
        excluded.push(
          `${path} (16-bit grey: Pillow cuts it off at 255, here it is the high byte)`,
        );
        continue;
      }
      if (!decoded_rgb) {
        counts.unknown++;
        continue;
      }
      const expected = await file.bytes(decoded_rgb);
      assertEquals(image.pixels.length, expected.length, path);
      const errors = image.pixels.map((value, i) => Math.abs(value - expected[i]));
      const most = errors.reduce((most, error) => Math.max(most, error));
      const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
      assert(most <= (lossy ? 3 : 0) && mean < 1, `${path}: off by ${most}, ${mean} in the mean`);
      most === 0 ? counts.equal++ : counts.near++;
    }
    console.log(
      `decode: ${images.length} pictures, ${counts.equal} equal, ${counts.near} within 3 levels, ` +
        `${counts.unknown} without reference pixels; excluded: ${excluded.join(", ") || "none"}`,
    );
  });
}
