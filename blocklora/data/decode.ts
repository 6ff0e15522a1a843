/**
 * Decodes JPEG, PNG and WebP files with @jsquash's WebAssembly codecs, to the same pixels as
 * Pillow's `convert("RGB")`. The structure of a file is checked before a codec sees it, because a
 * codec may silently repair a damaged file, abort on it, or run out of memory.
 *
 * In Deno this needs only `--allow-read` for the `.wasm` files of the codecs. It also runs in
 * workers.
 *
 * @module
 */

import loadJpeg from "@jsquash/jpeg/codec/dec/mozjpeg_dec.js";
import loadPng, { decode as decodePng } from "@jsquash/png/codec/pkg/squoosh_png.js";
import loadWebp from "@jsquash/webp/codec/dec/webp_dec.js";
import type { Image } from "../../clip/image.ts";
import { crc32 } from "./crc32.ts";
import { imageTypeOf } from "./image_type.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/**
 * The most pixels of an image; more than the 108 megapixels of any camera. The codecs use 4 bytes
 * for each pixel, twice.
 */
const MAX_PIXELS = 2 ** 27;

/** mozjpeg's only option: whether to rotate the picture as its EXIF data says. */
const KEEP_ORIENTATION = false;

/** An image file that cannot be decoded: `Cannot decode photos/x.jpg: the JPEG is cut short, …`. */
export class ImageError extends Error {
  /** `"ImageError"`. */
  override name = "ImageError";

  /** Makes the error for a file, with what is wrong with it. */
  constructor(file: string, reason: string) {
    super(`Cannot decode ${file}: ${reason}`);
  }
}

/**
 * The pixels of a JPEG, PNG or WebP file. The format is recognized by the first bytes. As with
 * Pillow's `convert("RGB")`, alpha is dropped without compositing, the orientation in the EXIF data
 * is ignored, and of 16-bit values the lower 8 bits are dropped.
 *
 * @param name The name of the file in error messages.
 * @throws {ImageError} If the file has another format, is truncated or damaged, is a CMYK JPEG or
 * an animated PNG or WebP, or has more than 2²⁷ pixels.
 */
export async function decodeImage(
  bytes: Uint8Array<ArrayBuffer>,
  name: string,
): Promise<Image> {
  if (bytes.length === 0) throw new ImageError(name, "the file is empty");
  const type = imageTypeOf(bytes);
  if (!type) throw new ImageError(name, "it is not a JPEG, PNG or WebP image");
  return withoutAlpha(await { jpeg, png, webp }[type](bytes, name));
}

/** The interface of the modules that Emscripten builds. */
interface Decoder {
  decode(bytes: Bytes, ...options: boolean[]): ImageData | null;
}

/** A codec built by Emscripten. It is loaded on first use. */
class Codec {
  readonly #load: (options: object) => Promise<Decoder>;
  #loaded: Promise<Decoder> | undefined;
  #complaint = "";

  constructor(load: (options: object) => Promise<Decoder>) {
    this.#load = load;
  }

  async decode(bytes: Bytes, name: string, ...options: boolean[]): Promise<ImageData> {
    const decoder = await (this.#loaded ??= this.#load({
      print: () => {},
      printErr: (line: string) => this.#complaint = line,
    }));
    this.#complaint = "";
    try {
      const decoded = decoder.decode(bytes, ...options);
      if (decoded) return decoded;
    } catch {
      // The codec has aborted. It is loaded anew next time, because about a hundred aborts exhaust
      // its stack.
      this.#loaded = undefined;
    }
    throw damaged(name, this.#complaint);
  }
}

const JPEG = new Codec(loadJpeg);
const WEBP = new Codec(loadWebp);
let pngLoaded: ReturnType<typeof loadPng> | undefined;

/**
 * Checks that the markers of a JPEG lead to its end marker before decoding it: libjpeg would
 * silently fill missing data with grey. Bytes after the end marker are ignored.
 */
function jpeg(bytes: Bytes, name: string): Promise<ImageData> {
  const plain = bytes.slice();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 2; (at = bytes.indexOf(0xff, at)) >= 0 && at + 1 < bytes.length;) {
    const marker = bytes[++at];
    if (marker === 0xd9) return JPEG.decode(plain, name, KEEP_ORIENTATION);
    // Skip fill bytes, escaped bytes and restart markers in the image data, and other markers that
    // have no length.
    if (marker === 0xff || marker <= 0x01 || marker >= 0xd0 && marker <= 0xd8) continue;
    at++;
    if (at + 2 > bytes.length) break;
    // Turn EXIF data into a comment, so that no codec rotates the picture.
    if (marker === 0xe1) plain[at - 1] = 0xfe;
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      if (at + 8 > bytes.length) break;
      assertSize(view.getUint16(at + 5), view.getUint16(at + 3), name);
      if (bytes[at + 7] > 3) {
        throw new ImageError(name, "it is a JPEG of 4 inks (CMYK), convert it to RGB");
      }
    }
    at += view.getUint16(at);
  }
  throw cutShort("JPEG", bytes, name);
}

