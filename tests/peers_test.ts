import { assertEquals, assertLess } from "@std/assert";
import { CASES, draw } from "../bench/peers/cases.ts";
import { engine } from "../bench/peers/octograd.ts";

Deno.test("the benchmarks that compare engines agree with their references", async (t) => {
  await engine.start();
  // The large ones are products and attention again, in shapes that take seconds.
  const names = ["softmax", "layer_norm", "quick_gelu", "block", "mlp", "matmul [256,256]"];
  const some = CASES.filter(({ name }) => names.some((start) => name.startsWith(start)));
  assertEquals(some.length, 7);
  for (const of of some) {
    await t.step(of.name, async () => {
      const inputs = draw(of);
      const { run, read, free } = await engine.prepare(of, inputs);
      const outputs: Float32Array[] = [];
      for (let i = 0; i < of.runs; i++) {
        const result = run();
        outputs.push(...await read(result));
        free(result);
      }
      const [expected, given] = [of.expect(inputs), of.digest(outputs, inputs)];
      assertEquals(given.length, expected.length);
      const scale = Math.max(...expected.map(Math.abs));
      // Sums round in 32 bits: the largest error seen is 2e-6.
      for (const [i, value] of expected.entries()) {
        assertLess(Math.abs(value - given[i]), 1e-5 * scale);
      }
    });
  }
});
