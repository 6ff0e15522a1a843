/**
 * Frozen weights stored in half precision: read exactly, multiplied in f32, half the memory.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { fileURLToPath } from "node:url";
import { zeros } from "../autograd/ops/create.ts";
import { embedding } from "../autograd/ops/embedding.ts";
import { layerNorm } from "../autograd/ops/layer_norm.ts";
import { patchEmbedding } from "../autograd/ops/conv.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import { l2Normalize } from "../autograd/ops/normalize.ts";
import { add, addScalar, mul } from "../autograd/ops/pointwise.ts";
import { sum } from "../autograd/ops/reduce.ts";
import { softmax } from "../autograd/ops/softmax.ts";
import { concat, contiguous, reshape, slice, transpose } from "../autograd/ops/view.ts";
import { valueAndGrad, vjp } from "../autograd/tape.ts";
import { DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { attach } from "../blocklora/methods/lookup.ts";
import { FLAGS as MERGE_FLAGS } from "../blocklora/commands/merge.ts";
import { EMBEDDED_MODEL } from "../blocklora/models/open_model.ts";
import { DEFAULT_RECIPE } from "../blocklora/methods/recipe.ts";
import { Trainer } from "../blocklora/training/trainer.ts";
import { Clip } from "../clip/clip.ts";
import { parseConfig } from "../clip/config.ts";
import { weightShapes } from "../clip/clip.ts";
import { type Precision, storedAs } from "../clip/weights.ts";
import { tensor } from "../tensor/create.ts";
import { gpu } from "../tensor/device.ts";
import { memory } from "../tensor/memory.ts";
import { measure, total } from "../tensor/measure.ts";
import { upload } from "../tensor/queue.ts";
import { Random } from "../tensor/random.ts";
import type { SafetensorsFile } from "../tensor/safetensors.ts";
import type { TensorToSave } from "../tensor/encode_safetensors.ts";
import { keep, scope } from "../tensor/scope.ts";
import { broadcast, numel, type Shape } from "../tensor/shape.ts";
import { Tensor } from "../tensor/tensor.ts";
import { Grid } from "./check_op.ts";
import { fixtures, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";
import {
  byOpenaiNames,
  Comparison,
  directoriesIn,
  encoded,
  floatTensor,
  logitsOf,
  openedClip,
  openSafetensors,
  randomInputs,
  randomWeights,
  readJson,
  TINY,
} from "./reference.ts";
import { EACH_TILE, withVariant } from "./variants.ts";

/** Normal numbers, the same each time. */
function normals(count: number, stream: string): Float32Array<ArrayBuffer> {
  const random = new Random(3, stream);
  return Float32Array.from({ length: count }, () => random.normal());
}

/** What halves keep of numbers, by an implementation that is not ours. */
function rounded(values: Float32Array): Float32Array<ArrayBuffer> {
  return Float32Array.from(values, Math.f16round);
}

function assertNear(actual: ArrayLike<number>, expected: Float64Array, tolerance: number): void {
  assertEquals(actual.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    // Written so that NaN fails.
    const near = Math.abs(actual[i] - expected[i]) <= tolerance * (1 + Math.abs(expected[i]));
    assert(near, `element ${i} is ${actual[i]}, not ${expected[i]}`);
  }
}

gpuTest("every half is read as the number it is, on the host and by kernels", async () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const x = Tensor.on(upload(bits), [65536], "f16");
  const expected = Float32Array.from(new Float16Array(bits.buffer));
  const held = await x.data();
  assert(held.every((value, i) => Object.is(value, expected[i])));
  // What WGSL makes of NaN and infinity is not defined.
  const finite = keep(addScalar(x, 0));
  const read = await finite.data();
  for (const [i, value] of expected.entries()) {
    if (Number.isFinite(value)) assertEquals(read[i], value + 0, `of the bits ${i}`);
  }
  for (const each of [x, finite]) each.release();
});

gpuTest("tensor() rounds to the nearest half, ties to even", async () => {
  const limits = [0, -0, 1, 65504, 65519.99, Infinity, NaN, 2 ** -24, 2 ** -25, 1.5 * 2 ** -24];
  const ties = [1 + 2 ** -11, 1 + 3 * 2 ** -11, 2049, 2051, 2 ** -14 - 2 ** -25];
  const values = Float32Array.from([...limits, ...ties, ...normals(5000, "rounding")]);
  const x = tensor(values, [values.length], "f16");
  assertEquals(await x.data(), rounded(values));
  x.release();
  for (const value of [65520, -1e9]) {
    assertThrows(
      () => tensor([1, value], [2], "f16"),
      RangeError,
      `Cannot make a tensor of f16 with ${value}: the largest is 65504`,
    );
  }
});

