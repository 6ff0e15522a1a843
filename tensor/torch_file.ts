/**
 * Tensors out of what `torch.save` and `torch.jit.save` write. Nothing in a file is run.
 *
 * @module
 */

import { PickleGlobal, PickleObject, type PickleValue } from "./pickle_value.ts";
import { contiguousStrides, isContiguous, numel, type Shape } from "./shape.ts";
import {
  type ByteSource,
  elementBytes,
  PIECE_BYTES,
  readExactly,
  type TensorDescription,
  type TensorFile,
  titleOf,
  toFloats,
} from "./tensor_file.ts";
import {
  dtypeOf,
  failure,
  isCount,
  openArchive,
  storageClaim,
  type TorchArchive,
  type TorchStorage,
} from "./torch_archive.ts";

/** A tensor, and where its elements are. */
interface StoredTensor extends TensorDescription {
  readonly storage: TorchStorage;
  /** The byte of the storage at which the first element begins. */
  readonly offset: number;
  /** The bytes from there to the end of the last element. */
  readonly span: number;
  /** Elements to step along each axis. */
  readonly strides: Shape;
}

const MAX_GATHERED_BYTES = 2 ** 30;
const MAX_AXES = 64;
const MAX_DEPTH = 64;
const MAX_LETTERS = 2 ** 24;

/** A checkpoint of PyTorch. All of it but its tensors' elements has been read and checked. */
export class TorchFile implements TensorFile {
  /** The tensors, by name. */
  readonly tensors: ReadonlyMap<string, TensorDescription>;
  readonly #stored: ReadonlyMap<string, StoredTensor>;
  readonly #source: ByteSource;

  private constructor(source: ByteSource, stored: ReadonlyMap<string, StoredTensor>) {
    this.#source = source;
    this.#stored = stored;
    this.tensors = new Map(
      [...stored.values()].map(({ name, dtype, shape }) => [name, { name, dtype, shape }]),
    );
  }

  /**
   * Opens a file, and finds the tensors in the dict or TorchScript module that was saved, and in
   * those nested in it. Nested names are joined by dots; other values are skipped. As in the
   * loaders of open_clip and CoOp, a training checkpoint stands for its `state_dict`, and the
   * prefix `module.`, which training on several GPUs puts before all names, is removed.
   *
   * @throws {RangeError} If the file is truncated or damaged, is not one of PyTorch's, names a
   * class or function that is not allowed, or has a tensor that cannot be read.
   */
  static async open(source: ByteSource): Promise<TorchFile> {
    const archive = await openArchive(source);
    const stored = new Map<string, StoredTensor>();
    for (const [name, made] of namedTensors(archive.object, source)) {
      stored.set(name, locate(name, made, archive, source));
    }
    return new TorchFile(source, stored);
  }

  /** What errors call the file. */
  get name(): string {
    return this.#source.name;
  }

