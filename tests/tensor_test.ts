/** Tensors, their shapes, views and lifetimes, and scopes. */

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { full, ones, zeros } from "../autograd/ops/create.ts";
import { add, mulScalar } from "../autograd/ops/pointwise.ts";
import { contiguous, expand, permute, reshape, slice, transpose } from "../autograd/ops/view.ts";
import { tensor } from "../tensor/create.ts";
import { memory } from "../tensor/memory.ts";
import { keep, scope } from "../tensor/scope.ts";
import { broadcast, broadcastStrides, collapse, contiguousStrides } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";

gpuTest(
  "tensor() takes nested arrays, flat arrays with a shape, and typed arrays of every dtype",
  async () => {
    const made: [Tensor, readonly number[], string, readonly number[]][] = [
      [tensor(3), [], "f32", [3]],
      [tensor([]), [0], "f32", []],
      [tensor([[1, 2, 3], [4, 5, 6]]), [2, 3], "f32", [1, 2, 3, 4, 5, 6]],
      [tensor([1, 2, 3, 4], [2, 2]), [2, 2], "f32", [1, 2, 3, 4]],
      [tensor([[[7]]]), [1, 1, 1], "f32", [7]],
      [tensor(Float32Array.of(1.5, -2)), [2], "f32", [1.5, -2]],
      [tensor(Uint32Array.of(1, 2 ** 32 - 1), [2, 1]), [2, 1], "u32", [1, 2 ** 32 - 1]],
      [tensor(Int32Array.of(-1, 2)), [2], "i32", [-1, 2]],
      [tensor([1, 2], [2], "u32"), [2], "u32", [1, 2]],
      [tensor(Uint32Array.of(1, 2), [2], "f32"), [2], "f32", [1, 2]],
      [tensor(new Float32Array(6), [3, 2]), [3, 2], "f32", [
        0,
        0,
        0,
        0,
        0,
        0,
      ]],
      [tensor([], [3, 0]), [3, 0], "f32", []],
      // A range of a larger array.
      [tensor(Float32Array.of(1, 2, 3, 4).subarray(1, 3)), [2], "f32", [2, 3]],
    ];
    for (const [x, shape, dtype, values] of made) {
      assertEquals([...x.shape], [...shape]);
      assertEquals(x.dtype, dtype);
      assertEquals([...await x.data()], [...values]);
      x.release();
    }
  },
);

gpuTest("tensor() takes values of every kind as the numbers they are", async () => {
  const made: [Tensor, string, readonly number[]][] = [
    [tensor(Float64Array.of(1, 2, 3)), "f32", [1, 2, 3]],
    [tensor(Float64Array.of(0.1, -1e-300, NaN, Infinity)), "f32", [
      Math.fround(0.1),
      -0,
      NaN,
      Infinity,
    ]],
    [tensor(Uint8Array.of(0, 255)), "u32", [0, 255]],
    [tensor(Uint8ClampedArray.of(7, 255), [2, 1]), "u32", [7, 255]],
    [tensor(Uint16Array.of(65535)), "u32", [65535]],
    [tensor(Int8Array.of(-128, 127)), "i32", [-128, 127]],
    [tensor(Int16Array.of(-32768)), "i32", [-32768]],
    [tensor(BigInt64Array.of(-1n, 2n ** 31n - 1n)), "i32", [-1, 2 ** 31 - 1]],
    [tensor(BigUint64Array.of(2n ** 32n - 1n)), "u32", [2 ** 32 - 1]],
    [tensor([Float64Array.of(1, 2), [3, 4]]), "f32", [1, 2, 3, 4]],
    [tensor([1, 2], [2], "i32"), "i32", [1, 2]],
    [tensor(Uint8Array.of(1, 2), [2], "f32"), "f32", [1, 2]],
    [tensor(Int32Array.of(3, 4), [2], "u32"), "u32", [3, 4]],
    [tensor(Float32Array.of(3, 4), [2], "i32"), "i32", [3, 4]],
    [tensor(Float64Array.of(0.1, 4), [2], "f16"), "f16", [0.0999755859375, 4]],
    [tensor([-Infinity, NaN, 3.4028235e38]), "f32", [-Infinity, NaN, Math.fround(3.4028235e38)]],
    [full([2], 16777217, "i32"), "i32", [16777217, 16777217]],
    [full([1], 2 ** 32 - 1, "u32"), "u32", [2 ** 32 - 1]],
    [full([1], -(2 ** 31), "i32"), "i32", [-(2 ** 31)]],
    [full([1], -Infinity), "f32", [-Infinity]],
  ];
  for (const [x, dtype, values] of made) {
    assertEquals([x.dtype, ...await x.data()], [dtype, ...values]);
    x.release();
  }
});

