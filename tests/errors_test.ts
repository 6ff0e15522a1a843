/** What the engine refuses, when and in which words, and that it goes on afterwards. */

import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { full, ones, zeros } from "../autograd/ops/create.ts";
import { crossEntropy } from "../autograd/ops/cross_entropy.ts";
import { dropout, maskedDropout } from "../autograd/ops/dropout.ts";
import { embedding, gather, indexSelect, takeToken } from "../autograd/ops/embedding.ts";
import { layerNorm } from "../autograd/ops/layer_norm.ts";
import { conv2d, patchEmbedding } from "../autograd/ops/conv.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import {
  add,
  addAll,
  clamp,
  exp,
  maskedFill,
  mul,
  sigmoid,
  where,
} from "../autograd/ops/pointwise.ts";
import { max, mean, sum } from "../autograd/ops/reduce.ts";
import { softmax } from "../autograd/ops/softmax.ts";
import { argmax, topK } from "../autograd/ops/top_k.ts";
import {
  concat,
  expand,
  pad,
  permute,
  reshape,
  slice,
  squeeze,
  stack,
  transpose,
  unsqueeze,
} from "../autograd/ops/view.ts";
import { Kernel } from "../kernels/kernel.ts";
import { pointwise, pointwiseInto } from "../kernels/pointwise.ts";
import { tensor } from "../tensor/create.ts";
import { gpu, onDryEngine } from "../tensor/device.ts";
import { KernelError } from "../tensor/errors.ts";
import { memory } from "../tensor/memory.ts";
import { scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";

const x = (...shape: number[]) => zeros(shape);
const ids = (...shape: number[]) => zeros(shape, "u32");

const REFUSED: Record<string, [() => unknown, typeof RangeError | typeof TypeError, string]> = {
  "add of shapes that do not broadcast": [
    () => add(x(4, 3), x(2, 3)),
    RangeError,
    "Cannot broadcast [4,3] with [2,3]: axis 0 is 4 and 2",
  ],
  "add of integers": [() => add(x(3), ids(3)), TypeError, "Cannot add u32 [3]: it takes f32"],
  "sigmoid of integers": [() => sigmoid(ids(2, 1)), TypeError, "Cannot sigmoid u32 [2,1]"],
  "sum of integers": [() => sum(ids(2)), TypeError, "Cannot sum u32 [2]: it takes f32"],
  "softmax of integers": [
    () => softmax(ids(2)),
    TypeError,
    "Cannot softmax u32 [2]: it takes f32",
  ],
  "matmul of integers": [() => matmul(x(2, 2), ids(2, 2)), TypeError, "Cannot matmul u32 [2,2]"],
  "matmul of inner sizes that differ": [
    () => matmul(x(32, 197, 768), x(512, 768)),
    RangeError,
    "Cannot matmul [32,197,768] with [512,768]: inner sizes are 768 and 512",
  ],
  "matmul of a scalar": [() => matmul(x(), x(2, 2)), RangeError, "Cannot matmul [] with [2,2]"],
  "matmul of batches that do not broadcast": [
    () => matmul(x(2, 3, 4), x(3, 4, 5)),
    RangeError,
    "Cannot broadcast [2] with [3]: axis 0 is 2 and 3",
  ],
  "patchEmbedding of other channels": [
    () => patchEmbedding(x(1, 4, 8, 8), x(5, 3, 4, 4)),
    RangeError,
    "Cannot embed patches of [1,4,8,8] by [5,3,4,4]: channels are 4 and 3, a patch is 4 by 4",
  ],
  "conv2d of other channels": [
    () => conv2d(x(1, 4, 8, 8), x(6, 3, 3, 3)),
    RangeError,
    "1 groups of 3 channels are not 4, or do not share 6 evenly",
  ],
  "conv2d by half a pixel": [
    () => conv2d(x(1, 3, 8, 8), x(6, 3, 3, 3), null, { stride: 0.5 }),
    RangeError,
    "stride is 0.5,0.5, it must be integers from 1 on",
  ],
  "conv2d of a kernel larger than the image": [
    () => conv2d(x(1, 3, 4, 4), x(6, 3, 3, 3), null, { dilation: 2 }),
    RangeError,
    "it fits the image nowhere",
  ],
  "crossEntropy that ignores half a label": [
    () => crossEntropy(x(2, 3), ids(2), { ignoreIndex: 0.5 }),
    RangeError,
    "Cannot ignore label 0.5: it must be an integer",
  ],
  "crossEntropy that ignores a label beyond 32 bits": [
    () => crossEntropy(x(2, 3), ids(2), { ignoreIndex: 2 ** 32 + 1 }),
    RangeError,
    "Cannot ignore label 4294967297: it must be an integer from -2³¹ to 2³² - 1",
  ],
  "addAll of nothing": [
    () => addAll([]),
    RangeError,
    "Cannot add no tensors: give at least one",
  ],
  "sum over an axis that is not there": [
    () => sum(x(2, 3), { axis: 2 }),
    RangeError,
    "Cannot take axis 2 of a tensor with 2 axes",
  ],
  "mean over an axis named twice": [
    () => mean(x(2, 3), { axis: [1, -1] }),
    RangeError,
    "Cannot reduce axes [1,-1]: one is named twice",
  ],
  "max of nothing": [
    () => max(x(2, 0), { axis: 1 }),
    RangeError,
    "Cannot take the max of no elements: the shape is [2,0]",
  ],
  "argmax over half an axis": [() => argmax(x(2), 0.5), RangeError, "Cannot take axis 0.5"],
  "topK of more than there are": [
    () => topK(x(2, 3), 4),
    RangeError,
    "Cannot take the top 4 along axis -1 of [2,3]: it has 3 elements",
  ],
  "topK of none": [() => topK(x(3), 0), RangeError, "Cannot take the top 0"],
  "topK of more than one invocation's steps": [
    () => topK(x(1000), 1000),
    RangeError,
    "Cannot take the top 1000 along axis -1 of [1000]: that is 127000 steps for one invocation",
  ],
  "softmax along an axis that is not there": [
    () => softmax(x(3), 1),
    RangeError,
    "Cannot take axis 1 of a tensor with 1 axes",
  ],
  "layerNorm of other axes than its weight's": [
    () => layerNorm(x(2, 3), x(4), x(4)),
    RangeError,
    "Cannot layerNorm [2,3] with weight [4] and bias [4]",
  ],
  "crossEntropy of another batch": [
    () => crossEntropy(x(2, 3), ids(3)),
    RangeError,
    "Cannot take the crossEntropy of [2,3] against labels [3]",
  ],
  "crossEntropy of labels that are floats": [
    () => crossEntropy(x(2, 3), x(2)),
    TypeError,
    "Cannot take f32 labels: give u32 or i32",
  ],
  "crossEntropy smoothed too much": [
    () => crossEntropy(x(2, 3), ids(2), { labelSmoothing: 1.5 }),
    RangeError,
    "Cannot smooth labels by 1.5: it must be from 0 to 1",
  ],
  "embedding of ids that are floats": [
    () => embedding(x(4, 2), x(3)),
    TypeError,
    "Cannot look up f32 ids: give u32 or i32",
  ],
  "embedding in a table of three axes": [
    () => embedding(x(4, 2, 2), ids(3)),
    RangeError,
    "Cannot embed by a table of [4,2,2]: it needs two axes",
  ],
  "takeToken of another batch": [
    () => takeToken(x(2, 3, 4), ids(3)),
    RangeError,
    "Cannot take tokens [3] of [2,3,4]: one id for each sequence is needed",
  ],
  "indexSelect by floats": [() => indexSelect(x(2, 3), 1, x(2)), TypeError, "Cannot look up f32"],
  "gather of more than there are": [
    () => gather(x(2, 3), 1, ids(3, 1)),
    RangeError,
    "Cannot gather [3,1] from [2,3] along axis 1",
  ],
  "reshape to another size": [
    () => reshape(x(2, 3), [4, -1]),
    RangeError,
    "Cannot reshape [2,3] to [4,-1]: it has 6 elements",
  ],
  "permute by an axis twice": [
    () => permute(x(2, 3), [0, 0]),
    RangeError,
    "Cannot permute [2,3] by [0,0]: each axis must be named once",
  ],
  "transpose of a vector": [() => transpose(x(3)), RangeError, "Cannot take axis -2"],
  "slice backwards": [
    () => slice(x(3), 0, 2, 0, -1),
    RangeError,
    "Cannot slice [3] by steps of -1: a step is a positive integer",
  ],
  "slice from half an element": [() => slice(x(3), 0, 0.5), RangeError, "bounds are integers"],
  "expand of an axis that is not 1": [
    () => expand(x(2, 3), [4, 3]),
    RangeError,
    "Cannot broadcast [2,3] with [4,3]: axis 0 is 2 and 4",
  ],
  "expand to fewer": [
    () => expand(x(2, 3), [1, 3]),
    RangeError,
    "Cannot expand [2,3] to [1,3]: it has more elements",
  ],
  "squeeze of an axis that is not 1": [
    () => squeeze(x(2, 3), 0),
    RangeError,
    "Cannot squeeze axis 0 of [2,3]: it is not of size 1",
  ],
  "unsqueeze beyond the end": [() => unsqueeze(x(2), 2), RangeError, "Cannot take axis 2"],
  "concat of other shapes": [
    () => concat([x(2, 3), x(2, 4)], 0),
    RangeError,
    "Cannot concat [2,3] with [2,4] along axis 0",
  ],
  "concat of fewer axes": [
    () => concat([x(2, 3), x(2)], 1),
    RangeError,
    "Cannot concat [2,3] with [2]",
  ],
  "concat of other dtypes": [
    () => concat([x(2), ids(2)], 0),
    TypeError,
    "Cannot concat f32 [2] with u32 [2]",
  ],
  "concat of nothing": [() => concat([], 0), RangeError, "Cannot concat no tensors"],
  "stack of other shapes": [() => stack([x(2), x(3)]), RangeError, "Cannot stack [2] with [3]"],
  "pad of too few axes": [
    () => pad(x(2, 3), [[1, 1]]),
    RangeError,
    "Cannot pad [2,3] by [1,1]: give two counts from 0 on for each axis",
  ],
  "pad by less than nothing": [() => pad(x(2), [[-1, 0]]), RangeError, "Cannot pad [2] by [-1,0]"],
  "maskedFill by a mask of another shape": [
    () => maskedFill(x(3), ids(2, 3), 0),
    RangeError,
    "Cannot maskedFill [3] by a mask of [2,3]: it has more elements",
  ],
  "where of shapes that do not broadcast": [
    () => where(ids(2), x(3), x()),
    RangeError,
    "Cannot broadcast [2] with [3]",
  ],
  "clamp between bounds in the wrong order": [
    () => clamp(x(2), 1, 0),
    RangeError,
    "Cannot clamp between 1 and 0",
  ],
  "dropout of all": [
    () => dropout(x(2), 1, { seed: 1, stream: 1 }),
    RangeError,
    "Cannot drop with probability 1: it must be from 0 to below 1",
  ],
  "dropout by half a seed": [
    () => dropout(x(2), 0.5, { seed: 0.5, stream: 1 }),
    RangeError,
    "Cannot draw a mask by 0.5: it must be an integer below 2³²",
  ],
  "maskedDropout of another shape": [
    () => maskedDropout(x(2, 3), ids(3), 0.5),
    RangeError,
    "Cannot drop from [2,3] by a mask of [3]",
  ],
  "a tensor of half an element": [
    () => zeros([0.5]),
    RangeError,
    "Cannot make a tensor of shape [0.5]",
  ],
  "a tensor of less than nothing": [
    () => tensor([1, 2, 3, 4], [-2, -2]),
    RangeError,
    "Cannot make a tensor of shape [-2,-2]: sizes are integers from 0 on",
  ],
  "a tensor of too few values": [
    () => tensor([1, 2, 3], [2, 2]),
    RangeError,
    "Cannot make a tensor of shape [2,2] (4 elements) from 3 values",
  ],
  "a tensor of ragged rows": [
    () => tensor([[1, 2], [3], [4, 5, 6]]),
    RangeError,
    "Cannot make a tensor from nested arrays that differ in length: pad them",
  ],
};

for (const [what, [body, errorClass, message]] of Object.entries(REFUSED)) {
  gpuTest(`${what} is refused`, () => {
    const before = memory().liveBuffers;
    scope(() => {
      assertThrows(body, errorClass, message);
    });
    assertEquals(memory().liveBuffers, before);
  });
}

gpuTest("a tensor larger than any buffer is refused before anything is allocated", () => {
  const before = memory();
  const { maxBufferSize } = gpu().limits;
  assertThrows(
    () => zeros([Math.ceil(maxBufferSize / 2), 3]),
    RangeError,
    `the GPU's largest buffer is ${maxBufferSize} bytes`,
  );
  assertEquals(memory(), before);
});

gpuTest("a tensor larger than a binding is refused by the kernel that would bind it", () => {
  const most = gpu().limits.maxStorageBufferBindingSize;
  const before = memory().liveBuffers;
  const large = Tensor.empty([most / 4 + 1]);
  assertThrows(
    () => exp(large),
    RangeError,
    `on [${most / 4 + 1}]: it takes ${most + 4} bytes, the GPU binds at most ${most}`,
  );
  large.release();
  assertEquals(memory().liveBuffers, before);
});

Deno.test("rows that the GPU cannot bind are refused by a lookup", () => {
  onDryEngine({ maxStorageBufferBindingSize: 2 ** 20 }, () => {
    // Only every 64th row begins at an aligned byte, and 64 rows are larger than a binding.
    const odd = Tensor.empty([130, 4097]);
    const ids = Tensor.empty([2], "u32");
    const message = "64 rows of 16388 bytes are more than this GPU binds at once";
    assertThrows(() => embedding(odd, ids), RangeError, message);
    const wide = Tensor.empty([2, 300_000]);
    const alone = "one row of 1200000 bytes are more than this GPU binds at once";
    assertThrows(() => embedding(wide, ids), RangeError, alone);
  });
});

/** A kernel of three lines, which the tests break. */
const kernel = (name: string, size: string, body: string) =>
  new Kernel(
    name,
    `// y = x + 1
@compute @workgroup_size(${size})
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&y)) {
    ${body}
  }
}
`,
    { inputs: { x: "f32" }, outputs: { y: "f32" }, sizes: {}, flops: () => 0 },
  );

/** The error that the next readback after a run throws. */
async function errorOf(broken: Kernel): Promise<KernelError> {
  const [x, y] = [tensor([1, 2, 3]), Tensor.empty([3])];
  try {
    broken.run([x], [y], {}, [1]);
    return await assertRejects(() => y.data(), KernelError);
  } finally {
    for (const each of [x, y]) each.release();
  }
}

const works = kernel("works.wgsl", "64", "y[id.x] = x[id.x] + 1.0;");

async function assertGoesOn(): Promise<void> {
  const y = scope(() => {
    const [x, y] = [tensor([1, 2, 3]), Tensor.empty([3])];
    works.run([x], [y], {}, [1]);
    return add(y, ones([3]));
  });
  assertEquals([...await y.data()], [3, 4, 5]);
  y.release();
}

for (
  const [what, body, line] of [
    ["does not parse", "y[id.x] = = x[id.x];", 8],
    ["adds a float and an integer", "y[id.x] = x[id.x] + 1u;", 8],
    ["names what is not there", "y[id.x] = z[id.x];", 8],
  ] as const
) {
  gpuTest(
    `a kernel that ${what} is named with its line and its shapes at the next readback`,
    async () => {
      const broken = kernel("broken.wgsl", "64", body);
      for (const _ of ["first", "again"]) {
        const error = await errorOf(broken);
        assertEquals([error.kernel, error.line], ["broken.wgsl", line]);
        assertMatch(error.message, /^Cannot compile broken\.wgsl at line 8 for \[3\], \[3\]: ./);
        await assertGoesOn();
      }
    },
  );
}

gpuTest("a kernel that the GPU cannot run is named with its shapes", async () => {
  const broken = kernel("broken.wgsl", "1024, 1024", "y[id.x] = x[id.x];");
  for (const _ of ["first", "again"]) {
    const error = await errorOf(broken);
    assertEquals([error.kernel, error.line], ["broken.wgsl", undefined]);
    assertMatch(error.message, /^Cannot run broken\.wgsl on \[3\], \[3\]: ./);
    await assertGoesOn();
  }
});

gpuTest(
  "a run on a range of a buffer that cannot be bound is named with its kernel and shapes",
  async () => {
    const [x, y] = [tensor([1, 2, 3]), Tensor.empty([2])];
    const { buffer } = x.binding;
    await assertRejects(
      async () => {
        works.run([{ buffer, offset: 4, size: 8 }], [y], {}, [1]);
        await y.data();
      },
      KernelError,
      "Cannot run works.wgsl on a range of a tensor, [2]: ",
    );
    await assertGoesOn();
    for (const each of [x, y]) each.release();
  },
);

gpuTest("a kernel that would write what it reads is refused", async () => {
  const x = tensor([1, 2, 3]);
  const message =
    "Cannot run works.wgsl on [3], [3]: it writes tensor 1, on whose buffer tensor 0 lies too";
  assertThrows(() => works.run([x], [x], {}, [1]), KernelError, message);
  assertThrows(
    () => pointwiseInto(x, "x + 1.0", { x }),
    KernelError,
    "on whose buffer tensor 0 lies",
  );
  await assertGoesOn();
  x.release();
});

gpuTest("an expression that is not WGSL is named", async () => {
  const x = tensor([1, 2, 3]);
  await assertRejects(
    async () => {
      const y = scope(() => mul(pointwise("x +", { x }, [3]), x));
      try {
        await y.data();
      } finally {
        y.release();
      }
    },
    KernelError,
    'Cannot compile pointwise "x +" at line ',
  );
  await assertGoesOn();
  x.release();
});

gpuTest("kernels are checked when they are made and run", () => {
  const none = { inputs: {}, outputs: {}, sizes: {}, flops: () => 0 };
  const all = <T>(count: number, type: T): Record<string, T> =>
    Object.fromEntries(Array.from({ length: count }, (_, i) => [`x${i}`, type]));
  assertThrows(
    () => new Kernel("long.wgsl", "", { ...none, sizes: all(65, "u32" as const) }),
    RangeError,
    "Cannot make kernel long.wgsl: it has 65 sizes, at most 64 are possible",
  );
  const x = full([3], 1);
  const most = gpu().limits.maxStorageBuffersPerShaderStage;
  const inputs = all(most + 1, "f32");
  const wide = new Kernel("wide.wgsl", "", { ...none, inputs });
  assertThrows(
    () => wide.run(Object.keys(inputs).map(() => x), [], {}, [1]),
    RangeError,
    `Cannot run wide.wgsl: it binds ${most + 1} buffers, the GPU allows ${most}`,
  );
  assertThrows(
    () => works.run([x], [], {}, [1]),
    RangeError,
    "Cannot run works.wgsl: it binds 2 tensors, got 1",
  );
  const y = Tensor.empty([3]);
  assertThrows(
    () => works.run([x], [y], {}, [65_536]),
    RangeError,
    "Cannot run works.wgsl: its grid is [65536], at most 65535 fit an axis",
  );
  for (const each of [x, y]) each.release();
});