  /**
   * A tensor's bytes, row-major, little-endian as they are in the file.
   *
   * @throws {RangeError} If there is no such tensor.
   */
  async bytes(name: string): Promise<Uint8Array<ArrayBuffer>> {
    for await (const { bytes } of this.#pieces(name, Infinity)) return bytes;
    return new Uint8Array();
  }

  /**
   * A tensor's elements as f32, row-major: F32, F16 and BF16 exactly, F64 rounded.
   *
   * @throws {RangeError} If there is no such tensor.
   * @throws {TypeError} If its elements are no floats.
   */
  async floats(name: string): Promise<Float32Array<ArrayBuffer>> {
    const bytes = await this.bytes(name);
    return toFloats(bytes, this.#stored.get(name)!, this.name);
  }

  /**
   * The elements that {@linkcode TorchFile.floats} gives, in pieces of at most `pieceBytes` bytes
   * of the file, 16 MiB by default. If a tensor's elements are in another order in the file, all
   * bytes that it spans there are read first. `start` is the index of a piece's first element.
   *
   * @throws {RangeError} If there is no such tensor.
   * @throws {TypeError} If its elements are no floats.
   */
  async *pieces(
    name: string,
    pieceBytes: number = PIECE_BYTES,
  ): AsyncGenerator<{ start: number; values: Float32Array<ArrayBuffer> }> {
    for await (const { start, bytes } of this.#pieces(name, pieceBytes)) {
      yield { start, values: toFloats(bytes, this.#stored.get(name)!, this.name) };
    }
  }

  async *#pieces(
    name: string,
    pieceBytes: number,
  ): AsyncGenerator<{ start: number; bytes: Uint8Array<ArrayBuffer> }> {
    const tensor = this.#stored.get(name);
    if (!tensor) throw new RangeError(`Cannot find ${titleOf(name)} in ${this.name}`);
    const { dtype, shape, strides, storage, offset, span } = tensor;
    if (span === 0) return;
    const [count, size] = [numel(shape), elementBytes(dtype)];
    const step = Math.max(1, Math.floor(pieceBytes / size));
    const from = await storage.start() + offset;
    const isOrdered = isContiguous(shape, strides);
    const spanned = isOrdered ? undefined : await readExactly(this.#source, from, span);
    for (let start = 0; start < count; start += step) {
      const length = Math.min(step, count - start);
      const bytes = spanned
        ? gather(spanned, tensor, start, length)
        : await readExactly(this.#source, from + start * size, length * size);
      yield { start, bytes };
    }
  }
}

/** The call that makes each tensor, by the tensor's name. */
function namedTensors(
  object: PickleValue,
  source: ByteSource,
): ReadonlyMap<string, PickleObject> {
  const inTraining = object instanceof Map ? object.get("state_dict") : undefined;
  const root = inTraining instanceof Map ? inTraining : object;
  if (!(root instanceof Map) && !isModule(root)) {
    throw failure(source, "it holds no dict of tensors, save the state dict");
  }
  const found = new Map<string, PickleObject>();
  let letters = 0;
  const visit = (parent: PickleValue, path: string, depth: number) => {
    const children = isModule(parent) ? parent.state : parent;
    if (!(children instanceof Map)) return;
    if (depth > MAX_DEPTH) throw failure(source, `more than ${MAX_DEPTH} dicts are in each other`);
    for (const [key, child] of children) {
      if (typeof key !== "string") continue;
      const name = path + key;
      letters += 1 + name.length; // a few dicts, nested in each other, can have any number of names
      if (letters > MAX_LETTERS) throw failure(source, "its names are too many or too long");
      if (child instanceof PickleObject && MAKES_TENSORS.test(child.maker)) {
        if (found.has(name)) throw failure(source, `it has tensor ${titleOf(name)} twice`);
        found.set(name, child);
      } else if (child instanceof Map && isModule(parent)) {
        // The state dict of a module has only its parameters and buffers, and those of its modules.
        continue;
      } else visit(child, `${name}.`, depth + 1);
    }
  };
  visit(root, "", 1);
  const [prefix, names] = ["module.", [...found.keys()]];
  if (!names.every((name) => name.startsWith(prefix))) return found;
  return new Map([...found].map(([name, made]) => [name.slice(prefix.length), made]));
}

const MAKES_TENSORS = /^torch\.(_utils\._rebuild_|_tensor\._rebuild_from_type_v2$)/;
const GIVES_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2";
const MAKES_DENSE_TENSORS = /^torch\._utils\._rebuild_tensor(_v[23])?$/;
const MAKES_PARAMETERS = /^torch\._utils\._rebuild_parameter(_with_state)?$/;

function isModule(value: PickleValue): value is PickleObject {
  return value instanceof PickleObject && value.maker.startsWith("__torch__.");
}

/**
 * The call that makes a tensor itself, inside calls that make a parameter of it or set attributes.
 */
function unwrapped(made: PickleObject): PickleObject {
  for (let wraps = 0; wraps < 4; wraps++) {
    const [inner, , args] = made.args;
    if (MAKES_PARAMETERS.test(made.maker) && inner instanceof PickleObject) made = inner;
    else if (made.maker !== GIVES_ATTRIBUTES) break;
    else if (inner instanceof PickleGlobal && isArray(args)) {
      made = new PickleObject(inner.name, args);
    }
  }
  return made;
}

/** Checks a tensor, and finds where its bytes are, before any of them is read. */
function locate(
  name: string,
  made: PickleObject,
  archive: TorchArchive,
  source: ByteSource,
): StoredTensor {
  const fail = (why: string) => failure(source, `tensor ${titleOf(name)} ${why}`);
  const { maker, args } = unwrapped(made);
  if (!MAKES_DENSE_TENSORS.test(maker)) {
    throw fail(`is made by ${titleOf(maker)}, only dense tensors are read`);
  }
  const [reference, first, shape, strides] = args;
  const isThird = maker.endsWith("_v3");
  const [type, notes] = isThird ? [args[6], args[7]] : [null, args[6]];
  const claim = storageClaim(reference);
  if (!claim || !isCount(first)) throw fail("is damaged, it does not say where it is");
  const kind = type instanceof PickleGlobal ? type.name : claim.kind;
  const dtype = isThird ? dtypeOf(kind) : claim.dtype;
  if (!dtype) throw fail(`is ${kind}, which cannot be read`);
  if (notes instanceof Map && notes.size > 0) {
    throw fail("has its sign beside its bytes, save a clone of it");
  }
  if (!areCounts(shape) || !areCounts(strides) || shape.length !== strides.length) {
    throw fail("is damaged, it needs a size and a stride from 0 on for each axis");
  }
  if (shape.length > MAX_AXES) throw fail(`has ${shape.length} axes, at most ${MAX_AXES} are read`);
  const title = `of shape [${shape}]`;
  const size = elementBytes(dtype);
  const count = shape.includes(0) ? 0 : numel(shape);
  const last = shape.reduce((sum, length, axis) => sum + (length - 1) * strides[axis], 0);
  const offset = claim.first + first * size;
  const span = count === 0 ? 0 : (last + 1) * size;
  const storage = archive.storage(claim.key);
  if (claim.bytes > storage.bytes) {
    throw fail(`has a storage of ${claim.bytes} bytes, and the file has ${storage.bytes} of them`);
  }
  if (count > 0 && offset + span > claim.end) throw fail(`${title} goes beyond its storage`);
  if (count * size > Math.max(source.size, PIECE_BYTES)) {
    throw fail(`${title} repeats its elements to more than the file has`);
  }
  if (span > MAX_GATHERED_BYTES && !isContiguous(shape, strides)) {
    throw fail(`${title} is spread over ${span} bytes, save it contiguous`);
  }
  return { name, dtype, shape, strides, storage, offset, span };
}

function isArray(value: PickleValue): value is readonly PickleValue[] {
  return Array.isArray(value);
}

function areCounts(value: PickleValue): value is readonly number[] {
  return isArray(value) && value.every(isCount);
}

/**
 * Copies `count` elements, from the `start`-th on in row-major order, out of the bytes that the
 * tensor spans in the file.
 */
function gather(
  spanned: Uint8Array,
  { dtype, shape, strides }: StoredTensor,
  start: number,
  count: number,
): Uint8Array<ArrayBuffer> {
  const size = elementBytes(dtype);
  const packed = new Uint8Array(count * size);
  const steps = strides.map((stride) => stride * size);
  const index = contiguousStrides(shape).map((step, axis) =>
    Math.floor(start / step) % shape[axis]
  );
  let from = index.reduce((sum, at, axis) => sum + at * steps[axis], 0);
  for (let to = 0; to < packed.length; to += size) {
    for (let byte = 0; byte < size; byte++) packed[to + byte] = spanned[from + byte];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += steps[axis];
      if (++index[axis] < shape[axis]) break;
      from -= steps[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return packed;
}
