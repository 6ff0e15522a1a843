/** Which kernels are generated, and that they are readable. */

import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { GOLDEN, GOLDEN_GPU, goldenFile, PROGRAMS, wgslOf } from "../bench/wgsl.ts";
import { cacheKey } from "../kernels/declaration.ts";
import { Kernel } from "../kernels/kernel.ts";
import { multiplyThen } from "../kernels/matmul.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { expand, replaced } from "../kernels/template.ts";
import { VARIANTS } from "../kernels/variant.ts";
import { gpu, onDryEngine } from "../tensor/device.ts";
import { scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";
import { octograd } from "./cli.ts";

for (const name of GOLDEN) {
  Deno.test(`the WGSL of ${name} is what is committed`, async () => {
    const made = wgslOf(PROGRAMS[name], GOLDEN_GPU);
    const committed = await Deno.readTextFile(goldenFile(name));
    assertEquals(made, committed, "if that is meant, run: deno task wgsl --update");
  });
}

/** Asserts that each line is indented by the number of brackets open before it. */
function assertFormatted(code: string): void {
  let depth = 0;
  let before = "";
  for (const [at, line] of code.split("\n").entries()) {
    const where = `line ${at + 1}: "${line}"`;
    assertEquals(line, line.trimEnd(), `a blank at the end of ${where}`);
    const statement = line.replace(/\/\/.*/, "");
    const closes = /^\s*[})]/.test(statement) ? 1 : 0;
    if (line !== "") {
      const further = line.search(/\S/) - 2 * (depth - closes);
      const goesOn = /[^;{}]$/.test(before);
      assert(further === 0 || (goesOn && further === 2), `the indentation of ${where}`);
      before = statement.trimEnd();
    }
    for (const bracket of statement.match(/[{}]|\($|^\s*\)/g) ?? []) {
      depth += /[{(]/.test(bracket) ? 1 : -1;
    }
  }
  assertEquals(depth, 0);
  assertEquals(code.match(/\n\n\n|\{\n\n|\n\n\s*\}/g), null);
}

Deno.test("every program has WGSL in every variant, and none is the same for all", () => {
  for (const [name, program] of Object.entries(PROGRAMS)) {
    const gpu = { ...GOLDEN_GPU, lanes: 8 };
    const made = new Set<string>();
    for (const variant of VARIANTS) {
      // In this variant attention consists of products and softmax.
      if (name.startsWith("attention") && variant === "perLane") {
        assertThrows(() => wgslOf(program, gpu, { variant }), Error, "other kernels");
        continue;
      }
      const wgsl = wgslOf(program, gpu, { variant });
      assertMatch(wgsl, /@compute @workgroup_size\(.+\)\nfn main\(/);
      assertMatch(wgsl, /\nstruct Sizes \{\n( {2}\w+: (u32|f32),\n)+\}\n/);
      assertFormatted(wgsl);
      made.add(wgsl);
    }
    assert(made.size > 1 || ["softmax", "layer-norm"].includes(name), name);
  }
});

Deno.test("assertFormatted() refuses what is not formatted", () => {
  for (const code of ["fn f() { \n}", "fn f() {\nx();\n}", "a;\n\n\nb;", "fn f() {\n    x();\n}"]) {
    assertThrows(() => assertFormatted(code));
  }
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

/** Counts the shader modules and pipelines that are requested from a dry engine. */
function compiled(body: () => void): { modules: number; pipelines: number } {
  return onDryEngine({}, () => {
    const made = { modules: 0, pipelines: 0 };
    const device = gpu();
    const { createShaderModule, createComputePipeline } = device;
    device.createShaderModule = (descriptor) => {
      made.modules++;
      return createShaderModule(descriptor);
    };
    device.createComputePipeline = (descriptor) => {
      made.pipelines++;
      return createComputePipeline(descriptor);
    };
    scope(body);
    return made;
  });
}

Deno.test("the order of an object's keys makes no other kernel", () => {
  assertEquals(cacheKey({ a: 1, b: [{ c: 2, d: 3 }] }), cacheKey({ b: [{ d: 3, c: 2 }], a: 1 }));
  assert(cacheKey({ a: 1, b: 2 }) !== cacheKey({ a: 2, b: 1 }));
  const once = { modules: 1, pipelines: 1 };
  const empty = (...shape: number[]) => Tensor.empty(shape);
  const kernel = new Kernel("constants", "fn main() {}", {
    inputs: {},
    outputs: { y: "f32" },
    sizes: {},
    constants: { A: "u32", B: "u32" },
    flops: () => 0,
  });
  const run = (constants: Record<string, number>) =>
    compiled(() => {
      const y = empty(1);
      kernel.run([], [y], {}, [1], { A: 1, B: 2 });
      kernel.run([], [y], {}, [1], constants);
    });
  assertEquals(run({ B: 2, A: 1 }), once);
  assertEquals(run({ A: 2, B: 1 }), { modules: 1, pipelines: 2 });
  assertEquals(
    compiled(() => {
      const [x, y] = [empty(8), empty(8)];
      pointwise("x - y * s", { x, y, s: 2 }, [8]);
      pointwise("x - y * s", { s: 2, y, x }, [8]);
    }),
    once,
  );
  assertEquals(
    compiled(() => {
      const [a, bias, scale] = [empty(8, 8), empty(8), empty(8)];
      multiplyThen(a, a, { expression: "x * scale + bias", vectors: { bias, scale } });
      multiplyThen(a, a, { vectors: { scale, bias }, expression: "x * scale + bias" });
    }),
    once,
  );
});

Deno.test("a kernel's declaration becomes its WGSL", () => {
  const { wgsl } = new Kernel("declared", "// y = x\nfn main() {}", {
    inputs: { x: "halves4" },
    outputs: { y: "vec4f" },
    sizes: { count: "u32", scale: "f32" },
    constants: { CAUSAL: "bool" },
    flops: () => 0,
  });
  assertEquals(
    wgsl,
    `// y = x
override CAUSAL: bool;
struct Sizes {
  count: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> x: array<vec2u>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

fn main() {}
`,
  );
});

Deno.test("expand() unrolls loops, chooses cases and includes templates", () => {
  const template = `#include HEAD
#for i in ROWS / 2
#if WIDE
let x\${i} = y[\${(i + 1) * 3 - i % 2}];
#else
let x\${i} = 0;
#end
#end
#for name in NAMES
let \${name} = \${TEXT};
#end
#if !WIDE
narrow();
#end
`;
  const values = { ROWS: 5, NAMES: ["a", "b"], TEXT: "f(1)", HEADED: true };
  const includes = { HEAD: "#if HEADED\n// Head.\n#end" };
  assertEquals(
    expand(template, { ...values, WIDE: true }, includes),
    "// Head.\nlet x0 = y[3];\nlet x1 = y[5];\nlet a = f(1);\nlet b = f(1);\n",
  );
  assertEquals(
    expand(template, { ...values, WIDE: false }, includes),
    "// Head.\nlet x0 = 0;\nlet x1 = 0;\nlet a = f(1);\nlet b = f(1);\nnarrow();\n",
  );
});

Deno.test("a replacement that replaces nothing throws", () => {
  assertEquals(replaced("x * x", /\bx\b/, "y"), "y * y");
  assertThrows(() => replaced("x * x", "z", "y"), Error, "Cannot replace z in a kernel");
  assertThrows(() => expand("let x = ${A};", { A: 1, B: 2 }), Error, 'it never names "B"');
  assertThrows(() => expand("let x = ${A};", {}), Error, '"A" has no value');
  assertThrows(() => expand("#if A\n#end", {}), Error, '"A" has no value');
  assertThrows(() => expand("#include A", {}), Error, '"A" has no value');
  assertThrows(() => expand("#for i in 2\nx;", {}), Error, "no #end");
  assertThrows(() => expand("x;\n#end", {}), Error, "ends nothing");
});
