/**
 * Checkpoints as `torch.save` writes them, for tests of what reads them.
 *
 * @module
 */

import { floatsToHalves } from "../tensor/half.ts";
import { numel } from "../tensor/shape.ts";
import type { TensorToSave } from "../tensor/encode_safetensors.ts";

const KINDS = { F32: "FloatStorage", F16: "HalfStorage" } as const;

/** A state dict of tensors in F32 or F16, in a ZIP archive. */
export function encodeTorch(
  tensors: Readonly<Record<string, TensorToSave>>,
): Uint8Array<ArrayBuffer> {
  const entries = Object.entries(tensors);
  const items = entries.map(([name, { dtype, shape }], key) => {
    const kind = KINDS[dtype as keyof typeof KINDS];
    const [size, strides] = [shape, shape.map((_, axis) => numel(shape.slice(axis + 1)))]
      .map((list) => `(${list.map((value) => `I${value}\n`).join("")}t`);
    const storage = `(${text("storage")}ctorch\n${kind}\n${text(`${key}`)}${text("cpu")}I${
      numel(shape)
    }\ntQ`;
    return `${text(name)}ctorch._utils\n_rebuild_tensor_v2\n` +
      `(${storage}I0\n${size}${strides}\x89ccollections\nOrderedDict\n)RtR`;
  });
  return storedZip([
    ["archive/data.pkl", binary(`\x80\x02}(${items.join("")}u.`)],
    ...entries.map(([, { dtype, data }], key): [string, Uint8Array<ArrayBuffer>] => [
      `archive/data/${key}`,
      dtype === "F16" ? bytesOf(halves(data)) : bytesOf(Float32Array.from(data)),
    ]),
    ["archive/version", binary("3\n")],
  ]);
}

/** A file of `torch.save` that holds a given pickle. */
export function pickleFile(pickle: string): Uint8Array<ArrayBuffer> {
  return storedZip([["archive/data.pkl", binary(pickle)]]);
}

/** A ZIP archive that stores files uncompressed. */
function storedZip(
  entries: readonly (readonly [name: string, data: Uint8Array<ArrayBuffer>])[],
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const directory: Uint8Array<ArrayBuffer>[] = [];
  let at = 0;
  for (const [name, data] of entries) {
    const sizes = [0, data.length, data.length].flatMap((value) => bytes(value, 4));
    const packing = [...bytes(0, 8), ...sizes]; // version, no flags, stored, no time
    const local = [...binary("PK\x03\x04"), ...bytes(0, 2), ...packing, ...bytes(name.length, 2)];
    const header = Uint8Array.from([...local, ...bytes(0, 2), ...binary(name)]);
    directory.push(Uint8Array.from([
      ...[...binary("PK\x01\x02"), ...bytes(0, 4), ...packing, ...bytes(name.length, 2)],
      ...[...bytes(0, 12), ...bytes(at, 4), ...binary(name)],
    ]));
    parts.push(header, data);
    at += header.length + data.length;
  }
  const size = directory.reduce((sum, { length }) => sum + length, 0);
  const end = Uint8Array.from([
    ...[...binary("PK\x05\x06"), ...bytes(0, 4), ...bytes(entries.length, 2)],
    ...[...bytes(entries.length, 2), ...bytes(size, 4), ...bytes(at, 4), ...bytes(0, 2)],
  ]);
  return joined([...parts, ...directory, end]);
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const made = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  parts.reduce((at, chunk) => (made.set(chunk, at), at + chunk.length), 0);
  return made;
}

/** A string as a pickle encodes it. */
function text(value: string): string {
  return `X${String.fromCharCode(value.length, 0, 0, 0)}${value}`;
}

function binary(value: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(value, (character) => character.charCodeAt(0));
}

/** A number in so many bytes, the lowest first. */
function bytes(value: number, length: number): number[] {
  return Array.from({ length }, (_, i) => Math.floor(value / 256 ** i) % 256);
}

function halves(data: ArrayLike<number>): Uint16Array<ArrayBuffer> {
  const made = new Uint16Array(data.length);
  floatsToHalves(Float32Array.from(data), made, 0);
  return made;
}

function bytesOf({ buffer }: { buffer: ArrayBuffer }): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer);
}
