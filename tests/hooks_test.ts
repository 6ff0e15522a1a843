/** What a method may do within a tower: the values, and the gradients of the tensors it adds. */

import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { add, mul, mulScalar } from "../autograd/ops/pointwise.ts";
import { sum } from "../autograd/ops/reduce.ts";
import { concat, slice } from "../autograd/ops/view.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import type { Clip } from "../clip/clip.ts";
import type { TowerHook } from "../clip/layers.ts";
import type { Prompts } from "../clip/text.ts";
import { tensor } from "../tensor/create.ts";
import { Random } from "../tensor/random.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { gpuTest } from "./gpu.ts";
import { clipOf, randomInputs, TINY } from "./reference.ts";

/** A model, inputs, and a scalar of a tower's features that depends on all of them. */
async function opened(): Promise<{
  clip: Clip;
  prompts: Prompts;
  pixels: Tensor;
  lossOf: (tower: "vision" | "text", hook: TowerHook, recompute: boolean) => Tensor;
  release: () => void;
}> {
  const clip = await clipOf(TINY);
  const { pixels: values, ids, prompts: rows } = randomInputs(TINY, 3, 4);
  const { imageSize } = TINY.vision;
  const pixels = keep(tensor(values, [3, 3, imageSize, imageSize]));
  const prompts = clip.text.prompts(ids, rows);
  const lossOf = (tower: "vision" | "text", hook: TowerHook, recompute: boolean) => {
    const pass = { hooks: { [tower]: hook }, recompute };
    const features = tower === "vision"
      ? clip.imageFeatures(pixels, pass)
      : clip.textFeatures(prompts, pass);
    return sum(mul(features, features));
  };
  const release = () => [pixels, prompts, clip].forEach((each) => each.release());
  return { clip, prompts, pixels, lossOf, release };
}

/** `count` trainable tokens of a width: `[1, count, width]`, or with other leading sizes. */
function tokensOf(count: number, width: number, lead: readonly number[] = [1, count]): Tensor {
  const random = new Random(5, "tokens");
  const values = Float32Array.from({ length: count * width }, () => 0.1 * random.normal());
  return keep(tensor(values, [...lead, width]));
}

/** Replaces the tokens of every item, from row `at` on. */
function replaced(x: Tensor, tokens: Tensor, at: number): Tensor {
  const [, length] = x.shape;
  const count = tokens.shape[1];
  const rows = Array.from({ length: x.shape[0] }, () => tokens);
  return concat([slice(x, 1, 0, at), concat(rows, 0), slice(x, 1, at + count, length)], 1);
}

/** The hooks, each of which puts in `tokens` of the tower's width; features have another width. */
const HOOKS: Record<string, (tokens: Tensor, seen: string[]) => TowerHook> = {
  embedded: (tokens) => ({ embedded: (x) => replaced(x, tokens, 1) }),
  positioned: (tokens) => ({ positioned: (x) => replaced(x, tokens, 1) }),
  "entering a block": (tokens, seen) => ({
    entering(x, block) {
      seen.push(`${block}`);
      return block === 1 ? replaced(x, tokens, 1) : x;
    },
  }),
};

