import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertLess,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import { clipByNorm, clipFactor, globalNorm } from "../autograd/optim/clip_norm.ts";
import { Adam, type AdamOptions, AdamW } from "../autograd/optim/adam.ts";
import { cosineAnnealing } from "../autograd/optim/schedule.ts";
import { Sgd, type SgdOptions } from "../autograd/optim/sgd.ts";
import { expand, slice, transpose } from "../autograd/ops/view.ts";
import { tensor } from "../tensor/create.ts";
import { gpu, isSoftware } from "../tensor/device.ts";
import { memory } from "../tensor/memory.ts";
import { counters, flush } from "../tensor/queue.ts";
import { Random } from "../tensor/random.ts";
import { scope } from "../tensor/scope.ts";
import { numel, type Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";

const SHAPES: readonly Shape[] = [[1], [7], [257], [5, 13], [2, 3, 11], [], [0]];
const STEPS = 6;

const random = new Random("optim");
const normals = (count: number) => Array.from({ length: count }, () => random.normal());
const float32 = (values: number[]) => Float32Array.from(values);

/** A plain optimizer in 64 bits: it gives the next value of one parameter's element. */
type Twin = (p: number, g: number, rate: number, step: number, state: number[]) => number;

function sgdTwin(
  { weightDecay = 0, momentum = 0, dampening = 0, nesterov = false }: SgdOptions,
): Twin {
  return (p, g, rate, step, state) => {
    const d = g + weightDecay * p;
    state[0] = step === 0 ? d : momentum * state[0] + (1 - dampening) * d;
    if (momentum === 0) return p - rate * d;
    return p - rate * (nesterov ? d + momentum * state[0] : state[0]);
  };
}

function adamTwin(
  { weightDecay = 0, betas = [0.9, 0.999], epsilon = 1e-8, amsgrad = false }: AdamOptions,
  decoupled: boolean,
): Twin {
  return (p, g, rate, step, state) => {
    const d = decoupled ? g : g + weightDecay * p;
    const [mean = 0, square = 0, largest = 0] = state;
    state[0] = betas[0] * mean + (1 - betas[0]) * d;
    state[1] = betas[1] * square + (1 - betas[1]) * d * d;
    state[2] = Math.max(largest, state[1]);
    const unbiased = (amsgrad ? state[2] : state[1]) / (1 - betas[1] ** (step + 1));
    const shrunk = decoupled ? p * (1 - rate * weightDecay) : p;
    return shrunk -
      rate * state[0] / (1 - betas[0] ** (step + 1)) / (Math.sqrt(unbiased) + epsilon);
  };
}

const sgd = (options: SgdOptions) => ({
  make: (parameters: Tensor[]) => new Sgd(parameters, options),
  rate: options.learningRate,
  twin: sgdTwin(options),
});
const adam = (options: AdamOptions) => ({
  make: (parameters: Tensor[]) => new Adam(parameters, options),
  rate: options.learningRate,
  twin: adamTwin(options, false),
});
const adamW = (options: AdamOptions) => ({
  make: (parameters: Tensor[]) => new AdamW(parameters, options),
  rate: options.learningRate,
  twin: adamTwin({ weightDecay: 1e-2, ...options }, true),
});

const CASES = {
  "Sgd": sgd({ learningRate: 0.1 }),
  "Sgd with weight decay": sgd({ learningRate: 0.1, weightDecay: 0.3 }),
  "Sgd with momentum": sgd({ learningRate: 0.1, momentum: 0.9, weightDecay: 0.1 }),
  "Sgd with dampening": sgd({ learningRate: 0.1, momentum: 0.9, dampening: 0.4 }),
  "Sgd by Nesterov": sgd({ learningRate: 0.1, momentum: 0.8, nesterov: true, weightDecay: 0.1 }),
  "Adam": adam({}),
  "Adam with weight decay": adam({ learningRate: 0.05, weightDecay: 0.2 }),
  "Adam with betas": adam({ learningRate: 0.05, betas: [0, 0.5], epsilon: 0.1 }),
  "AdamW": adamW({ learningRate: 0.05 }),
  "AdamW with amsgrad": adamW({ learningRate: 0.05, weightDecay: 0.4, amsgrad: true }),
  "AdamW with a schedule": adamW({ learningRate: cosineAnnealing(0.1, 0.01, 4) }),
};

for (const [name, { make, rate = 1e-3, twin }] of Object.entries(CASES)) {
  gpuTest(`${name} agrees with a plain loop in 64 bits`, async () => {
    const values = SHAPES.map((shape) => normals(numel(shape)));
    const parameters = SHAPES.map((shape, i) => tensor(float32(values[i]), shape));
    const expected = values.map((each) => [...float32(each)]);
    const states = expected.map((each) => each.map((): number[] => []));
    const optimizer = make(parameters);
    for (let step = 0; step < STEPS; step++) {
      const at = typeof rate === "function" ? rate(step) : rate;
      assertEquals(optimizer.rates(), [at]);
      assertEquals(optimizer.steps, step);
      // The first gradients are large, so that amsgrad's maximum is not the latest value.
      const grads = SHAPES.map((shape) =>
        float32(normals(numel(shape)).map((g) => g * 3 / (step + 1)))
      );
      scope(() => optimizer.step(grads.map((g, i) => tensor(g, SHAPES[i]))));
      expected.forEach((wanted, i) =>
        wanted.forEach((p, k) => wanted[k] = twin(p, grads[i][k], at, step, states[i][k]))
      );
    }
    const actual = await Promise.all(parameters.map((parameter) => parameter.data()));
    expected.forEach((wanted, i) =>
      wanted.forEach((p, k) => assertAlmostEquals(actual[i][k], p, 2e-6 * (1 + Math.abs(p))))
    );
    optimizer.release();
    parameters.forEach((parameter) => parameter.release());
  });
}

gpuTest("AdamW follows each group's rate and decay, else the common ones", async () => {
  const parameters = [1, 2, 3].map((value) => tensor([value, -value]));
  const [a, b, c] = parameters;
  const optimizer = new AdamW([
    { parameters: [c], learningRate: (step) => 0.5 / (step + 1), weightDecay: 0 },
    { parameters: [a, b], weightDecay: 1 },
  ], { learningRate: 0.1, weightDecay: 0.25 });
  assertEquals(optimizer.rates(), [0.5, 0.1]);
  assertEquals(optimizer.rates(4), [0.1, 0.1]);
  // The gradients come in the order of the groups: c, a, b. Adam's first step equals the rate.
  scope(() => optimizer.step([[7, 7], [0, 0], [-9, 9]].map((g) => tensor(g))));
  assertEquals(optimizer.rates(), [0.25, 0.1]);
  const near = async (x: Tensor, values: number[]) =>
    [...await x.data()].forEach((value, i) => assertAlmostEquals(value, values[i], 1e-6));
  await near(c, [3 - 0.5, -3 - 0.5]);
  await near(a, [0.9, -0.9]);
  await near(b, [1.8 + 0.1, -1.8 - 0.1]);
  optimizer.release();
  parameters.forEach((parameter) => parameter.release());
});

gpuTest("Optimizers read gradients that are views", async () => {
  const parameter = tensor([[1, 2, 3], [4, 5, 6]]);
  const optimizer = new Sgd([parameter], { learningRate: 1 });
  scope(() => {
    optimizer.step([transpose(tensor([[1, 2], [3, 4], [5, 6]]))]);
    optimizer.step([expand(tensor([10]), [2, 3])]);
    optimizer.step([slice(tensor([[0, 0, 0], [1, 1, 1], [2, 2, 2]]), 0, 1)]);
  });
  assertEquals([...await parameter.data()], [-11, -12, -13, -10, -11, -12]);
  optimizer.release();
  parameter.release();
});

gpuTest("Optimizers keep their state through scopes and leave nothing else behind", () => {
  const parameters = [tensor([1, 2, 3]), tensor([4])];
  const optimizer = scope(() => new AdamW(parameters));
  const grads = [tensor([1, 1, 1]), tensor([1])];
  const { liveBuffers } = memory();
  optimizer.step(grads);
  scope(() => scope(() => optimizer.step(grads)));
  assertEquals(memory().liveBuffers, liveBuffers);
  assert(Object.values(optimizer.state().tensors).every(({ live }) => live));
  optimizer.release();
  [...parameters, ...grads].forEach((x) => x.release());
});

for (
  const [name, make] of Object.entries({
    Sgd: (p: Tensor[]) => new Sgd(p, { momentum: 0.9, dampening: 0.5, learningRate: 0.1 }),
    AdamW: (p: Tensor[]) =>
      new AdamW(p, { amsgrad: true, learningRate: cosineAnnealing(0.1, 0, 6) }),
  })
) {
  gpuTest(`${name}.restore() goes on as if never interrupted`, async () => {
    const start = normals(9);
    const grads = Array.from({ length: 6 }, () => tensor(float32(normals(9)), [3, 3]));
    const run = (from: ReturnType<typeof make>, steps: Tensor[]) =>
      steps.forEach((g) => from.step([g]));
    const [unbroken, first] = [0, 1].map(() => tensor(float32(start), [3, 3]));
    const straight = make([unbroken]);
    run(straight, grads);

    const before = make([first]);
    run(before, grads.slice(0, 3));
    const second = tensor(await first.data() as Float32Array<ArrayBuffer>, [3, 3]);
    const after = make([second]);
    after.restore(before.state());
    before.release();
    assertEquals(after.steps, 3);
    run(after, grads.slice(3));

    assertEquals(await second.data(), await unbroken.data());
    for (const [key, saved] of Object.entries(straight.state().tensors)) {
      assertEquals(await after.state().tensors[key].data(), await saved.data());
    }
    straight.release();
    after.release();
    [unbroken, first, second, ...grads].forEach((x) => x.release());
  });
}

gpuTest("Optimizer.state() names its tensors, and no more", () => {
  const parameters = [tensor([1]), tensor([2])];
  const names = (optimizer: Sgd | Adam) => {
    const found = Object.keys(optimizer.state().tensors);
    optimizer.release();
    return found;
  };
  assertEquals(names(new Sgd(parameters)), []);
  assertEquals(names(new Sgd(parameters, { momentum: 0.5 })), ["0.momentum", "1.momentum"]);
  assertEquals(names(new Adam(parameters)), ["0.mean", "0.square", "1.mean", "1.square"]);
  const [a, b] = parameters;
  const mixed = [{ parameters: [a], amsgrad: true }, { parameters: [b] }];
  assertEquals(names(new AdamW(mixed)), [
    "0.mean",
    "0.square",
    "0.largest",
    "1.mean",
    "1.square",
  ]);
  parameters.forEach((x) => x.release());
});

gpuTest("Fifty steps at changing rates compile, upload and submit nothing", async () => {
  const device = gpu();
  const calls: string[] = [];
  const spied = ["createShaderModule", "createComputePipeline", "createBuffer"] as const;
  for (const name of spied) {
    const original = device[name].bind(device) as (descriptor: unknown) => unknown;
    Object.defineProperty(device, name, {
      configurable: true,
      value: (descriptor: unknown) => (calls.push(name), original(descriptor)),
    });
  }
  const parameters = [tensor(float32(normals(70)), [7, 10]), tensor([1, 2])];
  const grads = [tensor(float32(normals(70)), [7, 10]), tensor([3, -4])];
  const optimizer = new AdamW(parameters, { learningRate: cosineAnnealing(0.01, 0, 50) });
  const clippedStep = () =>
    scope(() => {
      optimizer.step(grads, clipFactor(grads, 1 + optimizer.steps).factor);
    });
  try {
    clippedStep();
    flush();
    const before = { ...counters };
    const rates = new Set<number>();
    calls.length = 0;
    for (let step = 0; step < 50; step++) {
      rates.add(optimizer.rates()[0]);
      clippedStep();
    }
    assertEquals(calls, []);
    assertGreater(rates.size, 49);
    if (isSoftware()) assertEquals(counters.submits, before.submits);
    assertEquals(counters.readbacks, before.readbacks);
    // All gradients together take one dispatch for their squares, two for the norm, one for the
    // factor and one for the update.
    assertEquals(counters.dispatches - before.dispatches, 50 * (1 + 2 + 1 + 1));
    const { submits } = counters;
    const values = await parameters[1].data();
    assertEquals(counters.submits, submits + 1);
    assertNotEquals(values[0], 1);
  } finally {
    for (const name of spied) Reflect.deleteProperty(device, name);
  }
  // The readback may make a buffer, if the previous one is still in use.
  assertEquals(calls.filter((name) => name !== "createBuffer"), []);
  assertLess(calls.length, 2);
  optimizer.release();
  [...parameters, ...grads].forEach((x) => x.release());
});

gpuTest("Optimizers refuse what they cannot update", () => {
  const matrix = tensor([[1, 2], [3, 4]]);
  const labels = tensor(Uint32Array.of(1, 2));
  scope(() => {
    assertThrows(() => new Adam([]), RangeError, "Cannot make Adam: there are no parameters");
    assertThrows(() => new Adam([{ parameters: [] }]), RangeError, "there are no parameters");
    assertThrows(() => new Adam([labels]), TypeError, "parameter 0, [2], is u32, not f32");
    for (const view of [transpose(matrix), slice(matrix, 0, 1), slice(matrix, 1, 0, 1)]) {
      assertThrows(
        () => new AdamW([matrix, view]),
        RangeError,
        `Cannot make AdamW: parameter 1, [${view.shape}], is a view that cannot be updated ` +
          "where it is",
      );
    }
    assertThrows(
      () => new Sgd([{ parameters: [matrix] }, { parameters: [matrix] }]),
      RangeError,
      "Cannot make Sgd: parameter 1, [2,2], is given twice",
    );
  });
  const wrong: Record<string, () => unknown> = {
    "learningRate is -1": () => new Sgd([matrix], { learningRate: -1 }),
    "weightDecay is NaN": () => new Adam([matrix], { weightDecay: NaN }),
    "betas is 0.9,1": () => new Adam([matrix], { betas: [0.9, 1] }),
    "epsilon is -1": () => new AdamW([{ parameters: [matrix], epsilon: -1 }]),
    "momentum is Infinity": () => new Sgd([matrix], { momentum: Infinity }),
    "dampening is NaN": () => new Sgd([matrix], { momentum: 0.5, dampening: NaN }),
    "nesterov is true": () => new Sgd([matrix], { nesterov: true }),
  };
  for (const [message, make] of Object.entries(wrong)) assertThrows(make, RangeError, message);
  matrix.release();
  labels.release();
});

gpuTest(
  "Optimizer.step() refuses gradients that do not fit, and then changes nothing",
  async () => {
    const parameters = [tensor([1, 2]), tensor([3])];
    let rate = NaN;
    const optimizer = new Sgd(parameters, { learningRate: () => rate });
    scope(() => {
      const [pair, one, row] = [tensor([1, 1]), tensor([1]), tensor([[1]])];
      assertThrows(
        () => optimizer.step([pair]),
        RangeError,
        "Cannot step Sgd: it has 2 parameters, got 1 gradients",
      );
      assertThrows(
        () => optimizer.step([pair, row]),
        RangeError,
        "Cannot step Sgd: parameter 1 is f32 [1], its gradient f32 [1,1]",
      );
      assertThrows(
        () => optimizer.step([pair, tensor(Uint32Array.of(1))]),
        RangeError,
        "its gradient u32 [1]",
      );
      assertThrows(
        () => optimizer.step([pair, one]),
        RangeError,
        "Cannot step Sgd: the learning rate of step 0 is NaN",
      );
    });
    assertEquals(optimizer.steps, 0);
    assertEquals([...await parameters[0].data()], [1, 2]);
    rate = 1;
    scope(() => optimizer.step([tensor([1, 1]), tensor([1])]));
    assertEquals([...await parameters[0].data()], [0, 1]);
    optimizer.release();
    parameters.forEach((x) => x.release());
  },
);

gpuTest("Optimizer.restore() refuses the state of another optimizer", () => {
  const parameters = [tensor([1, 2]), tensor([3])];
  const optimizer = new AdamW(parameters);
  const { tensors } = optimizer.state();
  const { "1.mean": mean, ...fewer } = tensors;
  const refused: Record<string, () => void> = {
    [`"1.mean" is absent in the given state and [1] here`]: () =>
      optimizer.restore({ steps: 1, tensors: fewer }),
    [`"1.mean" is [2] in the given state and [1] here`]: () =>
      optimizer.restore({ steps: 1, tensors: { ...tensors, "1.mean": tensors["0.mean"] } }),
    [`"1.largest" is [1] in the given state and absent here`]: () =>
      optimizer.restore({ steps: 1, tensors: { ...tensors, "1.largest": mean } }),
    "1.5 is no number of steps": () => optimizer.restore({ steps: 1.5, tensors }),
  };
  for (const [message, restore] of Object.entries(refused)) {
    assertThrows(restore, RangeError, message);
  }
  assertEquals(optimizer.steps, 0);
  optimizer.release();
  parameters.forEach((x) => x.release());
});

gpuTest(
  "clipByNorm() scales all gradients by one factor, and gives the norm before it",
  async () => {
    // One chunk, many chunks, more than the workgroups of a tensor take at once, and no element.
    const sizes = [1, 7, 1025, 200_003, 0];
    const values = sizes.map((size) => float32(normals(size)));
    const expected = Math.sqrt(
      values.flatMap((each) => [...each]).reduce((sum, v) => sum + v * v, 0),
    );
    for (const limit of [expected / 100, expected * 1.01]) {
      const { norm, grads } = scope(() => clipByNorm(values.map((each) => tensor(each)), limit));
      assertLess(Math.abs(await norm.item() / expected - 1), 1e-6);
      const factor = Math.min(1, limit / (expected + 1e-6));
      for (const [i, scaled] of grads.entries()) {
        const actual = await scaled.data();
        if (factor === 1) assertEquals(actual, values[i]);
        else {
          actual.forEach((g, k) =>
            assert(Math.abs(g - factor * values[i][k]) <= 2e-6 * Math.abs(factor * values[i][k]))
          );
        }
      }
      [norm, ...grads].forEach((x) => x.release());
    }
  },
);

gpuTest("clipByNorm() reads views, and leaves zeros as they are", async () => {
  const { norm, grads } = scope(() =>
    clipByNorm([transpose(tensor([[3, 0, 0], [0, 0, 4]])), expand(tensor([6]), [2, 2])], 1.3)
  );
  assertAlmostEquals(await norm.item(), 13, 1e-5); // 9 + 16 + 4 · 36 = 169
  assertEquals(grads.map(({ shape }) => shape), [[3, 2], [2, 2]]);
  const [first, second] = await Promise.all(grads.map((x) => x.data()));
  [0.3, 0, 0, 0, 0, 0.4].forEach((g, i) => assertAlmostEquals(first[i], g, 1e-6));
  second.forEach((g) => assertAlmostEquals(g, 0.6, 1e-6));
  const still = scope(() => clipByNorm([tensor([0, 0])], 1));
  assertEquals(await still.norm.item(), 0);
  assertEquals([...await still.grads[0].data()], [0, 0]);
  // The factor is 1e-6 / (1e-6 + 1e-6).
  const tiny = scope(() => clipByNorm([tensor([6e-7, 8e-7])], 1e-6));
  (await tiny.grads[0].data()).forEach((g, i) => assertAlmostEquals(g, [3e-7, 4e-7][i], 1e-12));
  const none = globalNorm([]);
  assertEquals(await none.item(), 0);
  [norm, ...grads, still.norm, ...still.grads, tiny.norm, ...tiny.grads, none].forEach((x) =>
    x.release()
  );
  for (const limit of [0, -1, NaN, Infinity]) {
    assertThrows(() => clipByNorm([], limit), RangeError, `Cannot clip to a norm of ${limit}`);
  }
});

Deno.test("cosineAnnealing() falls to its minimum, and rises past it", () => {
  const rate = cosineAnnealing(3, 1, 4);
  [3, 2 + Math.SQRT1_2, 2, 2 - Math.SQRT1_2, 1, 2 - Math.SQRT1_2, 2, 2 + Math.SQRT1_2, 3]
    .forEach((expected, step) => assertAlmostEquals(rate(step), expected, 1e-15));
  for (const total of [0, -1, NaN]) {
    assertThrows(
      () => cosineAnnealing(1, 0, total),
      RangeError,
      `Cannot anneal over ${total} steps`,
    );
  }
});

gpuTest("Many parameters step together as each would alone", async () => {
  const shapes: Shape[] = Array.from(
    { length: 37 },
    (_, i) => [i % 5 === 0 ? 1 : 3 * i, 1 + i % 4],
  );
  const values = shapes.map((shape) => float32(normals(numel(shape))));
  const gradients = shapes.map((shape) => float32(normals(numel(shape))));
  const make = () => values.map((each, i) => tensor(each, shapes[i]));
  const grads = gradients.map((each, i) => tensor(each, shapes[i]));
  const [together, apart] = [make(), make()];
  const options = { learningRate: 0.05, weightDecay: 0.1, amsgrad: true };
  const groups = [
    { parameters: together.slice(0, 9) },
    { parameters: together.slice(9), learningRate: 0.01 },
  ];
  const one = new AdamW(groups, options);
  const singles = apart.map((x, i) =>
    new AdamW([x], i < 9 ? options : { ...options, learningRate: 0.01 })
  );
  for (let step = 0; step < 3; step++) {
    one.step(grads);
    singles.forEach((optimizer, i) => optimizer.step([grads[i]]));
  }
  for (const [i, x] of together.entries()) assertEquals(await x.data(), await apart[i].data());
  assertEquals(Object.keys(one.state().tensors).length, 3 * 37);
  for (const optimizer of [one, ...singles]) optimizer.release();
  for (const each of [...together, ...apart, ...grads]) each.release();
});

gpuTest(
  "A factor scales the gradients of a step, and clipFactor() is that of clipByNorm()",
  async () => {
    const g = tensor([3, 0, 4]);
    const [a, b] = [tensor([1, 1, 1]), tensor([1, 1, 1])];
    const [one, other] = [new Sgd([a], { learningRate: 1 }), new Sgd([b], { learningRate: 1 })];
    const norms = scope(() => {
      const { norm, factor } = clipFactor([g], 1);
      one.step([g], factor);
      const clipped = clipByNorm([g], 1);
      other.step(clipped.grads);
      return [norm, clipped.norm];
    });
    assertEquals([...await a.data()], [...await b.data()]);
    assertAlmostEquals((await a.data())[0], 0.4, 1e-6);
    for (const norm of norms) assertEquals(await norm.item(), 5);
    for (const each of [g, a, b, ...norms]) each.release();
    for (const optimizer of [one, other]) optimizer.release();
  },
);
