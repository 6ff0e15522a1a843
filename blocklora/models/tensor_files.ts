/**
 * Opens the weight files of a model, detects their format, and hashes them.
 *
 * @module
 */

import { SafetensorsFile } from "../../tensor/safetensors.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { ByteSource, TensorFile } from "../../tensor/tensor_file.ts";
import { TorchFile } from "../../tensor/torch_file.ts";
import { openFile } from "../system/files.ts";

/** An open file. Disposing of it closes it. */
export type OpenFile = ByteSource & Disposable;

/** Opens all files. If one cannot be opened, closes the rest and throws. */
export async function openAll(paths: readonly string[]): Promise<OpenFile[]> {
  const opened = await Promise.allSettled(paths.map(openFile));
  const sources = opened.flatMap((file) => file.status === "fulfilled" ? [file.value] : []);
  const failed = opened.find((file) => file.status === "rejected");
  if (!failed) return sources;
  for (const source of sources) source[Symbol.dispose]();
  throw failed.reason;
}

/** Opens a file of tensors. The format is detected from the content, not from the name. */
export async function openTensors(source: ByteSource): Promise<TensorFile> {
  const [first, second, , , , , , , ninth] = await source.read(0, Math.min(9, source.size));
  const isZip = first === 0x50 && second === 0x4B;
  const isPickle = first === 0x80;
  // A safetensors file begins with 8 bytes of any value, followed by an opening brace.
  if (ninth !== 0x7B && (isZip || isPickle)) return await TorchFile.open(source);
  return await SafetensorsFile.open(source);
}

/** The shapes of all tensors in `files`, by name. */
export function shapesOf(files: readonly TensorFile[]): Map<string, Shape> {
  return new Map(
    files.flatMap(({ tensors }) => [...tensors].map(([name, { shape }]) => [name, shape] as const)),
  );
}

/**
 * Files are hashed in chunks of this many bytes, because a complete file may not fit into memory.
 */
const CHUNK_BYTES = 1 << 24;

/** A hash of the contents of files and of their description. */
export async function fingerprintOf(
  sources: readonly ByteSource[],
  description: string,
): Promise<string> {
  const hashes = [await sha256(new TextEncoder().encode(description))];
  for (const source of sources) {
    for (let at = 0; at < source.size; at += CHUNK_BYTES) {
      hashes.push(await sha256(await source.read(at, Math.min(CHUNK_BYTES, source.size - at))));
    }
    hashes.push(String(source.size));
  }
  return (await sha256(new TextEncoder().encode(hashes.join()))).slice(0, 32);
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}
