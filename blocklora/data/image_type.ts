/**
 * Tells the formats of images apart.
 *
 * @module
 */

/** The formats that are read, as MIME calls them: `image/jpeg`. */
export type ImageType = "jpeg" | "png" | "webp";

/** The format of an image file by its first bytes, whatever its name is; null if it is another. */
export function imageTypeOf(bytes: Uint8Array): ImageType | null {
  const head = String.fromCharCode(...bytes.subarray(0, 12));
  if (head.startsWith("\x89PNG\r\n\x1a\n")) return "png";
  if (head.startsWith("\xff\xd8\xff")) return "jpeg";
  return head.startsWith("RIFF") && head.endsWith("WEBP") ? "webp" : null;
}
