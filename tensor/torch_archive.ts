/**
 * The containers that `torch.save` and `torch.jit.save` write. Since PyTorch 1.6 `torch.save`
 * writes a ZIP file, and before that pickles one after another (torch/serialization.py);
 * `torch.jit.save` writes a ZIP file of TorchScript (torch/csrc/jit/docs/serialization.md).
 *
 * @module
 */

import { type Pickle, unpickle } from "./pickle.ts";
import {
  PickleGlobal,
  PickleReference,
  type PickleValue,
  TruncatedPickleError,
} from "./pickle_value.ts";
import {
  type ByteSource,
  elementBytes,
  readExactly,
  type SafetensorsDtype,
  titleOf,
} from "./tensor_file.ts";
import { ZipFile } from "./zip.ts";

/** The object that was saved, and the storages with its tensors' bytes. Tensors may share one. */
export interface TorchArchive {
  /** The object that was saved. */
  readonly object: PickleValue;
  /**
   * The storage under a key.
   *
   * @throws {RangeError} If there is none, or it cannot be read.
   */
  storage(key: string): TorchStorage;
}

/** A storage: a range of the file that holds the bytes of tensors. */
export interface TorchStorage {
  /** How many bytes it has. */
  readonly bytes: number;
  /** Offset of its first byte in the file. */
  start(): number | Promise<number>;
}

/** What a pickle says of a storage. */
export interface StorageClaim {
  /** Its key in the archive. */
  readonly key: string;
  /** The type of its elements, as PyTorch names it: `"Float"`, `"ComplexDouble"`. */
  readonly kind: string;
  /** The same type as safetensors names it, if it has a name there. */
  readonly dtype?: SafetensorsDtype;
  /** How many bytes an element has. */
  readonly elementBytes: number;
  /** How many bytes the storage has. */
  readonly bytes: number;
  /** The first byte of the storage that a tensor may use. */
  readonly first: number;
  /** The byte after the last that a tensor may use. */
  readonly end: number;
}

const MAX_PICKLE_BYTES = 64 * 2 ** 20;
const MAX_NAME_LETTERS = 500;
const MAGIC = 0x1950a86a20f9469cfc6cn;
const VERSION = 1001;

/** Each dtype, its name in PyTorch, and the name of its storages there. */
const TORCH_DTYPES: readonly (readonly [SafetensorsDtype, string, string])[] = [
  ["F64", "torch.float64", "Double"],
  ["F32", "torch.float32", "Float"],
  ["F16", "torch.float16", "Half"],
  ["BF16", "torch.bfloat16", "BFloat16"],
  ["I64", "torch.int64", "Long"],
  ["I32", "torch.int32", "Int"],
  ["I16", "torch.int16", "Short"],
  ["I8", "torch.int8", "Char"],
  ["U64", "torch.uint64", ""], // these three have untyped storages
  ["U32", "torch.uint32", ""],
  ["U16", "torch.uint16", ""],
  ["U8", "torch.uint8", "Byte"],
  ["BOOL", "torch.bool", "Bool"],
];

/**
 * Bytes of an element for storages that no dtype here describes. Their tensors cannot be read, but
 * other storages come after them in the file.
 */
const OTHER_STORAGES: ReadonlyMap<string, number> = new Map([
  ["Untyped", 1],
  ["ComplexFloat", 8],
  ["ComplexDouble", 16],
  ["QInt8", 1],
  ["QUInt8", 1],
  ["QUInt4x2", 1],
  ["QUInt2x4", 1],
  ["QInt32", 4],
]);

/**
 * The classes and functions that a pickle may name: those that make tensors or modules of
 * TorchScript, and those that `torch.load(weights_only=True)` allows beside them. None of them is
 * called.
 */
const ALLOWED: readonly RegExp[] = [
  /^collections\.(OrderedDict|Counter)$/,
  /^_codecs\.encode$/,
  /^(builtins|__builtin__)\.(bytearray|complex|set)$/,
  /^torch\.(Size|Tensor|device|nn\.parameter\.Parameter|serialization\._get_layout)$/,
  /^torch\.(bool|(b?float|complex|q?u?int|bits)\d\w*|per_(tensor|channel)_\w+)$/,
  /^torch\.(cuda\.|storage\.)?\w+Storage$/,
  /^torch\._utils\._rebuild_\w+$/,
  /^torch\._tensor\._rebuild_from_type_v2$/,
  /^torch\.jit\._pickle\.(build_\w+|restore_type_tag)$/,
  /^__torch__\.[\w.]+$/,
];

/**
 * Reads the object that a PyTorch file holds, and where its storages are, but not their bytes.
 *
 * @throws {RangeError} If it is no such file, is damaged, or names a class or function that is not
 * allowed.
 */
export async function openArchive(source: ByteSource): Promise<TorchArchive> {
  const signature = await readExactly(source, 0, Math.min(4, source.size));
  if (String.fromCharCode(...signature) === "PK\x03\x04") return await openZip(source);
  // A pickle begins with its protocol, or before protocol 2 with the magic number.
  if (signature[0] !== 0x80 && signature[0] !== 0x4c) {
    throw failure(source, "it is neither a ZIP file nor a pickle, so no checkpoint of PyTorch");
  }
  for (let length = 2 ** 20;; length *= 4) {
    const bytes = await readExactly(source, 0, Math.min(length, source.size));
    try {
      return await openPickles(source, bytes);
    } catch (error) {
      // Only reading the pickles shows how long they are: more bytes are tried.
      const hasMore = bytes.length < Math.min(source.size, MAX_PICKLE_BYTES);
      if (!(error instanceof TruncatedPickleError) || !hasMore) throw error;
    }
  }
}

