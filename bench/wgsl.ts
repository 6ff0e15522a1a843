/**
 * `deno task wgsl NAME [SHAPE]`: prints a generated kernel as a GPU gets it, in readable WGSL.
 *
 * @module
 */

import { attention } from "../autograd/ops/attention.ts";
import { linear } from "../autograd/ops/linear.ts";
import { lowRankLinear } from "../autograd/ops/low_rank.ts";
import { matmul } from "../autograd/ops/matmul.ts";
import { layerNorm } from "../autograd/ops/layer_norm.ts";
import { gelu } from "../autograd/ops/pointwise.ts";
import { softmax } from "../autograd/ops/softmax.ts";
import { sum } from "../autograd/ops/reduce.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import { runCommand } from "../blocklora/commands/command.ts";
import { oneOf, toggle, UsageError } from "../blocklora/system/flag.ts";
import { parseFlags } from "../blocklora/system/flags.ts";
import { pinKernels, type Variant, VARIANTS } from "../kernels/variant.ts";
import { type DryGpu, dryTwin, init, onDryEngine, shutDown } from "../tensor/device.ts";
import { currentEngine } from "../tensor/engine.ts";
import { NoAdapterError } from "../tensor/errors.ts";
import { scope } from "../tensor/scope.ts";
import { Tensor } from "../tensor/tensor.ts";

/** A computation, and which of its kernels is shown. */
interface Program {
  /** What its sizes mean, in words. */
  readonly sizes: string;
  /** The sizes, if none are given. */
  readonly preset: readonly number[];
  /** How the label of the kernel begins. */
  readonly kernel: string;
  /** Runs the computation. */
  readonly run: (sizes: readonly number[]) => void;
}

const empty = (...shape: number[]) => Tensor.empty(shape);

/** Runs attention and its gradients, for q, k and v `[batch, heads, tokens, width]`. */
function attend([batch, heads, tokens, width]: readonly number[]): void {
  const inputs = [1, 2, 3].map(() => empty(batch, heads, tokens, width));
  const [q, k, v] = inputs;
  valueAndGrad(() => sum(attention(q, k, v)), inputs);
}

const HEADS = [8, 12, 197, 64];

/** The programs, by name. */
export const PROGRAMS: Readonly<Record<string, Program>> = {
  "product": {
    sizes: "rows x inner x columns",
    preset: [1576, 768, 768],
    kernel: "matmul",
    run: ([m, k, n]) => void matmul(empty(m, k), empty(k, n)),
  },
  "thin-product": {
    sizes: "rows x inner x rank",
    preset: [1576, 768, 4],
    kernel: "matmul",
    run: ([m, k, r]) => void linear(empty(m, k), empty(r, k)),
  },
  "low-rank": {
    sizes: "rows x inner x columns x rank",
    preset: [1576, 768, 768, 4],
    kernel: "matmul",
    run([m, k, n, r]) {
      const change = { down: empty(r, k), up: empty(n, r), scale: 0.5 };
      lowRankLinear(empty(m, k), empty(n, k), empty(n), change, { activation: gelu });
    },
  },
  "attention": {
    sizes: "batch x heads x tokens x width",
    preset: HEADS,
    kernel: "attention forward",
    run: attend,
  },
  "attention-values": {
    sizes: "batch x heads x tokens x width",
    preset: HEADS,
    kernel: "attention values",
    run: attend,
  },
  "attention-inputs": {
    sizes: "batch x heads x tokens x width",
    preset: HEADS,
    kernel: "attention inputs",
    run: attend,
  },
  "softmax": {
    sizes: "rows x columns",
    preset: [1576, 768],
    kernel: "softmax.wgsl",
    run: ([rows, columns]) => void softmax(empty(rows, columns)),
  },
  "layer-norm": {
    sizes: "rows x columns",
    preset: [1576, 768],
    kernel: "layer_norm.wgsl",
    run: ([rows, columns]) =>
      void layerNorm(empty(rows, columns), empty(columns), empty(columns), 1e-5),
  },
};