/**
 * Checks all chunks of a PNG before decoding it: the decoder ignores checksums, and aborts on most
 * other damage.
 */
async function png(bytes: Bytes, name: string): Promise<ImageData> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let isStill = false;
  for (let at = 8, kind = ""; kind !== "IEND";) {
    if (at + 12 > bytes.length) throw cutShort("PNG", bytes, name);
    const end = at + 8 + view.getUint32(at);
    if (end + 4 > bytes.length) throw cutShort("PNG", bytes, name);
    kind = ascii(bytes, at + 4, 4);
    // A chunk type that begins with a lower-case letter is ancillary: the image can be decoded
    // without the chunk.
    if (kind < "a" && crc32(bytes.subarray(at + 4, end)) !== view.getUint32(end)) {
      throw damaged(name, `wrong checksum of the ${kind} chunk at byte ${at}`);
    }
    if (at === 8) {
      if (kind !== "IHDR" || end < 29) throw damaged(name, "it does not begin with a header");
      assertSize(view.getUint32(16), view.getUint32(20), name);
    }
    // An animation says so before its image data. One frame is a still picture.
    isStill ||= kind === "IDAT";
    if (kind === "acTL" && !isStill && end >= at + 16 && view.getUint32(at + 8) > 1) {
      throw new ImageError(name, "it is an animated PNG, save one frame");
    }
    at = end + 4;
  }
  const codec = await (pngLoaded ??= loadPng());
  const stack = codec.__wbindgen_add_to_stack_pointer(0);
  try {
    return decodePng(bytes);
  } catch {
    // Restore the stack pointer. A panic does not, and a few hundred panics would exhaust the
    // stack.
    codec.__wbindgen_add_to_stack_pointer(stack - codec.__wbindgen_add_to_stack_pointer(0));
    throw damaged(name);
  }
}

/**
 * Checks the image size in the first chunk of a WebP before decoding it. Libwebp itself rejects
 * damaged files.
 */
function webp(bytes: Bytes, name: string): Promise<ImageData> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = ascii(bytes, 12, 4);
  const header = kind === "VP8L" ? 25 : 30;
  if (bytes.length < header || 8 + view.getUint32(4, true) > bytes.length) {
    throw cutShort("WebP", bytes, name);
  }
  if (kind === "VP8 ") {
    assertSize(view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff, name);
  } else if (kind === "VP8L") {
    const sizes = view.getUint32(21, true);
    assertSize((sizes & 0x3fff) + 1, (sizes >> 14 & 0x3fff) + 1, name);
  } else if (kind === "VP8X") {
    if (bytes[20] & 0x02) throw new ImageError(name, "it is an animated WebP, save one frame");
    assertSize(
      (view.getUint32(24, true) & 0xffffff) + 1,
      (view.getUint32(26, true) >>> 8) + 1,
      name,
    );
  } else {
    throw damaged(name, `unknown chunk "${kind}"`);
  }
  return WEBP.decode(bytes, name);
}

function withoutAlpha({ width, height, data }: ImageData): Image {
  const pixels = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < pixels.length; from += 4, to += 3) {
    pixels[to] = data[from];
    pixels[to + 1] = data[from + 1];
    pixels[to + 2] = data[from + 2];
  }
  return { width, height, pixels };
}

function assertSize(width: number, height: number, name: string): void {
  if (width > 0 && height > 0 && width * height <= MAX_PIXELS) return;
  throw new ImageError(
    name,
    `its header says ${width}x${height} pixels, between 1 and ${MAX_PIXELS} can be decoded`,
  );
}

function cutShort(kind: string, bytes: Bytes, name: string): ImageError {
  return new ImageError(
    name,
    `the ${kind} is cut short after ${bytes.length} bytes, replace or remove it`,
  );
}

function damaged(name: string, detail = ""): ImageError {
  return new ImageError(
    name,
    `its data is damaged${detail && ` (${detail})`}, replace or remove it`,
  );
}

function ascii(bytes: Bytes, from: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(from, from + length));
}
