/**
 * A compute shader and its pipelines.
 *
 * @module
 */

import type { Binding } from "../tensor/bind_groups.ts";
import { gpu } from "../tensor/device.ts";
import { currentEngine, perEngine } from "../tensor/engine.ts";
import { KernelError } from "../tensor/errors.ts";
import { count } from "../tensor/measure.ts";
import { type Grid, SIZES_BYTES } from "../tensor/queue.ts";
import { ELEMENT_BYTES, type Tensor } from "../tensor/tensor.ts";
import {
  bindingsOf,
  type Constants,
  type Declaration,
  declared,
  type DeclaredBinding,
  dtypeOf,
  type Sizes,
  type SizeType,
} from "./declaration.ts";
import { type WarmUp, warmUp } from "./warm_up.ts";

/** The most workgroups along one axis of a grid. */
const MAX_WORKGROUPS = 65535;

/**
 * Loop steps that one invocation may take in all. Mesa's software driver leaves every loop after
 * 65,535 steps of an invocation, without a word; and elsewhere all lanes of a subgroup wait for the
 * one with so much to do.
 */
export const MAX_STEPS = 60000;

/** A kernel as an engine has it. */
interface Program {
  readonly module: GPUShaderModule;
  readonly layout: GPUBindGroupLayout;
  /** By the values of the constants. */
  readonly pipelines: Map<string, GPUComputePipeline>;
}

/**
 * A compute shader: its bindings are group 0, inputs before outputs, and the uniform of group 1
 * carries the numbers that change from run to run. Its WGSL lacks just what it declares.
 */
export class Kernel {
  /** What errors call it. */
  readonly name: string;
  /** Its source, with its declarations. */
  readonly wgsl: string;
  readonly #declaration: Declaration;
  readonly #bindings: readonly DeclaredBinding[];
  readonly #fields: readonly (readonly [name: string, type: SizeType])[];
  readonly #constants: readonly string[];
  readonly #sizes = new DataView(new ArrayBuffer(SIZES_BYTES));
  readonly #compiled = perEngine((): { program: Program | null } => ({ program: null }));

  /** Adds to the WGSL what is declared. Nothing is compiled before the first run. */
  constructor(name: string, wgsl: string, declaration: Declaration) {
    this.name = name;
    this.wgsl = declared(wgsl, declaration);
    this.#declaration = declaration;
    this.#bindings = bindingsOf(declaration);
    this.#fields = Object.entries(declaration.sizes);
    this.#constants = Object.keys(declaration.constants ?? {});
    if (this.#fields.length * 4 > SIZES_BYTES) {
      throw new RangeError(
        `Cannot make kernel ${name}: it has ${this.#fields.length} sizes, at most ${
          SIZES_BYTES / 4
        } are possible`,
      );
    }
  }