gpuTest("views of halves begin and end anywhere", async () => {
  const values = rounded(normals(3 * 7, "views"));
  const x = tensor(values, [3, 7], "f16");
  const plain = tensor(values, [3, 7]);
  const views: ((x: Tensor) => Tensor)[] = [
    (x) => transpose(x),
    (x) => slice(x, 0, 1, 2), // begins in the middle of a word
    (x) => slice(x, 1, 3, 4),
    (x) => reshape(slice(x, 0, 2, 3), [7, 1]),
    (x) => slice(reshape(x, [21]), 0, 20, 21),
    (x) => slice(x, 0, 1, 1),
    (x) => contiguous(transpose(x)),
    (x) => mul(slice(x, 1, 1, 4), slice(x, 1, 2, 5)),
    (x) => add(transpose(x), tensor([1, 2, 3])),
  ];
  for (const view of views) {
    const [actual, expected] = scope(() => [view(x), view(plain)]);
    assertEquals(await actual.data(), await expected.data(), `${view}`);
    actual.release();
    expected.release();
  }
  assertEquals(x.binding.size, 44);
  x.release();
  plain.release();
});

/** A right operand of a product: the shape that it is stored in, and how it is looked at. */
interface Operand {
  readonly stored: Shape;
  readonly view: (x: Tensor) => Tensor;
}

/**
 * Right operands of shape `[…, k, n]` that lie in memory in every way that the kernels tell apart.
 */
function layouts(lead: Shape, k: number, n: number): Record<string, Operand> {
  return {
    "along n": { stored: [...lead, k, n], view: (x) => x },
    "along k": { stored: [...lead, n, k], view: (x) => transpose(x) },
    "along n, from an odd offset": {
      stored: [...lead, k + 1, n + 3],
      view: (x) => slice(slice(x, -2, 1), -1, 1, n + 1),
    },
    "along k, from an odd offset": {
      stored: [...lead, n + 1, k + 2],
      view: (x) => transpose(slice(slice(x, -2, 1), -1, 1, k + 1)),
    },
    "every other element": {
      stored: [...lead, 2 * k, 2 * n],
      view: (x) => slice(slice(x, -2, 1, undefined, 2), -1, 0, undefined, 2),
    },
  };
}

const PRODUCTS: readonly (readonly [a: Shape, lead: Shape, n: number])[] = [
  [[1, 1], [], 1],
  [[7, 257], [], 7],
  [[257, 7], [], 257],
  [[1, 257], [], 1],
  [[9, 12], [], 20], // full vec4s
  [[65, 64], [], 72],
  [[8, 64], [], 4],
  [[3, 7, 8], [3], 12], // a batch
  [[2, 1, 7, 5], [3], 9], // broadcast on both sides
  [[2, 3, 4, 8], [1], 16],
  [[257], [], 7], // a vector
  [[130, 260], [], 128], // large enough for the large tile, and ragged
];

for (const variant of EACH_TILE) {
  const title = `matmul() by halves agrees with 64 bits, and with f32 bit for bit, ${variant.name}`;
  gpuTest(title, () => withVariant(variant, compareHalves));
}

async function compareHalves(): Promise<void> {
  let compared = 0;
  const kernels = new Set<string>();
  for (const [shape, lead, n] of PRODUCTS) {
    const k = shape.at(-1)!;
    const left = normals(numel(shape), "left");
    for (const [name, { stored, view }] of Object.entries(layouts(lead, k, n))) {
      const values = rounded(normals(numel(stored), "right"));
      const results = (["f16", "f32"] as const).map((dtype) => {
        const [a, c] = [tensor(left, shape), tensor(values, stored, dtype)];
        const { value: made, rows } = measure(() =>
          scope(() => {
            const { value, backward } = vjp(() => matmul(a, view(c)), [a]);
            const g = tensor(normals(value.size, "gradient"), value.shape);
            return { value, da: backward(g)[0], right: addScalar(view(c), 0) };
          })
        );
        if (dtype === "f16") { for (const { kernel } of rows) kernels.add(kernel); }
        a.release();
        c.release();
        return made;
      });
      const [half, single] = results;
      const what = `[${shape}] × [${lead}, ${k}, ${n}] ${name}`;
      assertEquals(await half.value.data(), await single.value.data(), what);
      assertEquals(await half.da.data(), await single.da.data(), `gradient of ${what}`);

      const x = new Grid(shape.length > 1 ? shape : [1, k], Float64Array.from(left));
      const w = new Grid([...lead, k, n], Float64Array.from(await half.right.data()));
      const batch = broadcast(x.shape.slice(0, -2), lead);
      const y = Grid.of([...batch, x.shape.at(-2)!, n], (...index) => {
        const [row, col] = index.splice(-2);
        let total = 0;
        for (let i = 0; i < k; i++) total += x.at(...index, row, i) * w.at(...index, i, col);
        return total;
      });
      // A sum of 260 products rounds as often.
      assertNear(await half.value.data(), y.data, k > 257 ? 5e-5 : 1e-5);
      for (const { value, da, right } of results) for (const t of [value, da, right]) t.release();
      compared++;
    }
  }
  for (const layout of ["inner", "outer", "any"]) {
    assert([...kernels].some((name) => name.includes(`c ${layout} f16`)), layout);
  }
  console.log(`f16: ${compared} products compared, with their gradients`);
}

