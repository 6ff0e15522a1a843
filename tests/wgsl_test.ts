/** What kernels are generated, and that they can be read. */

import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { formatted, GOLDEN, GOLDEN_GPU, goldenFile, PROGRAMS, wgslOf } from "../bench/wgsl.ts";
import { Kernel, replaced, u32s } from "../kernels/kernel.ts";
import { VARIANTS } from "../kernels/variant.ts";
import { initDry } from "../tensor/device.ts";
import { currentEngine } from "../tensor/engine.ts";
import { Tensor } from "../tensor/tensor.ts";
import { octograd } from "./cli.ts";

for (const name of GOLDEN) {
  Deno.test(`the WGSL of ${name} is what is committed`, async () => {
    const made = wgslOf(PROGRAMS[name], GOLDEN_GPU);
    const committed = await Deno.readTextFile(goldenFile(name));
    assertEquals(made, committed, "if that is meant, run: deno task wgsl --update");
  });
}

Deno.test("every program has WGSL in every variant, and none is the same for all", () => {
  for (const [name, program] of Object.entries(PROGRAMS)) {
    const gpu = { ...GOLDEN_GPU, lanes: 8 };
    const made = new Set<string>();
    for (const variant of VARIANTS) {
      // What attention is in this variant is made of products and softmax.
      if (name.startsWith("attention") && variant === "perLane") {
        assertThrows(() => wgslOf(program, gpu, { variant }), Error, "other kernels");
        continue;
      }
      const wgsl = wgslOf(program, gpu, { variant });
      assertMatch(wgsl, /@compute @workgroup_size\(.+\)\nfn main\(/);
      assertMatch(wgsl, /\nstruct Sizes \{\n( {2}\w+: (u32|f32),\n)+\}\n/);
      assert(!/\n\n\n|[ \t]\n/.test(wgsl));
      made.add(wgsl);
    }
    assert(made.size > 1 || ["softmax", "layer-norm"].includes(name), name);
  }
});

Deno.test("formatted() indents by brackets, also those in one line, and not those of comments", () => {
  const text = "fn f() {\n// ({[\nlet x = g(\n1,\n);\n\n\nif (x) { return; }\n}";
  assertEquals(
    formatted(text),
    "fn f() {\n  // ({[\n  let x = g(\n    1,\n  );\n\n  if (x) { return; }\n}\n",
  );
});

Deno.test("a kernel declares its sizes, and a pipeline does not depend on the order of constants", () => {
  initDry();
  const device = currentEngine().device.gpu;
  const create = device.createComputePipeline.bind(device);
  let pipelines = 0;
  device.createComputePipeline = (descriptor) => (pipelines++, create(descriptor));
  const wgsl = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n";
  const kernel = new Kernel("k.wgsl", wgsl, { ...u32s("rows"), scale: "f32" }, { flops: () => 0 });
  assert(kernel.wgsl.startsWith(wgsl)); // so that line numbers are those of the source
  assertMatch(kernel.wgsl, /struct Sizes \{\n {2}rows: u32,\n {2}scale: f32,\n\}/);
  const y = Tensor.empty([4]);
  const sizes = { scale: 2, rows: 1 };
  kernel.run([], [y], sizes, [1], { A: 1, B: 2 });
  kernel.run([], [y], sizes, [1], { B: 2, A: 1 });
  assertEquals(pipelines, 1);
  kernel.run([], [y], sizes, [1], { A: 2, B: 1 });
  assertEquals(pipelines, 2);
  assertThrows(
    () => kernel.run([], [y], { rows: 1 }, [1]),
    Error,
    'its size "scale" was not given',
  );
  y.release();
});

Deno.test("replaced() replaces all, and throws where there is nothing to replace", () => {
  assertEquals(replaced("a b a", "a", "$&"), "$& b $&");
  assertThrows(() => replaced("a b", "c", "d"), Error, "Cannot replace c in WGSL");
});

Deno.test("wgsl prints a kernel, and says what it does not know", async () => {
  const { code, stdout } = await octograd(["wgsl", "product", "70x33x129", "--variant", "perLane"]);
  assertEquals(code, 0);
  assertMatch(stdout, /^\/\/ matmul .*, 70 x 33 x 129\n/);
  for (
    const [args, pattern] of [
      [["wgsl"], /Cannot show nothing: name one of product, /],
      [["wgsl", "prodct"], /Cannot show prodct: name one of product, /],
      [["wgsl", "softmax", "3"], /Cannot use shape "3": it must be rows x columns, as 8x64x64/],
      [["wgsl", "softmax", "3x-1"], /Cannot use shape "3x-1"/],
    ] as const
  ) {
    const { code, stderr } = await octograd(args);
    assertEquals(code, 2);
    assertMatch(stderr, pattern);
  }
});