/** The claim of a reference to a storage; undefined for any other value. */
export function storageClaim(value: PickleValue): StorageClaim | undefined {
  const id = value instanceof PickleReference ? value.id : null;
  if (!Array.isArray(id) || id[0] !== "storage") return;
  const [, type, key, , count, view] = id as PickleValue[];
  const [, kind] = type instanceof PickleGlobal ? /(\w+)Storage$/.exec(type.name) ?? [] : [];
  if (!kind || typeof key !== "string") return;
  const dtype = TORCH_DTYPES.find(([, , storage]) => storage === kind)?.[0];
  const size = dtype ? elementBytes(dtype) : OTHER_STORAGES.get(kind);
  // In the old format a storage may be a view of another one, given by a key, an offset and a size.
  const [, offset, length] = Array.isArray(view) ? view as PickleValue[] : [key, 0, count];
  if (!size || !isCount(count) || !isCount(offset) || !isCount(length)) return;
  return {
    key,
    kind,
    dtype,
    elementBytes: size,
    bytes: count * size,
    first: offset * size,
    end: Math.min(offset + length, count) * size,
  };
}

/** The dtype that PyTorch has under a name such as `"torch.float32"`, if safetensors has it. */
export function dtypeOf(name: string): SafetensorsDtype | undefined {
  return TORCH_DTYPES.find(([, torch]) => torch === name)?.[0];
}

/** Whether a value is an integer from 0 on. */
export function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** The error of a file that cannot be read. */
export function failure(source: ByteSource, why: string): RangeError {
  return new RangeError(`Cannot read ${source.name}: ${why}`);
}

function readPickle(source: ByteSource, bytes: Uint8Array<ArrayBuffer>, start = 0): Pickle {
  const allows = (name: string) =>
    name.length <= MAX_NAME_LETTERS && ALLOWED.some((pattern) => pattern.test(name));
  return unpickle(bytes, { file: source.name, allows, start });
}

/**
 * Opens a ZIP file. Everything is in one folder: the object in `data.pkl`, and each storage in
 * `data/KEY`, or in old TorchScript in `tensors/KEY`.
 */
async function openZip(source: ByteSource): Promise<TorchArchive> {
  const zip = await ZipFile.open(source);
  const read = async (name: string) => {
    const { size } = zip.entry(name);
    if (size > MAX_PICKLE_BYTES) throw failure(source, `its ${titleOf(name)} has ${size} bytes`);
    return await readExactly(source, await zip.start(name), size);
  };
  const pickles = [...zip.entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) {
    throw failure(source, `it has ${pickles.length} data.pkl, a checkpoint of PyTorch has one`);
  }
  const folder = pickles[0].slice(0, pickles[0].indexOf("/"));
  const order = `${folder}/byteorder`;
  if (zip.entries.has(order) && new TextDecoder().decode(await read(order)) !== "little") {
    throw failure(source, BIG_ENDIAN);
  }
  const { value } = readPickle(source, await read(pickles[0]));
  return {
    object: value,
    storage(key) {
      const old = `${folder}/tensors/${key}`;
      const name = zip.entries.has(old) ? old : `${folder}/data/${key}`;
      return { bytes: zip.entry(name).size, start: () => zip.start(name) };
    },
  };
}

const BIG_ENDIAN = "its numbers are big-endian, and little-endian ones are read";

/**
 * Opens a file of pickles: of a magic number, a version, the system, the object, and the keys of
 * its storages. The storages follow, each after its number of elements.
 */
async function openPickles(
  source: ByteSource,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<TorchArchive> {
  let at = 0;
  const next = () => {
    const pickle = readPickle(source, bytes, at);
    at = pickle.end;
    return pickle;
  };
  if (next().value !== MAGIC || next().value !== VERSION) {
    throw failure(source, "it is a pickle, but not one of torch.save");
  }
  const system = next().value;
  if (!(system instanceof Map) || system.get("little_endian") !== true) {
    throw failure(source, BIG_ENDIAN);
  }
  const { value: object, references } = next();
  const { value: keys } = next();
  const claims = new Map<PickleValue, StorageClaim>();
  for (const claim of references.map(storageClaim)) if (claim) claims.set(claim.key, claim);
  const storages = new Map<PickleValue, TorchStorage>();
  for (const key of Array.isArray(keys) ? keys as PickleValue[] : []) {
    const claim = claims.get(key);
    if (!claim || storages.has(key)) {
      throw failure(source, "it is damaged, it has a storage of no tensor or has one twice");
    }
    const { buffer, byteOffset } = await readExactly(source, at, 8);
    const count = Number(new DataView(buffer, byteOffset).getBigUint64(0, true));
    const [start, size] = [at + 8, count * claim.elementBytes];
    if (start + size > source.size) {
      throw failure(source, `it is truncated, ${size} bytes of tensors begin at ${start}`);
    }
    storages.set(key, { bytes: size, start: () => start });
    at = start + size;
  }
  return {
    object,
    storage(key) {
      const storage = storages.get(key);
      if (!storage) throw failure(source, `it has no storage ${titleOf(key)}`);
      return storage;
    },
  };
}