gpuTest("matmul() counts the bytes of halves", () => {
  const [x, w] = [tensor(normals(6 * 8, "x"), [6, 8]), tensor(normals(8 * 4, "w"), [8, 4], "f16")];
  const { value, rows } = measure(() => matmul(x, w));
  const { flops, bytesRead, bytesWritten } = total(rows);
  assertEquals([flops, bytesRead, bytesWritten], [2 * 6 * 8 * 4, 4 * 48 + 2 * 32, 4 * 24]);
  for (const each of [x, w, value]) each.release();
});

gpuTest("embedding() and patchEmbedding() read halves as they read f32", async () => {
  const values = rounded(normals(300 * 7, "table"));
  const weight = rounded(normals(5 * 3 * 4 * 4, "patches"));
  const pixels = normals(2 * 3 * 9 * 8, "pixels");
  const ids = [0, 1, 127, 128, 255, 256, 299, 300];
  const results = (["f16", "f32"] as const).map((dtype) =>
    scope(() => {
      const table = tensor(values, [300, 7], dtype);
      const wanted = tensor(Uint32Array.from(ids));
      const patches = tensor(weight, [5, 3, 4, 4], dtype);
      return [
        embedding(table, wanted),
        embedding(transpose(table), tensor(Uint32Array.of(6, 0))),
        inParts(() => embedding(table, wanted)),
        patchEmbedding(tensor(pixels, [2, 3, 9, 8]), patches),
      ];
    })
  );
  const found = await Promise.all(results.flat().map((y) => y.data()));
  const rows = ids.map((id) => id < 300 ? values.slice(7 * id, 7 * id + 7) : new Float32Array(7));
  const expected = Float32Array.from(rows.flatMap((row) => [...row]));
  for (const k of [0, 2]) assertEquals(found[k], expected);
  assertEquals(found.slice(0, 4), found.slice(4));
  for (const y of results.flat()) y.release();
});

/** Looks up as on an adapter that binds at most 2048 bytes. */
function inParts(lookUp: () => Tensor): Tensor {
  const device = gpu();
  const { maxBufferSize } = device.limits;
  const limits = { maxBufferSize, maxStorageBufferBindingSize: 2048 };
  Object.defineProperty(device, "limits", { value: limits, configurable: true });
  try {
    const { value, rows } = measure(lookUp);
    assertGreater(total(rows).dispatches, 2);
    return value;
  } finally {
    Reflect.deleteProperty(device, "limits");
  }
}

gpuTest("halves are refused where they would be computed, trained or misread", () => {
  const half = tensor([[1, 2], [3, 4]], undefined, "f16");
  const x = tensor([[1, 2], [3, 4]]);
  const row = (matrix: Tensor) => reshape(slice(matrix, 0, 0, 1), [2]);
  const cases: [() => unknown, string][] = [
    [() => matmul(half, x), "Cannot matmul f16 [2,2] with [2,2]: only the right operand may be"],
    [() => sum(half), "Cannot sum f16 [2,2]: it takes f32"],
    [() => softmax(half), "f16 [2,2]: it takes f32"],
    [() => layerNorm(x, row(half), row(x), 1e-5), "f16 [2]: it takes f32"],
    [() => zeros([2], "f16"), "Cannot compute f16 [2]: halves only store what is frozen"],
    [() => concat([half, half], 0), "Cannot compute f16 [2,2]"],
    [() => embedding(x, half), "Cannot look up f16 ids: give u32 or i32"],
    [() => vjp(() => matmul(x, half), [half]), "Cannot differentiate with respect to f16 [2,2]"],
    [() => valueAndGrad(() => sum(mul(x, half)), [x, half]), "with respect to f16 [2,2]"],
  ];
  for (const [act, message] of cases) {
    assertThrows(() => scope(act as () => []), TypeError, message);
  }
  half.release();
  x.release();
});

