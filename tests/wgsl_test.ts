/**
 * Kernels can be read: what is printed of them, and what their WGSL is made from.
 */

import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { GOLDEN, goldenFile, PRINTABLE, wgslOf } from "../bench/wgsl.ts";
import { cacheKey } from "../kernels/declaration.ts";
import { Kernel } from "../kernels/kernel.ts";
import { multiplyThen } from "../kernels/matmul.ts";
import { pointwise } from "../kernels/pointwise.ts";
import { expand, replaced } from "../kernels/template.ts";
import { VARIANTS } from "../kernels/variant.ts";
import { gpu, onDryEngine } from "../tensor/device.ts";
import { scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";

for (const name of GOLDEN) {
  Deno.test(`${name} is the kernel that is committed`, async () => {
    const committed = await Deno.readTextFile(goldenFile(name));
    const message = `${name} has changed: see whether it should, then \`deno task wgsl --update\``;
    assertEquals(wgslOf(name), committed, message);
  });
}

/** The indentation of each line by the brackets that are open before it, against what it has. */
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

for (const variant of VARIANTS) {
  Deno.test(`every kernel is printed with consistent indentation: ${variant}`, () => {
    for (const name of Object.keys(PRINTABLE)) {
      const hasNone = variant === "perLane" && /^attention|^row-dot/.test(name);
      if (hasNone) assertThrows(() => wgslOf(name, { variant }), RangeError, "has no such kernel");
      else assertFormatted(wgslOf(name, { variant }));
    }
  });
}

Deno.test("assertFormatted() sees what is not", () => {
  for (const code of ["fn f() { \n}", "fn f() {\nx();\n}", "a;\n\n\nb;", "fn f() {\n    x();\n}"]) {
    assertThrows(() => assertFormatted(code));
  }
});

Deno.test("wgslOf() takes a shape, and says what there is", () => {
  const code = wgslOf("matmul", { shape: [6, 5, 7], variant: "perLane" });
  assertMatch(code, /^\/\/ out\[b\] = f\(a\[b\] × c\[b\]\), in tiles of /);
  assertMatch(code, /select\(0\.0, read_a\(.*, i < sizes\.k\)/);
  assertThrows(() => wgslOf("matmul", { shape: [6, 5] }), RangeError, "3 sizes, such as 1576x768");
  assertThrows(() => wgslOf("product"), RangeError, 'Cannot print "product": there are matmul, ');
});

Deno.test("deno task wgsl says in one line what is wrong", async () => {
  const run = async (...args: string[]) => {
    const command = ["run", "-A", "--quiet", "bench/wgsl.ts", ...args];
    const cwd = new URL("../", import.meta.url);
    const { code, stderr } = await new Deno.Command(Deno.execPath(), { args: command, cwd })
      .output();
    return [code, new TextDecoder().decode(stderr)];
  };
  const variants = VARIANTS.join(", ");
  assertEquals(await run("matmul", "--variant", "lane"), [
    1,
    `wgsl: Cannot print the variant "lane": there are ${variants}\n`,
  ]);
  assertEquals(await run("matmul", "8x0x8"), [
    1,
    "wgsl: Cannot print matmul 8x0x8: give a name, and sizes as in 1576x768x768\n",
  ]);
});

/** How many shader modules and pipelines a dry engine is asked for. */
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

Deno.test("the order in which an object names things makes no other kernel", () => {
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