for (const tower of ["vision", "text"] as const) {
  for (const [name, make] of Object.entries(HOOKS)) {
    gpuTest(`a hook at "${name}" is differentiated, ${tower}`, async () => {
      const { lossOf, release } = await opened();
      const tokens = tokensOf(2, TINY[tower].width);
      const seen: string[] = [];
      const results = [];
      for (const recompute of [false, true]) {
        const hook = make(tokens, seen);
        const { value, grads } = valueAndGrad(() => lossOf(tower, hook, recompute), [tokens]);
        results.push([await value.item(), ...await grads[0].data()]);
        for (const each of [value, ...grads]) each.release();
      }
      assertEquals(results[1], results[0]);
      const [loss, ...gradient] = results[0];
      assert(gradient.every((element) => element !== 0 && Number.isFinite(element)));
      // Along its gradient the loss changes by the square of the gradient's length.
      const square = gradient.reduce((total, element) => total + element * element, 0);
      const step = 1e-3 * Math.abs(loss) / square;
      const moved = async (factor: number) => {
        const at = (await tokens.data()).map((value, i) => value + factor * step * gradient[i]);
        const other = keep(tensor(Float32Array.from(at), tokens.shape));
        const made = scope(() => lossOf(tower, make(other, []), false));
        const value = await made.item();
        for (const each of [made, other]) each.release();
        return value;
      };
      const slope = (await moved(1) - await moved(-1)) / (2 * step);
      assertAlmostEquals(slope / square, 1, 0.02);
      if (seen.length > 0) {
        const layers = Array.from({ length: TINY[tower].layers }, (_, i) => `${i}`);
        assertEquals(seen.slice(0, layers.length), layers);
      }
      tokens.release();
      release();
    });
  }

  for (const name of ["embedded", "positioned", "entering"] as const) {
    gpuTest(`a hook may keep the tensor that it returns: ${name}, ${tower}`, async () => {
      const { clip, prompts, lossOf, release } = await opened();
      const [count, length] = tower === "vision" ? [3, clip.vision.tokens] : prompts.ids.shape;
      const returned = tokensOf(count * length, TINY[tower].width, [count, length]);
      const results = [];
      for (const recompute of [false, true, false]) {
        const inference = scope(() => lossOf(tower, { [name]: () => returned }, recompute));
        const { value, grads } = valueAndGrad(
          () => lossOf(tower, { [name]: () => returned }, recompute),
          [returned],
        );
        assertEquals(await inference.item(), await value.item());
        results.push([await value.item(), ...await grads[0].data()]);
        for (const each of [inference, value, ...grads]) each.release();
      }
      assert(results[0].some((element) => element !== 0));
      assertEquals(results[1], results[0]);
      assertEquals(results[2], results[0]);
      returned.release();
      release();
    });
  }

  gpuTest(`a hook on the features receives them, ${tower}`, async () => {
    const { lossOf, release } = await opened();
    const scale = keep(tensor([2]));
    const { value, grads } = valueAndGrad(
      () => lossOf(tower, { features: (x) => mul(x, scale) }, false),
      [scale],
    );
    const plain = scope(() => lossOf(tower, {}, false));
    const [changed, one, gradient] = [
      await value.item(),
      await plain.item(),
      (await grads[0].data())[0],
    ];
    assertAlmostEquals(changed / one, 4, 1e-5);
    assertAlmostEquals(gradient / one, 4, 1e-5);
    for (const each of [value, plain, scale, ...grads]) each.release();
    release();
  });
}

gpuTest("tokens may be appended to an image, but not to a prompt", async () => {
  const { clip, pixels, prompts, release } = await opened();
  const append = (width: number): TowerHook => ({
    positioned(x) {
      const more = tensor(new Float32Array(x.shape[0] * width), [x.shape[0], 1, width]);
      return concat([x, more], 1);
    },
  });
  const features = scope(() =>
    clip.imageFeatures(pixels, { hooks: { vision: append(TINY.vision.width) } })
  );
  assertEquals(features.shape, [3, TINY.embedding]);
  const text = { hooks: { text: append(TINY.text.width) } };
  const message = "a hook made them";
  assertThrows(() => scope(() => clip.textFeatures(prompts, text)), RangeError, message);
  features.release();
  release();
});

gpuTest(
  "a pass without a seed drops nothing, and hooks that do nothing change nothing",
  async () => {
    const { clip, pixels, release } = await opened();
    const same: TowerHook = {
      embedded: (x) => x,
      positioned: (x) => x,
      entering: (x) => x,
      features: (x) => mulScalar(add(x, x), 0.5),
    };
    const [plain, hooked] = [undefined, { hooks: { vision: same } }].map((pass) =>
      scope(() => clip.imageFeatures(pixels, pass))
    );
    assertEquals(await hooked.data(), await plain.data());
    for (const each of [plain, hooked]) each.release();
    release();
  },
);