gpuTest("tensor() and full() refuse what is not a number, and numbers beyond the dtype", () => {
  // deno-lint-ignore no-explicit-any -- what JavaScript lets through
  const given = (values: any, shape?: number[], dtype?: any) => () => tensor(values, shape, dtype);
  const wrongKind: [() => unknown, string][] = [
    [given([true, false]), "Cannot make a tensor with true: its elements are numbers, 1 and 0 for"],
    [given("3"), 'with "3"'],
    [given(["1", "2"]), 'with "1"'],
    [given([1, null]), "with null"],
    [given([1, undefined]), "with undefined"],
    // deno-lint-ignore no-sparse-arrays -- a hole
    [given([1, , 3]), "with undefined"],
    [given(new ArrayBuffer(8)), "of [object ArrayBuffer]: give numbers, arrays of them or a typed"],
    [given(new DataView(new ArrayBuffer(8))), "of [object DataView]"],
    [given({ length: 2 }), "of [object Object]"],
    [given([1], [1], "f64"), "of f64: a dtype is one of f32, u32, i32, f16"],
    [() => full([2], true as unknown as number), "with true"],
    [() => full([2], 1, "f16"), "Cannot compute f16"],
  ];
  for (const [make, message] of wrongKind) assertThrows(make, TypeError, message);
  const beyond: [() => unknown, string][] = [
    [given([1.5], [1], "u32"), "of u32 with 1.5: it takes integers from 0 to 2³² - 1"],
    [given([-1], [1], "u32"), "of u32 with -1"],
    [given([2 ** 32], [1], "u32"), "of u32 with 4294967296"],
    [given([NaN], [1], "i32"), "of i32 with NaN: it takes integers from -2³¹ to 2³¹ - 1"],
    [given(Int32Array.of(-1), [1], "u32"), "of u32 with -1"],
    [given(Uint32Array.of(2 ** 31), [1], "i32"), "of i32 with 2147483648"],
    [given(BigInt64Array.of(2n ** 40n)), "of i32 with 1099511627776"],
    [given(BigUint64Array.of(2n ** 60n)), "of u32 with 1152921504606846976"],
    [given([1e39]), "of f32 with 1e+39: the largest is 3.4028235e38"],
    [given(Float64Array.of(-1e300)), "of f32 with -1e+300"],
    [given([[1, 2], [3]]), "differ in length"],
    [() => full([2], 1.5, "u32"), "of u32 with 1.5"],
    [() => full([2], 2 ** 31, "i32"), "of i32 with 2147483648"],
    [() => full([2], 1e39), "of f32 with 1e+39"],
  ];
  for (const [make, message] of beyond) assertThrows(make, RangeError, message);
});

gpuTest("data() reads views in the order of their elements", async () => {
  const x = tensor([[1, 2, 3], [4, 5, 6]]);
  const views: [Tensor, number[]][] = [
    [transpose(x), [1, 4, 2, 5, 3, 6]],
    [slice(x, 0, 1), [4, 5, 6]],
    [slice(x, 1, 1, 3), [2, 3, 5, 6]],
    [slice(x, 1, 0, 3, 2), [1, 3, 4, 6]],
    [slice(x, 1, 3), []],
    [scope(() => expand(slice(x, 1, 2), [2, 2, 2])), [3, 3, 6, 6, 3, 3, 6, 6]],
    [scope(() => permute(reshape(x, [1, 2, 3]), [2, 0, 1])), [1, 4, 2, 5, 3, 6]],
    [scope(() => contiguous(slice(transpose(x), 0, 1, 3))), [2, 5, 3, 6]],
  ];
  for (const [view, values] of views) {
    assertEquals([...await view.data()], values);
    view.release();
  }
  const last = scope(() => slice(slice(x, 0, 1), 1, 2));
  assertEquals(await last.item(), 6);
  await assertRejects(
    () => x.item(),
    RangeError,
    "Cannot take the item of a tensor of shape [2,3]: it has 6 elements",
  );
  for (const each of [last, x]) each.release();
});