  /**
   * Records one run. A binding may be a tensor, or a range of a buffer where a tensor is larger
   * than one binding.
   *
   * @throws {RangeError} If a tensor is larger than the GPU can bind.
   * @throws {TypeError} If the kernel reads floats or halves, and a tensor holds something else.
   * @throws {KernelError} If an output lies on the buffer of another tensor.
   */
  run(
    inputs: readonly (Tensor | Binding)[],
    outputs: readonly Tensor[],
    sizes: Sizes,
    grid: Grid,
    constants: Constants = {},
  ): void {
    if (grid.includes(0)) return;
    const operands = [...inputs, ...outputs];
    const bindings = operands.map((operand) => "binding" in operand ? inQuads(operand) : operand);
    const explain = (message: string) =>
      new KernelError(`Cannot run ${this.name} on ${shapesOf(operands)}: ${message}`, this.name);
    this.#check(operands, bindings, grid, explain);
    const program = this.#program(operands);
    const { under } = warmUp();
    if (under) {
      this.#warmUp(under, program, constants, sizes, explain);
      return;
    }
    const pipeline = this.#pipeline(program, constants, explain);
    currentEngine().queue
      .dispatch(pipeline, program.layout, bindings, this.#pack(sizes), grid, explain);
    count(this.name, () => ({
      flops: this.#declaration.flops(sizes, inputs),
      bytesRead: this.#declaration.reads?.(sizes) ?? bytesOf(inputs),
      bytesWritten: this.#declaration.writes?.(sizes) ?? bytesOf(outputs),
    }));
  }

  #check(
    operands: readonly (Tensor | Binding)[],
    bindings: readonly Binding[],
    grid: Grid,
    explain: (message: string) => Error,
  ): void {
    if (bindings.length !== this.#bindings.length) {
      throw new RangeError(
        `Cannot run ${this.name}: it binds ${this.#bindings.length} tensors, ` +
          `got ${bindings.length}`,
      );
    }
    const { maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage } = gpu().limits;
    if (bindings.length > maxStorageBuffersPerShaderStage) {
      throw new RangeError(
        `Cannot run ${this.name}: it binds ${bindings.length} buffers, ` +
          `the GPU allows ${maxStorageBuffersPerShaderStage}`,
      );
    }
    for (const [i, { buffer }] of bindings.entries()) {
      const operand = operands[i];
      const { size } = "binding" in operand ? operand.binding : operand;
      if ("dtype" in operand) this.#checkDtype(operand, dtypeOf(this.#bindings[i].type));
      if (size > maxStorageBufferBindingSize) {
        const shape = shapesOf([operand]);
        throw new RangeError(
          `Cannot run ${this.name} on ${shape}: it takes ${size} bytes, the GPU binds at most ` +
            `${maxStorageBufferBindingSize}, use a smaller batch`,
        );
      }
      if (this.#bindings[i].access === "read") continue;
      const other = bindings.findIndex((binding, j) => j !== i && binding.buffer === buffer);
      if (other < 0) continue;
      throw explain(
        `it writes tensor ${i}, on whose buffer tensor ${other} lies too, give a copy`,
      );
    }
    if (grid.some((groups) => groups! > MAX_WORKGROUPS)) {
      throw new RangeError(
        `Cannot run ${this.name}: its grid is [${grid}], at most ${MAX_WORKGROUPS} fit an axis`,
      );
    }
  }

  #checkDtype({ dtype, shape }: Tensor, takes: "f32" | "f16" | undefined): void {
    if (takes ? dtype === takes : dtype !== "f16") return;
    const wanted = takes ?? "elements of 4 bytes";
    throw new TypeError(`Cannot run ${this.name} on ${dtype} [${shape}]: it takes ${wanted}`);
  }

  #pack(sizes: Sizes): Uint8Array {
    const view = this.#sizes;
    for (const [i, [name, type]] of this.#fields.entries()) {
      const value = sizes[name];
      if (value === undefined) {
        throw new Error(`Cannot run ${this.name}: its size "${name}" was not given`);
      }
      if (type === "f32") view.setFloat32(4 * i, value, true);
      else if (type === "u32") view.setUint32(4 * i, value, true);
      else view.setInt32(4 * i, value, true);
    }
    return new Uint8Array(view.buffer, 0, this.#fields.length * 4);
  }

