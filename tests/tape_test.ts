/** Reverse mode: which gradients reach which inputs, and what is left when it ends or fails. */

import { assert, assertEquals, assertGreater, assertThrows } from "@std/assert";
import { ones } from "../autograd/ops/create.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import { add, exp, log, mul, mulScalar, relu, square, tanh } from "../autograd/ops/pointwise.ts";
import { sum } from "../autograd/ops/reduce.ts";
import { detach, reshape, slice, transpose } from "../autograd/ops/view.ts";
import {
  needsGradient,
  record,
  valueAndGrad,
  vjp,
  wrt,
  wrtAccumulating,
  wrtAll,
} from "../autograd/tape.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { tensor } from "../tensor/create.ts";
import { memory } from "../tensor/memory.ts";
import { scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";

/** The value of a scalar function and its gradients, read and released. */
async function gradients(loss: () => Tensor, parameters: readonly Tensor[]): Promise<number[][]> {
  const { value, grads } = valueAndGrad(loss, parameters);
  const read = await Promise.all([value, ...grads].map((each) => each.data()));
  for (const each of [value, ...grads]) each.release();
  return read.map((each) => [...each]);
}

gpuTest(
  "valueAndGrad() adds up the gradients that reach an input along several paths",
  async () => {
    const x = tensor([2, -3]);
    assertEquals(await gradients(() => sum(mul(x, x)), [x]), [[13], [4, -6]]);
    const diamond = () => {
      const y = square(x);
      return sum(add(mul(y, x), mulScalar(y, 3)));
    };
    assertEquals(await gradients(diamond, [x]), [[-19 + 39], [12 + 12, 27 - 18]]);
    const doubled = () => {
      let y = x;
      for (let i = 0; i < 20; i++) y = add(y, y);
      return sum(y);
    };
    assertEquals(await gradients(doubled, [x]), [[-(2 ** 20)], [2 ** 20, 2 ** 20]]);
    x.release();
  },
);

gpuTest(
  "valueAndGrad() gives zeros for unused inputs, and the same twice for an input given twice",
  async () => {
    const [x, z] = [tensor([2, 3]), tensor([[1], [4]])];
    assertEquals(await gradients(() => sum(x), [z, x, x]), [[5], [0, 0], [1, 1], [1, 1]]);
    const constant = () => sum(z);
    assertEquals(await gradients(constant, [x]), [[5], [0, 0]]);
    for (const each of [x, z]) each.release();
  },
);

gpuTest("a loss that is a parameter has gradient 1, and may be released without it", async () => {
  const x = tensor([2], []);
  assertEquals(await gradients(() => x, [x]), [[2], [1]]);
  assertEquals(await x.item(), 2);
  // The gradient of the value may be released: the result is a separate handle.
  const g = tensor([7], []);
  const { value, backward } = vjp(() => x, [x]);
  const [grad] = backward(g);
  g.release();
  assertEquals(await grad.item(), 7);
  for (const each of [x, value, grad]) each.release();
});

gpuTest("vjp() leaves nothing in a scope whose gradients are the given ones", () => {
  const x = tensor([2, 3]);
  const before = memory().liveBuffers;
  scope(() => {
    const { backward } = vjp(() => add(x, x), [x, x]);
    backward(ones([2]));
    const same = vjp(() => x, [x]);
    same.backward(ones([2]));
  });
  assertEquals(memory().liveBuffers, before);
  x.release();
});

gpuTest("detach() lets no gradient through", async () => {
  const x = tensor([2, 3]);
  assertEquals(await gradients(() => sum(mul(x, detach(x))), [x]), [[13], [2, 3]]);
  x.release();
});

gpuTest("gradients pass through views to the tensors they look at", async () => {
  const x = tensor([[1, 2, 3], [4, 5, 6]]);
  const loss = () => sum(square(slice(transpose(x), 0, 1, 3)));
  assertEquals((await gradients(loss, [x]))[1], [0, 4, 6, 0, 10, 12]);
  x.release();
});

gpuTest(
  "only what needs a gradient is tracked, and only while a function is differentiated",
  () => {
    const [x, frozen] = [tensor([2]), tensor([3])];
    assert(!needsGradient(x));
    scope(() => {
      vjp(() => {
        assert(needsGradient(x) && !needsGradient(frozen));
        assert(needsGradient(mul(x, frozen)) && !needsGradient(mul(frozen, frozen)));
        return mul(x, frozen);
      }, [x]).backward(ones([1]));
    });
    assert(!needsGradient(x));
    for (const each of [x, frozen]) each.release();
  },
);

gpuTest("a frozen input's rule is not run", () => {
  const [x, frozen] = [tensor([2]), tensor([3])];
  const product = (a: Tensor, b: Tensor) =>
    record(pointwise("a * b", { a, b }, [1]), [
      wrt(a, [b], (g) => pointwise("g * b", { g, b }, [1])),
      wrt(b, [a], () => {
        throw new Error("must not run");
      }),
    ]);
  scope(() => {
    valueAndGrad(() => product(x, frozen), [x]);
  });
  assertThrows(() => valueAndGrad(() => product(x, frozen), [frozen]), Error, "must not run");
  for (const each of [x, frozen]) each.release();
});

gpuTest(
  "a rule may pass on its gradient, what it saved, or one tensor for several inputs",
  async () => {
    const [a, b] = [tensor([2, 5]), tensor([3, 7])];
    const joined = () =>
      record(pointwise("a + b", { a, b }, [2]), [
        wrtAll([a, b], [], (g) => [g, g]),
        wrt(a, [b], () => b),
      ]);
    assertEquals(await gradients(() => sum(joined()), [a, b]), [[17], [4, 8], [1, 1]]);
    assertEquals([...await b.data()], [3, 7]);
    for (const each of [a, b]) each.release();
  },
);

gpuTest("a rule whose gradient has another shape is refused", () => {
  const x = tensor([2, 3]);
  const wrong = () => record(pointwise("x", { x }, [2]), [wrt(x, [], (g) => reshape(g, [2, 1]))]);
  assertThrows(
    () => valueAndGrad(() => sum(wrong()), [x]),
    RangeError,
    "Cannot take a gradient of [2,1] for an input of [2]",
  );
  x.release();
});

gpuTest(
  "nothing is left behind, and nothing goes on recording, when a function or a rule throws",
  async () => {
    const x = tensor([2, 3]);
    const before = memory().liveBuffers;
    const fails = () => {
      throw new Error("as planned");
    };
    assertThrows(() => valueAndGrad(() => (exp(square(x)), fails()), [x]), Error, "as planned");
    assertEquals(memory().liveBuffers, before);
    const broken = () => {
      const y = exp(tanh(x));
      return sum(exp(record(pointwise("y", { y }, [2]), [wrt(y, [y], fails)])));
    };
    assertThrows(() => valueAndGrad(broken, [x]), Error, "as planned");
    assertEquals(memory().liveBuffers, before);
    assert(!needsGradient(x));
    assertEquals(await gradients(() => sum(x), [x]), [[5], [1, 1]]);
    x.release();
  },
);

gpuTest("a tape is walked once, from a gradient of the value's shape", () => {
  const x = tensor([2, 3]);
  scope(() => {
    const { backward } = vjp(() => square(x), [x]);
    assertThrows(
      () => backward(ones([3])),
      RangeError,
      "Cannot start from a gradient of [3]: the value is [2]",
    );
    backward(ones([2]));
    assertThrows(() => backward(ones([2])), Error, "Cannot walk a tape twice");
  });
  assertThrows(
    () => valueAndGrad(() => square(x), [x]),
    RangeError,
    "Cannot differentiate a loss of shape [2]: it must be a scalar",
  );
  x.release();
});

gpuTest("the value of a function within another is differentiated too", async () => {
  const x = tensor([2, 3]);
  const nested = () => {
    const { value, backward } = vjp(() => square(x), [x]);
    // The gradient 2 x is a constant here.
    return sum(mul(value, detach(backward(ones([2]))[0])));
  };
  assertEquals(await gradients(nested, [x]), [[2 * 8 + 2 * 27], [16, 36]]);
  x.release();
});

gpuTest(
  "a gradient within another function is refused where it would have to be differentiated",
  () => {
    const x = tensor([2, 3]);
    const before = memory().liveBuffers;
    const twice = () => sum(vjp(() => square(x), [x]).backward(ones([2]))[0]);
    assertThrows(() => valueAndGrad(twice, [x]), Error, "Cannot differentiate a gradient");
    assertEquals(memory().liveBuffers, before);
    x.release();
  },
);

gpuTest("activations that no gradient needs are released while the function runs", () => {
  const [x, frozen] = [tensor([[2, 3]]), tensor([[1, 2], [3, 4]])];
  const { liveBuffers } = memory();
  let [during, tracked] = [0, 0];
  const layer = (x: Tensor) => scope(() => relu(add(matmul(x, frozen), x)));
  scope(() => {
    let y = scope(() => layer(layer(layer(x))));
    during = memory().liveBuffers - liveBuffers;
    valueAndGrad(() => {
      y = scope(() => log(layer(y)));
      tracked = memory().liveBuffers - liveBuffers;
      return sum(y);
    }, []);
  });
  assertEquals([during, tracked], [1, 2]);
  for (const each of [x, frozen]) each.release();
});

gpuTest(
  "a rule that accumulates adds to the gradient there was, even for an input given twice",
  async () => {
    const x = tensor([1, 2, 3]);
    /** 3 x, whose rule adds the earlier gradient itself, and counts how often there was one. */
    let times = 0;
    const triple = (x: Tensor) =>
      record(pointwise("3.0 * x", { x }, x.shape), [
        wrtAccumulating(x, [], (g, before) => {
          if (before) times++;
          return before ? pointwise("3.0 * g + before", { g, before }, g.shape) : mulScalar(g, 3);
        }),
      ]);
    /** a + 10 b, by one rule that accumulates both. */
    const both = (a: Tensor, b: Tensor) =>
      record(pointwise("a + 10.0 * b", { a, b }, a.shape), [
        {
          ...wrtAll([a, b], [], (g, _, accumulated) =>
            [1, 10].map((factor, i) => {
              const before = accumulated[i];
              return before
                ? pointwise("factor * g + before", { g, factor, before }, g.shape)
                : pointwise("factor * g", { g, factor }, g.shape);
            })),
          accumulates: [true, true],
        },
      ]);
    const cases: readonly (readonly [() => Tensor, number])[] = [
      [() => triple(x), 3],
      [() => add(triple(x), triple(x)), 6],
      [() => add(triple(x), mulScalar(x, 5)), 8],
      [() => both(x, x), 11],
      [() => add(both(x, x), triple(x)), 14],
      [() => add(triple(x), both(x, triple(x))), 34],
    ];
    for (const [fn, slope] of cases) {
      const { value, grads } = valueAndGrad(() => sum(fn()), [x]);
      assertEquals([...await grads[0].data()], [slope, slope, slope]);
      for (const each of [value, ...grads]) each.release();
    }
    assertGreater(times, 2);
    x.release();
  },
);