/** Weights as one opened file, their elements stored as `dtype`. */
function file(
  weights: Readonly<Record<string, TensorToSave>>,
  dtype: "F32" | "F16" | "BF16",
): Promise<SafetensorsFile> {
  const entries = Object.entries(weights).map(([name, saved]) => [name, { ...saved, dtype }]);
  return encoded(Object.fromEntries(entries));
}

/** The elements of every weight of a model, by name. */
async function elementsOf({ weights }: Clip): Promise<Record<string, ArrayLike<number>>> {
  const found: Record<string, ArrayLike<number>> = {};
  for (const name of weights.names) found[name] = await weights.get(name).data();
  return found;
}

gpuTest("Clip.load() rounds matrices to f16, and nothing else", async () => {
  const weights = randomWeights(TINY);
  const expected = Object.fromEntries(
    [...weightShapes(TINY)].map(([name, shape]) => {
      const values = Float32Array.from(weights[name].data);
      const isMatrix = shape.length > 1 && !name.includes("position");
      return [name, isMatrix ? rounded(values) : values];
    }),
  );
  for (const named of [weights, byOpenaiNames(TINY, weights)]) {
    const clip = await Clip.load(TINY, [await file(named, "F32")], { precision: "f16" });
    assertEquals(await elementsOf(clip), expected);
    for (const name of clip.weights.names) {
      const { dtype, shape } = clip.weights.get(name);
      assertEquals(dtype, storedAs(name, shape, "f16"));
      assertEquals(dtype === "f16", shape.length > 1 && !name.includes("position"), name);
    }
    clip.release();
  }
});

gpuTest("Clip.load() keeps the bits of F16 weights, and rounds BF16 ones once", async () => {
  const weights = randomWeights(TINY);
  // Subnormal halves, and numbers that are 0 in f16.
  const small = Float32Array.from(weights["visual_projection.weight"].data, (x) => x * 2 ** -20);
  weights["visual_projection.weight"] = { ...weights["visual_projection.weight"], data: small };
  for (const dtype of ["F16", "BF16"] as const) {
    for (const named of [weights, byOpenaiNames(TINY, weights)]) {
      const [single, half] = await Promise.all((["f32", "f16"] as const).map(async (precision) => {
        const clip = await Clip.load(TINY, [await file(named, dtype)], { precision });
        return { logits: await logitsOf(clip), elements: await elementsOf(clip), clip };
      }));
      for (const [name, values] of Object.entries(single.elements)) {
        const isHalf = half.clip.weights.get(name).dtype === "f16";
        const stored = Float32Array.from(values);
        assertEquals(half.elements[name], isHalf ? rounded(stored) : stored, name);
      }
      if (dtype === "F16") assertEquals(half.logits, single.logits);
      single.clip.release();
      half.clip.release();
    }
  }
});

gpuTest("Clip.load() refuses what is too large for f16, and keeps nothing", async () => {
  const weights = randomWeights(TINY);
  const name = "text_model.encoder.layers.1.mlp.fc2.weight";
  const data = Float32Array.from(weights[name].data);
  const load = async (value: number, precision: Precision) => {
    data[17] = value;
    const changed = { ...weights, [name]: { ...weights[name], data } };
    (await Clip.load(TINY, [await encoded(changed)], { precision })).release();
  };
  const { liveBuffers } = memory();
  await assertRejects(
    () => load(-65520, "f16"),
    RangeError,
    `Cannot load "${name}" in f16: it holds -65520, the largest f16 is 65504, load it in f32`,
  );
  assertEquals(memory().liveBuffers, liveBuffers);
  await load(65504, "f16");
  await load(-65520, "f32");
});

gpuTest("weights in f16 take half the memory of their matrices, to the byte", async () => {
  // Buffers come in sizes of 256 bytes and more, of which a model has to be large enough.
  const bytes = (name: string, shape: Shape, precision: Precision) =>
    numel(shape) * (storedAs(name, shape, precision) === "f16" ? 2 : 4);
  const path = fileURLToPath(EMBEDDED_MODEL);
  const before = memory();
  const used: number[] = [];
  for (const precision of ["f32", "f16"] as const) {
    const { clip } = await openedClip(path, { precision });
    const shapes = [...weightShapes(clip.config)];
    const held = memory().byCategory.frozenWeights - before.byCategory.frozenWeights;
    const sizes = shapes.map(([name, shape]) => sizeOfBuffer(bytes(name, shape, precision)));
    assertEquals(held, sizes.reduce((a, b) => a + b));
    assertEquals(memory().liveBuffers - before.liveBuffers, shapes.length);
    for (const [name, shape] of shapes) {
      const { binding } = clip.weights.get(name);
      assertEquals(binding.size, bytes(name, shape, precision), name);
    }
    used.push(held);
    clip.release();
  }
  assertLess(used[1] / used[0], 0.53);
  console.log(`f16: the embedded model's weights take ${used[1]} bytes, in f32 ${used[0]}`);
});