  /**
   * Has a run's pipeline compiled, if it is not yet, and notes how to start it on no workgroups.
   */
  #warmUp(
    { compiling, starts }: WarmUp,
    program: Program,
    constants: Constants,
    sizes: Sizes,
    explain: (message: string) => Error,
  ): void {
    const key = this.#keyOf(constants);
    const name = `${this.name} ${key}`;
    if (program.pipelines.has(key) || starts.has(name)) return;
    const packed = this.#pack(sizes).slice();
    starts.set(name, (spare) => {
      const pipeline = this.#pipeline(program, constants, explain);
      const bindings = this.#bindings.map((_, i) => spare(i));
      currentEngine().queue.dispatch(pipeline, program.layout, bindings, packed, [0], explain);
    });
    const made = gpu().createComputePipelineAsync(this.#descriptor(program, constants));
    // What is refused here is refused again, and told, when it is to run.
    compiling.push(made.then((pipeline) => program.pipelines.set(key, pipeline)).catch(() => {}));
  }

  /** Constants as declared, so that the order in which a run names them does not count. */
  #keyOf(constants: Constants): string {
    return this.#constants.map((name) => constants[name]).join();
  }

  #descriptor({ module, layout }: Program, constants: Constants): GPUComputePipelineDescriptor {
    const bindGroupLayouts = [layout, currentEngine().queue.sizesLayout];
    return {
      label: this.name,
      layout: gpu().createPipelineLayout({ bindGroupLayouts }),
      compute: { module, constants },
    };
  }

  #pipeline(
    program: Program,
    constants: Constants,
    explain: (message: string) => Error,
  ): GPUComputePipeline {
    const { pipelines } = program;
    const key = this.#keyOf(constants);
    let pipeline = pipelines.get(key);
    if (!pipeline) {
      const { device } = currentEngine();
      pipeline = device.guarded(
        "validation",
        () => device.gpu.createComputePipeline(this.#descriptor(program, constants)),
        (message) => {
          // Made again by the next run, which then says again what is wrong.
          pipelines.delete(key);
          return explain(message);
        },
      );
      pipelines.set(key, pipeline);
    }
    return pipeline;
  }

  #program(operands: readonly (Tensor | Binding)[]): Program {
    const compiled = this.#compiled();
    if (compiled.program) return compiled.program;
    const { device, queue } = currentEngine();
    const code = this.#declaration.subgroups ? device.subgroupPrelude + this.wgsl : this.wgsl;
    const layout = queue.bindGroups.layout(this.#bindings.map(({ access }) => access));
    const module: GPUShaderModule = device.guarded(
      "validation",
      () => device.gpu.createShaderModule({ label: this.name, code }),
      async (message): Promise<KernelError> => {
        compiled.program = null;
        const { messages } = await module.getCompilationInfo();
        const error = messages.find(({ type }) => type === "error");
        const line = error?.lineNum || lineIn(message);
        const where = `${line ? ` at line ${line}` : ""} for ${shapesOf(operands)}`;
        const what = (error?.message || message).trim();
        return new KernelError(`Cannot compile ${this.name}${where}: ${what}`, this.name, line);
      },
    );
    return compiled.program = { module, layout, pipelines: new Map() };
  }
}

/** What a tensor is bound as: in complete vec4, for which every buffer has room. */
function inQuads({ binding }: Tensor): Binding {
  const { buffer, size } = binding;
  return size % 16 === 0
    ? binding
    : { ...binding, size: Math.min(Math.ceil(size / 16) * 16, buffer.size) };
}

/**
 * The line that a message of naga points to, which its compilation info leaves out for errors of
 * types.
 */
function lineIn(message: string): number | undefined {
  const line = /┌─ .*:(\d+):\d+$/m.exec(message)?.[1];
  return line === undefined ? undefined : Number(line);
}

/** Bytes of the distinct elements: an axis that repeats what one buffer holds once adds none. */
function bytesOf(operands: readonly (Tensor | Binding)[]): number {
  return operands.reduce(
    (bytes, operand) =>
      bytes + ("shape" in operand
        ? operand.shape.reduce(
          (elements, size, axis) => operand.strides[axis] === 0 ? elements : elements * size,
          ELEMENT_BYTES[operand.dtype] as number,
        )
        : operand.size),
    0,
  );
}

function shapesOf(operands: readonly (Tensor | Binding)[]): string {
  return operands.map((operand) =>
    "shape" in operand ? `[${operand.shape}]` : "a range of a tensor"
  )
    .join(", ");
}

/** Spreads `groups` workgroups over x and y, since no axis may hold more than 65,535. */
export function spread(groups: number): Grid {
  const y = Math.max(1, Math.ceil(groups / MAX_WORKGROUPS));
  return [Math.ceil(groups / y), y, 1];
}
