/** Every trajectory of the `optim` fixtures: torch's optimizers, step by step. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { Adam, type AdamOptions, AdamW } from "../autograd/optim/adam.ts";
import { clipByNorm, globalNorm } from "../autograd/optim/clip_norm.ts";
import type { ParameterList } from "../autograd/optim/optimizer.ts";
import { cosineAnnealing, type LearningRate } from "../autograd/optim/schedule.ts";
import { Sgd, type SgdOptions } from "../autograd/optim/sgd.ts";
import { linear } from "../autograd/ops/linear.ts";
import { square, sub, tanh } from "../autograd/ops/pointwise.ts";
import { mean } from "../autograd/ops/reduce.ts";
import { concat, reshape } from "../autograd/ops/view.ts";
import { valueAndGrad } from "../autograd/tape.ts";
import { tensor } from "../tensor/create.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { scope } from "../tensor/scope.ts";
import { numel, type Shape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { fixtures, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";

interface Schedule {
  readonly type: string;
  readonly T_max: number;
  readonly eta_min: number;
}

interface Run {
  readonly steps: readonly { lr: number[]; loss?: number; grad_norm?: number }[];
  readonly atol: number;
  readonly rtol: number;
}

interface Config extends Record<"fed" | "net", Run> {
  readonly optimizer: "SGD" | "Adam" | "AdamW";
  readonly options: Readonly<Record<string, unknown>>;
  readonly schedule: Schedule | null;
  readonly clip_grad_norm: number | null;
  readonly file: string;
  readonly groups?: string;
}

interface Manifest {
  readonly steps: number;
  readonly problems: Record<"fed" | "net", { params: Record<string, Shape> }>;
  readonly configs: Record<string, Config>;
  readonly schedules: readonly (Schedule & { base_lr: number; lr_at_step: number[] })[];
}

const compared = { trajectories: 0, steps: 0, rates: 0 };

const OPTIONS: Readonly<Record<string, keyof SgdOptions | keyof AdamOptions>> = {
  lr: "learningRate",
  weight_decay: "weightDecay",
  momentum: "momentum",
  dampening: "dampening",
  nesterov: "nesterov",
  betas: "betas",
  eps: "epsilon",
  amsgrad: "amsgrad",
};

function annealed(base: number, schedule: Schedule | null): LearningRate {
  if (!schedule) return base;
  assertEquals(schedule.type, "CosineAnnealingLR");
  return cosineAnnealing(base, schedule.eta_min, schedule.T_max);
}

function makeOptimizer(config: Config, parameters: Tensor[]): Sgd | Adam | AdamW {
  const options: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(config.options)) {
    assert(name in OPTIONS, `option ${name} is unknown`);
    options[OPTIONS[name]] = value;
  }
  const base = options.learningRate as number;
  options.learningRate = annealed(base, config.schedule);
  let list: ParameterList<SgdOptions & AdamOptions> = parameters;
  if (config.groups) {
    const rule = new RegExp(
      "first parameter: the options as given; the others: ([\\d.]+) times the lr, " +
        "weight_decay ([\\d.]+)",
    );
    assertMatch(config.groups, rule);
    const [, times, weightDecay] = rule.exec(config.groups)!.map(Number);
    const [first, ...rest] = parameters;
    list = [{ parameters: [first] }, {
      parameters: rest,
      learningRate: annealed(times * base, config.schedule),
      weightDecay,
    }];
  }
  const Class = { SGD: Sgd, Adam, AdamW }[config.optimizer];
  return new Class(list, options);
}

const flat = (tensors: readonly Tensor[]) => concat(tensors.map((x) => reshape(x, [-1])), 0);

function assertClose(actual: number, expected: number, atol: number, rtol: number, where: string) {
  const far = Math.abs(actual - expected);
  assert(far <= atol + rtol * Math.abs(expected), `${where}: ${actual}, not ${expected}`);
}

const directory = fixtures("optim");
if (!directory) skip("optim fixtures");
else {
  const manifest: Manifest = JSON.parse(
    await Deno.readTextFile(new URL("manifest.json", directory)),
  );
  const open = async (name: string) =>
    await SafetensorsFile.open(bytesSource(await Deno.readFile(new URL(name, directory)), name));

  for (const [name, config] of Object.entries(manifest.configs)) {
    gpuTest(`${config.optimizer} agrees with torch: ${name}`, async () => {
      for (const problem of ["fed", "net"] as const) {
        await compare(
          problem,
          manifest,
          config,
          await open("problems.safetensors"),
          await open(config.file),
        );
      }
    });
  }

  Deno.test("cosineAnnealing() agrees with torch", () => {
    for (const { base_lr, eta_min, T_max, type, lr_at_step } of manifest.schedules) {
      const rate = annealed(base_lr, { type, eta_min, T_max }) as (step: number) => number;
      lr_at_step.forEach((lr, step) => assertClose(rate(step), lr, 2e-15, 1e-12, `step ${step}`));
      compared.rates += lr_at_step.length;
    }
  });

  Deno.test("optim fixtures are compared in full", () => {
    const { trajectories, steps, rates } = compared;
    assertEquals(trajectories, 2 * Object.keys(manifest.configs).length);
    assert(trajectories > 0 && rates > 0);
    console.log(
      `optim fixtures: ${trajectories} trajectories, ${steps} steps, ${rates} rates of schedules`,
    );
  });
}

/** Runs one problem without reading anything back on the way, then compares every step. */
async function compare(
  problem: "fed" | "net",
  { steps, problems }: Manifest,
  config: Config,
  data: SafetensorsFile,
  expected: SafetensorsFile,
): Promise<void> {
  const shapes = Object.entries(problems[problem].params);
  const { steps: reference, atol, rtol } = config[problem];
  const load = async (name: string, [rows, ...rest]: Shape) => {
    const values = await data.floats(name);
    return tensor(values, rows === -1 ? [values.length / numel(rest), ...rest] : [rows, ...rest]);
  };
  const parameters: Tensor[] = [];
  for (const [name, shape] of shapes) {
    parameters.push(await load(`${problem}.init.${name}`, shape));
  }
  const two = (step: number) => String(step).padStart(2, "0");
  const givens: Tensor[] = [];
  if (problem === "fed") {
    for (let step = 0; step < steps; step++) {
      for (const [name, shape] of shapes) givens.push(await load(`g.${two(step)}.${name}`, shape));
    }
  } else {
    const { w1, w2 } = problems.net.params;
    givens.push(await load("net.x", [-1, w1[1]]), await load("net.y", [-1, w2[0]]));
  }
  const loss = () => {
    const [[w1, b1, w2, b2], [x, y]] = [parameters, givens];
    return mean(square(sub(linear(tanh(linear(x, w1, b1)), w2, b2), y)));
  };

  const optimizer = makeOptimizer(config, parameters);
  const { clip_grad_norm } = config;
  const recorded = scope(() => {
    const [trajectory, norms, losses]: Tensor[][] = [[], [], []];
    for (let step = 0; step < steps; step++) {
      const where = `${problem}, rate of step ${step}`;
      const rates = optimizer.rates();
      assertEquals(rates.length, reference[step].lr.length);
      rates.forEach((rate, i) => assertClose(rate, reference[step].lr[i], 1e-14, 1e-12, where));

      let grads = givens.slice(step * shapes.length, (step + 1) * shapes.length);
      if (problem === "net") {
        const found = valueAndGrad(loss, parameters);
        losses.push(found.value);
        grads = found.grads;
      }
      if (clip_grad_norm === null) norms.push(globalNorm(grads));
      else {
        const clipped = clipByNorm(grads, clip_grad_norm);
        norms.push(clipped.norm);
        grads = clipped.grads;
      }
      optimizer.step(grads);
      trajectory.push(flat(parameters));
    }
    if (problem === "net") losses.push(loss());
    return { trajectory: flat(trajectory), scalars: flat([...norms, ...losses]) };
  });

  const values = await recorded.trajectory.data();
  let at = 0;
  for (let step = 1; step <= steps; step++) {
    for (const [name, shape] of shapes) {
      const key = `${problem}.${two(step)}.${name}`;
      const wanted = await expected.floats(key);
      assertEquals(wanted.length, numel(shape));
      for (const value of wanted) assertClose(values[at++], value, atol, rtol, key);
    }
  }
  assertEquals(at, values.length);

  const scalars = await recorded.scalars.data();
  const norms = scalars.subarray(0, steps);
  const losses = scalars.subarray(steps);
  for (const [step, { grad_norm, loss }] of reference.entries()) {
    const where = `${problem}, step ${step}`;
    if (grad_norm !== undefined) {
      assertClose(norms[step], grad_norm, atol, rtol, `${where}: norm of the gradients`);
    }
    if (loss !== undefined) assertClose(losses[step], loss, 0, 1e-5, `${where}: loss`);
  }
  assertEquals(losses.length, problem === "net" ? steps + 1 : 0);
  assertEquals(reference.length, problem === "net" ? steps + 1 : steps);

  compared.trajectories++;
  compared.steps += steps;
  optimizer.release();
  [...parameters, ...givens, ...Object.values(recorded)].forEach((x) => x.release());
}