/** One of eight sizes between two powers of two, from 256 on. */
function sizeOfBuffer(bytes: number): number {
  const step = Math.max(256, 2 ** (Math.floor(Math.log2(bytes)) - 3));
  return Math.ceil(bytes / step) * step;
}

gpuTest("the embedded model, stored in F16, is the same in both precisions", async () => {
  const path = fileURLToPath(EMBEDDED_MODEL);
  const logits: Float32Array[] = [];
  for (const precision of ["f32", "f16"] as const) {
    const { clip } = await openedClip(path, { precision });
    logits.push(await logitsOf(clip));
    clip.release();
  }
  assertEquals(logits[1], logits[0]);
});

gpuTest(
  "adapters train on f16 weights as on the same weights in f32, and merge into f32",
  async () => {
    const source = await file(randomWeights(TINY), "F16");
    const config = { ...DEFAULT_ADAPTER, rank: 4, blocks: 2, encoder: "both" as const };
    const { pixels, ids, prompts: rows } = randomInputs(TINY, 3, 4);
    const outcomes = [];
    for (const precision of ["f32", "f16"] as const) {
      const clip = await Clip.load(TINY, [source], { precision });
      const adapters = attach(clip, config, 1);
      const prompts = clip.text.prompts(ids, rows);
      const trainer = new Trainer(clip, adapters, prompts, { ...DEFAULT_RECIPE, iterations: 4 });
      const losses: number[] = [];
      for (let step = 0; step < 3; step++) {
        const result = trainer.step({ pixels, labels: Int32Array.of(0, 3, 2) });
        losses.push((await result.data())[0]);
        result.release();
      }
      const adapted = await logitsOf(clip);
      adapters.merge();
      const site = clip.vision.blocks[0].projections.q;
      assertEquals(site.weight.dtype, "f32");
      const [merged, weight] = [await logitsOf(clip), await site.weight.data()];
      adapters.unmerge();
      assertEquals(site.weight.dtype, precision);
      outcomes.push({ losses, adapted, merged, weight });
      for (const each of [trainer, prompts, adapters, clip]) each.release();
    }
    assertEquals(outcomes[1], outcomes[0]);
    assert(new Set(outcomes[0].losses).size === 3);
  },
);

Deno.test("merge has no --precision: what it writes is never rounded on the way", () => {
  assert(!("precision" in MERGE_FLAGS));
});

/**
 * Allowed of an element of normalized features when every matrix is rounded to 11 bits, by 2⁻¹² of
 * each weight at most. Measured are 2e-4.
 */
const ROUNDED_FEATURES = { atol: 5e-4, rtol: 0 };

const directory = fixtures("clip");
if (!directory) skip("clip fixtures in f16");
else {
  for (const model of directoriesIn(directory)) {
    const at = new URL(`${model}/`, directory);
    gpuTest(`Clip in f16 agrees with PyTorch in f32: ${model}`, async () => {
      const io = await openSafetensors(new URL("io.safetensors", at));
      const weights = await openSafetensors(new URL("model.safetensors", at));
      const config = parseConfig(await readJson(new URL("config.json", at)));
      const clip = await Clip.load(config, [weights], { precision: "f16" });
      const compared = new Comparison();
      const pixels = await floatTensor(io, "in.pixel_values");
      const [prompts] = io.tensors.get("in.input_ids")!.shape;
      const ids = clip.text.prompts(await io.integers("in.input_ids"), prompts);
      const images = scope(() => l2Normalize(clip.imageFeatures(pixels)));
      const texts = scope(() => l2Normalize(clip.textFeatures(ids)));
      await compared.tensor("image_embeds", images, io, "out.image_embeds", ROUNDED_FEATURES);
      await compared.tensor("text_embeds", texts, io, "out.text_embeds", ROUNDED_FEATURES);
      compared.report(`f16: ${model}`);
      for (const each of [pixels, ids, clip]) each.release();
    });
  }
}