gpuTest("a view outlives the tensor it looks at, and the buffer with it", async () => {
  const before = memory().liveBuffers;
  const x = tensor([1, 2, 3]);
  const view = slice(x, 0, 1);
  x.release();
  assertEquals(memory().liveBuffers, before + 1);
  assertEquals([...await view.data()], [2, 3]);
  view.release();
  assertEquals(memory().liveBuffers, before);
});

gpuTest("a released tensor cannot be used, nor released again", async () => {
  const x = tensor([1, 2, 3]);
  x.release();
  const message =
    "Cannot use a released tensor of shape [3]: return it from its scope(), or keep() it";
  assertThrows(() => add(x, x), Error, message);
  assertThrows(() => slice(x, 0, 1), Error, message);
  assertThrows(() => x.release(), Error, message);
  await assertRejects(() => x.data(), Error, message);
});

gpuTest("scope() releases all but what it returns, directly, in arrays or in objects", async () => {
  const before = memory().liveBuffers;
  const { taken, list, alone } = scope(() => {
    const x = ones([3]);
    const alone = scope(() => add(x, x));
    return { taken: keep(mulScalar(x, 3)), list: [{ deep: mulScalar(alone, 5) }], alone };
  });
  assertEquals(memory().liveBuffers, before + 3);
  assertEquals([...await list[0].deep.data()], [10, 10, 10]);
  for (const each of [taken, list[0].deep, alone]) each.release();
  assertEquals(memory().liveBuffers, before);
});

gpuTest("scope() leaves alone what was made outside, and what was released inside", () => {
  const x = ones([3]);
  const before = memory().liveBuffers;
  assertEquals(scope(() => x), x);
  scope(() => add(x, x).release());
  assertEquals(memory().liveBuffers, before);
  assert(x.live);
  x.release();
});

gpuTest("scope() releases what was made when its body throws, and refuses a promise", () => {
  const before = memory().liveBuffers;
  assertThrows(
    () =>
      scope(() => {
        ones([3]);
        throw new Error("as planned");
      }),
    Error,
    "as planned",
  );
  assertThrows(
    () => scope(() => Promise.resolve(ones([3]))),
    TypeError,
    "Cannot close a scope() around a promise: await outside it",
  );
  assertEquals(memory().liveBuffers, before);
});

gpuTest("full(), zeros() and ones() make tensors of every dtype and size", async () => {
  const made: [Tensor, number[]][] = [
    [full([], -2.5), [-2.5]],
    [full([2], -3, "i32"), [-3, -3]],
    [full([2], 7, "u32"), [7, 7]],
    [zeros([0, 4]), []],
    [ones([1, 3]), [1, 1, 1]],
  ];
  for (const [x, values] of made) {
    assertEquals([...await x.data()], values);
    x.release();
  }
});

Deno.test("shapes broadcast from their last axes on", () => {
  assertEquals(broadcast([4, 1], [3]), [4, 3]);
  assertEquals(broadcast([], [2, 3]), [2, 3]);
  assertEquals(broadcast([0], [1]), [0]);
  assertEquals(broadcastStrides([3], [1], [4, 3]), [0, 1]);
  assertEquals(broadcastStrides([4, 1], [1, 1], [4, 3]), [1, 0]);
  assertEquals(contiguousStrides([2, 3, 4]), [12, 4, 1]);
});

Deno.test("collapse() merges the axes that all operands walk as one", () => {
  assertEquals(collapse([32, 197, 768], [[151296, 768, 1], [0, 0, 1]]), {
    shape: [6304, 768],
    strides: [[768, 1], [0, 1]],
  });
  assertEquals(collapse([2, 1, 3], [[3, 3, 1]]), { shape: [6], strides: [[1]] });
  assertEquals(collapse([1, 1], [[1, 1]]), { shape: [], strides: [[]] });
  assertEquals(collapse([2, 3], [[1, 2]]), { shape: [2, 3], strides: [[1, 2]] });
});

gpuTest("values read earlier stay when more are read through the same buffers", async () => {
  const [size, count] = [300_000, 6];
  const tensors = Array.from({ length: count }, (_, i) => full([size + i], i + 1));
  for (let round = 0; round < 3; round++) {
    const found = await Promise.all(tensors.map((each) => each.data()));
    for (const each of tensors) found.push(await each.data());
    found.forEach((values, i) => {
      assertEquals(values.length, size + i % count);
      assert(values.every((value) => value === i % count + 1), `read ${i} of round ${round}`);
    });
  }
  for (const each of tensors) each.release();
});
