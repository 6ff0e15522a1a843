/**
 * A hash that identifies a model's weights. It is computed while they are read.
 *
 * @module
 */

import { numel, type Shape } from "../tensor/shape.ts";

/** Number of elements that are hashed at once: 1 MiB. */
const BLOCK = 2 ** 18;

/**
 * SHA-256 of the name, the shape and the f32 values of all weights. Files that hold the same values
 * in another order, layout or type therefore have the same hash. The values are hashed block by
 * block, and then the hashes of the blocks are hashed.
 */
export class WeightsHash {
  readonly #tensors: Promise<Uint8Array>[] = [];
  #blocks: Promise<ArrayBuffer>[] = [];
  readonly #block = new Float32Array(BLOCK);
  #filled = 0;
  #header = "";
  #shape: Shape = [];
  #transposed: Float32Array[] | null = null;

  /** Begins a weight. If `transposed` is true, its values come in the order of its transpose. */
  begin(name: string, shape: Shape, transposed: boolean): void {
    this.#header = JSON.stringify([name, shape]);
    this.#shape = shape;
    this.#transposed = transposed ? [] : null;
  }

  /**
   * Adds values, which are hashed while the caller goes on. Before that, it waits for the values
   * added last. Otherwise the entire file would pile up in memory, because it is read faster than
   * hashed.
   */
  async add(values: Float32Array<ArrayBuffer>): Promise<void> {
    await Promise.all([...this.#tensors.slice(-1), ...this.#blocks]);
    if (this.#transposed) this.#transposed.push(values.slice());
    else this.#addInOrder(values);
  }

  /** Ends the weight that was begun last. */
  end(): void {
    if (this.#transposed) this.#addInOrder(joined(this.#transposed, this.#shape));
    if (this.#filled > 0) this.#flush();
    const [header, blocks] = [new TextEncoder().encode(this.#header), this.#blocks];
    this.#blocks = [];
    this.#tensors.push((async () => {
      const hashes = await Promise.all(blocks);
      return new Uint8Array(await sha256(concatenated([header, ...hashes])));
    })());
  }

  /** The hash of all weights, in hexadecimal; null if there is no `crypto.subtle`. */
  async digest(): Promise<string | null> {
    if (!globalThis.crypto?.subtle) return null;
    const all = await sha256(concatenated(await Promise.all(this.#tensors)));
    return Array.from(new Uint8Array(all), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  #addInOrder(values: Float32Array<ArrayBuffer>): void {
    for (let at = 0; at < values.length;) {
      const piece = values.subarray(at, at + BLOCK - this.#filled);
      at += piece.length;
      if (piece.length === BLOCK) {
        this.#blocks.push(sha256(piece));
        continue;
      }
      this.#block.set(piece, this.#filled);
      this.#filled += piece.length;
      if (this.#filled === BLOCK) this.#flush();
    }
  }

  #flush(): void {
    this.#blocks.push(sha256(this.#block.subarray(0, this.#filled)));
    this.#filled = 0;
  }
}

/**
 * Hashes `data`. The caller may overwrite the bytes as soon as this returns, because `digest`
 * copies them first.
 */
async function sha256(data: BufferSource): Promise<ArrayBuffer> {
  return await globalThis.crypto?.subtle?.digest("SHA-256", data) ?? new ArrayBuffer(0);
}

/** Joins the pieces of a transpose, and returns the values of the matrix `[rows, cols]`. */
function joined(
  pieces: readonly Float32Array[],
  [rows, cols]: Shape,
): Float32Array<ArrayBuffer> {
  const values = new Float32Array(numel([rows, cols]));
  let at = 0;
  for (const piece of pieces) {
    for (const value of piece) {
      values[(at % rows) * cols + Math.floor(at / rows)] = value;
      at++;
    }
  }
  return values;
}

function concatenated(parts: readonly (ArrayBuffer | Uint8Array)[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((size, { byteLength }) => size + byteLength, 0));
  parts.reduce((at, piece) => {
    bytes.set(new Uint8Array(piece), at);
    return at + piece.byteLength;
  }, 0);
  return bytes;
}
