/** Damages safetensors files, or turns them into those of another model. */

/** The offset at which a safetensors file's data begin. */
function dataOffset(file: Uint8Array<ArrayBuffer>): number {
  return 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
}

/** The file with another header length written in it. */
export function withHeaderLength(file: Uint8Array<ArrayBuffer>, length: number): Uint8Array {
  const changed = file.slice();
  new DataView(changed.buffer).setBigUint64(0, BigInt(length), true);
  return changed;
}

type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;

function headerOf(file: Uint8Array<ArrayBuffer>): Header {
  return JSON.parse(new TextDecoder().decode(file.subarray(8, dataOffset(file))));
}

/** The file with two tensors that share their data. */
export function withOverlap(file: Uint8Array<ArrayBuffer>): Uint8Array {
  const header = headerOf(file);
  const bias = (layer: number) => header[`vision_model.encoder.layers.${layer}.mlp.fc1.bias`];
  bias(1).data_offsets = bias(0).data_offsets;
  const text = new TextEncoder().encode(JSON.stringify(header));
  const changed = file.slice();
  changed.fill(0x20, 8, dataOffset(file));
  changed.set(text, 8);
  return changed;
}

/** The file with the signs of its visual projection flipped; that is in half precision. */
export function withOtherProjection(file: Uint8Array<ArrayBuffer>): Uint8Array {
  const [from, to] = headerOf(file)["visual_projection.weight"].data_offsets;
  const changed = file.slice();
  const start = dataOffset(file);
  for (let at = start + from + 1; at < start + to; at += 2) changed[at] ^= 0x80;
  return changed;
}