/**
 * The WGSL of a program's kernel, for a GPU as described; of several kernels the last.
 *
 * @throws {Error} If this GPU runs the program with other kernels.
 */
export function wgslOf(
  { kernel, run, preset }: Program,
  gpu: DryGpu,
  { sizes = preset, variant }: { readonly sizes?: readonly number[]; readonly variant?: Variant } =
    {},
): string {
  const made: { readonly label: string; readonly code: string }[] = [];
  onDryEngine(gpu, () => {
    pinKernels({ variant });
    const device = currentEngine().device.gpu;
    const create = device.createShaderModule.bind(device);
    device.createShaderModule = (descriptor) => {
      made.push({ label: descriptor.label ?? "", code: descriptor.code });
      return create(descriptor);
    };
    scope(() => run(sizes));
  });
  const shown = made.findLast(({ label }) => label.startsWith(kernel));
  if (shown) return `// ${shown.label}, ${sizes.join(" x ")}\n${shown.code}`;
  throw new Error(`Cannot show ${kernel}: this GPU computes it with other kernels`);
}

/** The GPU that the committed WGSL is for: a hardware one, with no subgroups of a fixed size. */
export const GOLDEN_GPU: DryGpu = { software: false, lanes: 0 };

/** The programs whose WGSL is committed. */
export const GOLDEN = [
  "product",
  "thin-product",
  "attention",
  "attention-values",
  "attention-inputs",
  "softmax",
] as const;

/** The file of a program's committed WGSL. */
export const goldenFile = (name: string): URL =>
  new URL(`../tests/wgsl/${name}.wgsl`, import.meta.url);

const ABOUT = {
  usage: "octograd wgsl NAME [SHAPE] [--variant WHICH]",
  about:
    `Prints what a generated kernel is for this machine's GPU, or for one with WebGPU's limits if it
has none. SHAPE is sizes with an x between them. NAME is one of:
${
      Object.entries(PROGRAMS).map(([name, { sizes, preset }]) =>
        `  ${name.padEnd(18)}${sizes} [${preset.join("x")}]`
      ).join("\n")
    }`,
};

const FLAGS = {
  variant: oneOf<Variant | "auto">(["auto", ...VARIANTS], "how invocations share", "auto"),
  update: toggle("write the committed WGSL anew, which the tests compare"),
  help: toggle("print this help"),
};

async function run(args: readonly string[]): Promise<number> {
  const { values: { variant, update }, rest: [name, shape, stray] } = parseFlags(args, FLAGS);
  if (update) {
    for (const name of GOLDEN) {
      await Deno.writeTextFile(goldenFile(name), wgslOf(PROGRAMS[name], GOLDEN_GPU));
    }
    return 0;
  }
  const program = Object.hasOwn(PROGRAMS, name ?? "") ? PROGRAMS[name] : undefined;
  if (!program || stray !== undefined) {
    throw new UsageError(
      `Cannot show ${stray ?? name ?? "nothing"}: name one of ${Object.keys(PROGRAMS).join(", ")}`,
    );
  }
  const sizes = shape?.split("x").map(Number) ?? program.preset;
  if (
    sizes.length !== program.preset.length || !sizes.every((size) => size > 0 && size % 1 === 0)
  ) {
    throw new UsageError(`Cannot use shape "${shape}": it must be ${program.sizes}, as 8x64x64`);
  }
  const chosen = variant === "auto" ? undefined : variant;
  console.log(wgslOf(program, await thisGpu(), { sizes, variant: chosen }).trimEnd());
  return 0;
}

/** The description of this machine's GPU; without one, {@linkcode GOLDEN_GPU}. */
async function thisGpu(): Promise<DryGpu> {
  try {
    await init();
    return dryTwin();
  } catch (error) {
    if (!(error instanceof NoAdapterError)) throw error;
    console.error("octograd wgsl: there is no GPU here, this is for one with WebGPU's limits");
    return GOLDEN_GPU;
  }
}

if (import.meta.main) {
  const code = await runCommand("wgsl", { ABOUT, FLAGS, run }, Deno.args);
  shutDown();
  Deno.exit(code);
}
