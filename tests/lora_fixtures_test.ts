/** Every case of the `lora` fixtures: CLIP-LoRA's loralib, Block-LoRA and Hugging Face PEFT. */

import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { crossEntropy } from "../autograd/ops/cross_entropy.ts";
import { maskedDropout } from "../autograd/ops/dropout.ts";
import { linear } from "../autograd/ops/linear.ts";
import { add, mulScalar } from "../autograd/ops/pointwise.ts";
import { slice } from "../autograd/ops/view.ts";
import { AdamW } from "../autograd/optim/adam.ts";
import { Sgd } from "../autograd/optim/sgd.ts";
import { cosineAnnealing } from "../autograd/optim/schedule.ts";
import { valueAndGrad, vjp } from "../autograd/tape.ts";
import { BlockLora } from "../blocklora/methods/block_lora.ts";
import { Lora } from "../blocklora/methods/lora.ts";
import type { LowRank } from "../blocklora/methods/low_rank.ts";
import {
  type AdapterConfig,
  DEFAULT_ADAPTER,
  type LowRankAdapters,
  scaleOf,
} from "../blocklora/methods/adapter_config.ts";
import { Adapters } from "../blocklora/methods/adapters.ts";
import { chosenSites } from "../blocklora/methods/sites.ts";
import { loadAdapters, methodNamed } from "../blocklora/methods/lookup.ts";
import type { AdapterMethod } from "../blocklora/methods/adapter_method.ts";
import type { Clip } from "../clip/clip.ts";
import {
  type Adapter,
  type FrozenLinear,
  Linear,
  type Projection,
  PROJECTIONS,
} from "../clip/layers.ts";
import type { Prompts } from "../clip/text.ts";
import { tensor } from "../tensor/create.ts";
import type { SafetensorsFile } from "../tensor/safetensors.ts";
import { keep, scope } from "../tensor/scope.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { fixtures, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";
import { Comparison, floatTensor, openClip, openSafetensors, readJson } from "./reference.ts";

interface Tolerances {
  readonly rtol: number;
  readonly features_atol: number;
  readonly logits_atol: number;
  readonly gradients_atol: number;
}

interface Sizes {
  readonly r: number;
  readonly n?: number;
  readonly alpha: number;
  readonly scaling: number;
}

interface Case extends Sizes {
  readonly kind: "lora" | "block";
  readonly encoder: AdapterConfig["encoder"];
  readonly params: readonly Projection[];
  readonly loss: number;
  readonly tolerance: Tolerances;
  readonly train: Readonly<Record<string, { lr: number; loss: number[] }>>;
}

interface PeftCase {
  readonly r: number;
  readonly alpha: number;
  readonly use_rslora: boolean;
  readonly scaling: readonly number[];
  readonly tensors: number;
  readonly same_adapter_as: string | null;
  readonly tolerance: { readonly rtol: number; readonly features_atol: number };
}

interface Manifest {
  readonly model: string;
  readonly logit_scale: number;
  readonly cases: Readonly<Record<string, Case>>;
  readonly optimizer: {
    readonly betas: readonly [number, number];
    readonly eps: number;
    readonly weight_decay: number;
    readonly schedule: string;
    readonly steps: number;
  };
  readonly linear_dropout: Sizes & { readonly p: number; readonly rtol: number; atol: number };
  readonly model_dropout: Sizes & {
    readonly p: number;
    readonly loss: number;
    readonly tolerance: Tolerances;
  };
  readonly sgd_momentum_check: { readonly r: number; readonly n: number };
  readonly peft: Readonly<Record<string, PeftCase>>;
}

/** LoRA with a given mask, instead of one that the seed draws. */
class MaskedLora implements Adapter {
  readonly #lora: Lora;
  readonly #mask: Tensor;
  readonly #p: number;

  constructor(lora: Lora, mask: Tensor, p: number) {
    this.#lora = lora;
    this.#mask = mask;
    this.#p = p;
  }

  forward(x: Tensor, { weight, bias }: FrozenLinear): Tensor {
    const { down, ups: [up], scale } = this.#lora;
    return scope(() => {
      const dropped = maskedDropout(x, this.#mask, this.#p);
      const delta = linear(mulScalar(linear(dropped, down), scale), up);
      return add(linear(x, weight, bias), delta);
    });
  }
}

/** A model and a batch, on the GPU. */
class Bench {
  readonly clip: Clip;
  readonly pixels: Tensor;
  readonly prompts: Prompts;
  readonly labels: Tensor;
  readonly logitScale: number;

  constructor(clip: Clip, pixels: Tensor, prompts: Prompts, labels: Tensor, logitScale: number) {
    [this.clip, this.pixels, this.prompts, this.labels] = [clip, pixels, prompts, labels];
    this.logitScale = logitScale;
  }

  static async open(
    directory: URL,
    { model, logit_scale }: Manifest,
    labels?: Int32Array<ArrayBuffer>,
  ): Promise<Bench> {
    const clip = await openClip(new URL(`${model}/`, directory));
    const batch = await openSafetensors(new URL("batch.safetensors", directory));
    const [[images, ...image], [texts]] = ["pixel_values", "input_ids"]
      .map((name) => batch.tensors.get(name)!.shape);
    const count = labels?.length ?? images;
    const pixels = await batch.floats("pixel_values");
    const ids = await batch.integers("input_ids");
    const rows = labels?.length ?? texts;
    return new Bench(
      clip,
      tensor(pixels.slice(0, count * pixels.length / images), [count, ...image]),
      clip.text.prompts(ids.slice(0, rows * ids.length / texts), rows),
      tensor(labels ?? await batch.integers("labels")),
      logit_scale,
    );
  }

  /** Features, logits and loss. */
  forward() {
    return scope(() => {
      const image_features = this.clip.imageFeatures(this.pixels);
      const text_features = this.clip.textFeatures(this.prompts);
      const logits = this.clip.logits(image_features, text_features, this.logitScale);
      return { image_features, text_features, logits, loss: crossEntropy(logits, this.labels) };
    });
  }

  release(): void {
    this.clip.release();
    this.pixels.release();
    this.prompts.release();
    this.labels.release();
  }
}

function configOf(sizes: Sizes, kind: Case["kind"], rest: Partial<AdapterConfig>): AdapterConfig {
  const { r: rank, n: blocks = 1, alpha, scaling } = sizes;
  const method = kind === "lora" ? "lora" : "block-lora";
  const config = { ...DEFAULT_ADAPTER, method, rank, blocks, alpha, dropout: 0, ...rest } as const;
  assertAlmostEquals(scaleOf(config), scaling, 1e-14);
  return config;
}

/** The names of an adapter's matrices in the fixtures. */
function matrixNames(config: AdapterConfig): string[] {
  const ups = config.method === "lora"
    ? ["lora_B"]
    : Array.from({ length: config.blocks }, (_, i) => `lora_B.${i}`);
  return ["lora_A", ...ups];
}

/** Attaches the adapters of a file to every module that the configuration selects. */
async function adaptersOf(
  clip: Clip,
  config: AdapterConfig,
  file: SafetensorsFile,
  { prefix = "in.", zeroUps = false } = {},
): Promise<LowRankAdapters> {
  const byModule = new Map<string, LowRank>();
  const Kind = config.method === "lora" ? Lora : BlockLora;
  for (const { module } of chosenSites(clip, config)) {
    const matrices = [];
    for (const name of matrixNames(config)) {
      const matrix = await floatTensor(file, `${prefix}${module}.${name}`);
      matrices.push(
        name !== "lora_A" && zeroUps ? tensor(new Float32Array(matrix.size), matrix.shape) : matrix,
      );
      if (matrices.at(-1) !== matrix) matrix.release();
    }
    byModule.set(module, new Kind(matrices[0], matrices.slice(1), { scale: scaleOf(config) }));
  }
  // No adapter of the file is left out.
  const held = [...file.tensors.keys()].filter((name) =>
    name.startsWith(prefix) && name.endsWith(".lora_A")
  );
  assertEquals(byModule.size, held.length);
  const { kind } = methodNamed(config.method) as AdapterMethod<LowRank>;
  return new Adapters(clip, config, kind, byModule);
}

const compared = new Comparison();
const trajectories = { runs: 0, elements: 0, loose: 0, worstLoss: 0 };

const directory = fixtures("lora");
if (!directory) skip("lora fixtures");
else {
  const manifest: Manifest = await readJson(new URL("manifest.json", directory));
  for (const [name, reference] of Object.entries(manifest.cases)) {
    gpuTest(`${name} agrees with PyTorch`, () => compareStep(directory, manifest, name, reference));
    for (const run of Object.keys(reference.train)) {
      gpuTest(
        `${name} trains as in PyTorch: ${run}`,
        () => compareTraining(directory, manifest, name, run),
      );
    }
  }
  for (const [name, reference] of Object.entries(manifest.peft)) {
    gpuTest(
      `${name} gives PEFT's features`,
      () => comparePeft(directory, manifest, name, reference),
    );
  }
  gpuTest(
    "n blocks under Sgd with momentum are LoRA at n times the rate",
    () => compareMomentum(directory, manifest),
  );
  gpuTest("Lora drops its input by a given mask", () => compareLinear(directory, manifest));
  gpuTest("a model drops by the given masks", () => compareMasked(directory, manifest));

  Deno.test("lora fixtures are compared in full", () => {
    const { runs, elements, loose, worstLoss } = trajectories;
    const wanted = Object.values(manifest.cases)
      .reduce((count, { train }) => count + Object.keys(train).length, 0);
    assertEquals(runs, wanted);
    assert(compared.names.size > 0 && runs > 0);
    const cases = Object.keys(manifest.cases).length + Object.keys(manifest.peft).length + 3;
    compared.report(`lora fixtures: ${compared.names.size} tensors of ${cases} cases`);
    console.log(
      `lora fixtures: ${runs} trajectories, ${elements} elements, ` +
        `${loose} by the looser tolerance; ` +
        `worst error of a loss ${worstLoss.toExponential(1)}`,
    );
  });
}

async function compareOutputs(
  where: string,
  bench: Bench,
  file: SafetensorsFile,
  { rtol, features_atol, logits_atol }: Tolerances,
  outputs = bench.forward(),
): Promise<void> {
  for (const [name, actual] of Object.entries(outputs)) {
    const atol = name.endsWith("features") ? features_atol : logits_atol;
    await compared.tensor(`${where}/${name}`, actual, file, `out.${name}`, { atol, rtol });
  }
}

async function compareGradients(
  where: string,
  bench: Bench,
  adapters: LowRankAdapters,
  file: SafetensorsFile,
  loss: number,
  { rtol, gradients_atol: atol, logits_atol }: Tolerances,
): Promise<void> {
  const { value, grads } = valueAndGrad(() => bench.forward().loss, adapters.parameters);
  compared.numbers(`${where}/loss with gradients`, await value.data(), [loss], {
    atol: logits_atol,
    rtol,
  });
  const names = [...adapters.byModule.keys()].flatMap((module) =>
    matrixNames(adapters.config).map((name) => `${module}.${name}`)
  );
  assertEquals(names.length, grads.length);
  for (const [i, name] of names.entries()) {
    // Blocks have the same gradient, whatever their values: the files hold the first block's.
    const key = `grad.${name.replace(/lora_B\.\d+$/, "lora_B.0")}`;
    await compared.tensor(`${where}/grad.${name}`, grads[i], file, key, { atol, rtol });
  }
  value.release();
}

async function compareStep(
  directory: URL,
  manifest: Manifest,
  name: string,
  reference: Case,
): Promise<void> {
  const bench = await Bench.open(directory, manifest);
  const { clip } = bench;
  const file = await openSafetensors(new URL(`${name}/step.safetensors`, directory));
  const { params: projections, encoder, tolerance, loss } = reference;
  const config = configOf(reference, reference.kind, { projections, encoder });
  const adapters = await adaptersOf(clip, config, file);
  await compareOutputs(name, bench, file, tolerance);
  await compareGradients(name, bench, adapters, file, loss, tolerance);

  const linears = chosenSites(clip, config);
  const frozen = await Promise.all(linears.map(({ linear }) => linear.weight.data()));
  adapters.merge();
  let merged = 0;
  for (const { module, linear } of linears) {
    const key = `merged.${module}.weight`;
    if (!file.tensors.has(key)) continue;
    const wanted = await file.floats(key);
    // The tolerance is a few units in the last digit of numbers below 1.
    compared.numbers(`${name}/${key}`, await linear.weight.data(), wanted, {
      atol: 1e-6,
      rtol: 1e-5,
    });
    merged++;
  }
  assert(merged > 0);
  await compareOutputs(`${name}/merged`, bench, file, tolerance);
  adapters.unmerge();
  assertEquals(await Promise.all(linears.map(({ linear }) => linear.weight.data())), frozen);
  adapters.release();
  bench.release();
}

async function compareTraining(
  directory: URL,
  manifest: Manifest,
  name: string,
  run: string,
): Promise<void> {
  const reference = manifest.cases[name];
  const { lr, loss: losses } = reference.train[run];
  const { betas, eps, weight_decay: weightDecay, schedule, steps } = manifest.optimizer;
  assertEquals(losses.length, steps + 1);
  const annealing = /^CosineAnnealingLR\(T_max=(\d+), eta_min=(\S+)\)$/;
  assertMatch(schedule, annealing);
  const [, total, minimum] = annealing.exec(schedule)!.map(Number);

  const bench = await Bench.open(directory, manifest);
  const { params: projections, encoder, kind } = reference;
  const config = configOf(reference, kind, { projections, encoder });
  const file = await openSafetensors(new URL(`${name}/train.safetensors`, directory));
  const adapters = kind === "lora"
    ? await adaptersOf(bench.clip, config, file, { prefix: "init." })
    : await adaptersOf(
      bench.clip,
      config,
      await openSafetensors(new URL(`${name}/step.safetensors`, directory)),
      { zeroUps: run.startsWith("zero") },
    );
  const optimizer = new AdamW(adapters.parameters, {
    learningRate: cosineAnnealing(lr, minimum, total),
    betas,
    epsilon: eps,
    weightDecay,
  });
  const where = `${name}/${run}`;
  const found: Tensor[] = [];
  let snapshots = 0;
  for (let step = 1; step <= steps; step++) {
    found.push(keep(scope(() => {
      const { value, grads } = valueAndGrad(() => bench.forward().loss, adapters.parameters);
      optimizer.step(grads);
      return value;
    })));
    const label = step === steps ? "final" : `step${String(step).padStart(2, "0")}`;
    const prefix = `${run}.${label}.`;
    if ([...file.tensors.keys()].some((key) => key.startsWith(prefix))) {
      await compareMatrices(`${where}/${label}`, adapters, file, prefix, lr);
      snapshots++;
    }
  }
  assert(snapshots > 0);
  found.push(keep(scope(() => bench.forward().loss)));
  for (const [step, loss] of found.entries()) {
    const error = Math.abs(await loss.item() - losses[step]);
    assert(error <= 1e-3, `${where}: the loss before step ${step} is off by ${error}`);
    trajectories.worstLoss = Math.max(trajectories.worstLoss, error);
    loss.release();
  }
  trajectories.runs++;
  optimizer.release();
  adapters.release();
  bench.release();
}

/**
 * Nearly all elements are close; where a gradient is near zero, Adam may move one by a fraction of
 * the rate.
 */
async function compareMatrices(
  where: string,
  adapters: LowRankAdapters,
  file: SafetensorsFile,
  prefix: string,
  lr: number,
): Promise<void> {
  let [count, loose] = [0, 0];
  for (const [module, { down, ups }] of adapters.byModule) {
    const values = await Promise.all([down, ...ups].map((matrix) => matrix.data()));
    for (const [i, name] of matrixNames(adapters.config).entries()) {
      // Blocks that began equal stay equal: the file then holds the first one alone.
      const key = `${prefix}${module}.${name}`;
      const stored = file.tensors.has(key);
      if (!stored) assertEquals(values[i], values[1], `${where}: the blocks of ${module} differ`);
      const wanted = await file.floats(stored ? key : `${prefix}${module}.lora_B.0`);
      assertEquals(values[i].length, wanted.length);
      for (let k = 0; k < wanted.length; k++) {
        const error = Math.abs(values[i][k] - wanted[k]);
        if (error <= 1e-5 + 1e-4 * Math.abs(wanted[k])) continue;
        assert(error <= 0.2 * lr, `${where}: ${key}[${k}] is off by ${error}`);
        loose++;
      }
      count += wanted.length;
    }
  }
  assert(loose <= count / 1000, `${where}: ${loose} of ${count} elements are off`);
  trajectories.elements += count;
  trajectories.loose += loose;
}

/** Stochastic gradient descent moves n equal blocks as it moves one at n times the rate. */
async function compareMomentum(directory: URL, manifest: Manifest): Promise<void> {
  const { r, n } = manifest.sgd_momentum_check;
  const name = Object.keys(manifest.cases).find((name) => {
    const found = manifest.cases[name];
    return found.kind === "block" && found.r === r && found.n === n;
  });
  assert(name, `no case has r ${r} and n ${n}`);
  const bench = await Bench.open(directory, manifest);
  const { params: projections, encoder, alpha, scaling } = manifest.cases[name];
  const config = configOf({ r, n, alpha, scaling }, "block", { projections, encoder });
  const file = await openSafetensors(new URL(`${name}/step.safetensors`, directory));
  const [rate, momentum] = [0.01, 0.9];
  const trained = async (blocks: number) => {
    const adapters = await adaptersOf(bench.clip, { ...config, blocks }, file, { zeroUps: true });
    const matrices = [...adapters.byModule.values()];
    const optimizer = new Sgd([
      { parameters: matrices.map(({ down }) => down) },
      { parameters: matrices.flatMap(({ ups }) => ups), learningRate: rate * n / blocks },
    ], { learningRate: rate, momentum });
    for (let step = 0; step < 5; step++) {
      scope(() => {
        const [ups, downs] = [
          matrices.flatMap(({ ups }) => ups),
          matrices.map(({ down }) => down),
        ];
        const { grads } = valueAndGrad(() => bench.forward().loss, [...downs, ...ups]);
        optimizer.step(grads);
      });
    }
    const values = await Promise.all(
      matrices.map(({ ups }) => Promise.all(ups.map((up) => up.data()))),
    );
    optimizer.release();
    adapters.release();
    return values;
  };
  const [several, one] = [await trained(n), await trained(1)];
  for (const [i, blocks] of several.entries()) {
    for (const block of blocks) assertEquals(block, blocks[0]);
    const total = Float32Array.from(blocks[0], (value) => n * value);
    const largest = Math.max(...Array.from(one[i][0], Math.abs));
    assert(largest > 0);
    compared.numbers(`momentum/${i}`, total, one[i][0], { atol: 1e-4 * largest, rtol: 1e-4 });
  }
  bench.release();
}

async function comparePeft(
  directory: URL,
  manifest: Manifest,
  name: string,
  { r, alpha, use_rslora, scaling, tensors, same_adapter_as, tolerance }: PeftCase,
): Promise<void> {
  const bench = await Bench.open(directory, manifest);
  const file = await openSafetensors(new URL(`${name}/adapter_model.safetensors`, directory));
  const json = await readJson(new URL(`${name}/adapter_config.json`, directory));
  const { adapters } = await loadAdapters(bench.clip, file, json);
  const { config, byModule } = adapters as LowRankAdapters;
  assertEquals(
    [config.method, config.rank, config.alpha, config.scaling],
    ["lora", r, alpha, use_rslora ? "sqrt" : "linear"],
  );
  assertEquals(adapters.parameters.length, tensors);
  for (const { scale } of byModule.values()) {
    assert(scaling.some((known) => Math.abs(scale - known) < 1e-12), `scale is ${scale}`);
  }
  const outputs = bench.forward();
  const expected = await openSafetensors(new URL(`${name}/out.safetensors`, directory));
  for (const key of ["image_features", "text_features"] as const) {
    const { rtol, features_atol: atol } = tolerance;
    await compared.tensor(`${name}/${key}`, outputs[key], expected, `out.${key}`, { atol, rtol });
  }
  if (same_adapter_as !== null) {
    const step = await openSafetensors(new URL(`${same_adapter_as}/step.safetensors`, directory));
    for (const [module, { down, ups: [up] }] of byModule) {
      assertEquals(await down.data(), await step.floats(`in.${module}.lora_A`));
      assertEquals(await up.data(), await step.floats(`in.${module}.lora_B`));
    }
  }
  outputs.logits.release();
  outputs.loss.release();
  adapters.release();
  bench.release();
}

async function maskOf(file: SafetensorsFile, name: string): Promise<Tensor> {
  const values = Uint32Array.from(await file.integers(name));
  return keep(tensor(values, file.tensors.get(name)!.shape));
}

async function compareLinear(
  directory: URL,
  { linear_dropout: { r, alpha, scaling, p, rtol, atol } }: Manifest,
): Promise<void> {
  const file = await openSafetensors(new URL("linear_dropout.safetensors", directory));
  const config = configOf({ r, alpha, scaling }, "lora", {});
  const given = (name: string) => floatTensor(file, name);
  const [weight, bias] = [await given("in.weight"), await given("in.bias")];
  const [x, down, up] = [await given("in.x"), await given("in.lora_A"), await given("in.lora_B")];
  const gout = await given("gout.y");
  const mask = await maskOf(file, "in.mask");
  const linear = new Linear(weight, bias);
  linear.adapter = new MaskedLora(new Lora(down, [up], { scale: scaleOf(config) }), mask, p);
  const { value, backward } = vjp(() => linear.forward(x), [down, up, x]);
  const grads = backward(gout);
  await compared.tensor("linear_dropout/y", value, file, "out.y", { rtol, atol });
  for (const [i, name] of ["lora_A", "lora_B", "x"].entries()) {
    await compared.tensor(`linear_dropout/${name}`, grads[i], file, `grad.${name}`, { rtol, atol });
  }
  for (const owned of [weight, bias, x, down, up, gout, mask]) owned.release();
}

async function compareMasked(directory: URL, manifest: Manifest): Promise<void> {
  const { r, alpha, scaling, p, loss, tolerance } = manifest.model_dropout;
  const file = await openSafetensors(new URL("model_dropout.safetensors", directory));
  const bench = await Bench.open(directory, manifest, await file.integers("in.labels"));
  const names = Object.keys(PROJECTIONS) as Projection[];
  const masked = [...file.tensors.keys()].filter((key) => key.startsWith("in.mask."));
  const projections = names.filter((name) => masked.some((key) => key.endsWith(PROJECTIONS[name])));
  const towers = ["vision", "text"] as const;
  const [encoder, other] = towers.filter((tower) => masked.some((key) => key.includes(tower)));
  const config = configOf({ r, alpha, scaling }, "lora", {
    projections,
    encoder: other ? "both" : encoder,
  });
  const adapters = await adaptersOf(bench.clip, config, file);
  const masks: Tensor[] = [];
  for (const { module, linear } of chosenSites(bench.clip, config)) {
    const full = await maskOf(file, `in.mask.${module}`);
    // The text tower runs only to the longest prompt, and so does its mask.
    const length = module.startsWith("text") ? bench.prompts.ids.shape[1] : full.shape[1];
    const mask = slice(full, 1, 0, length);
    linear.adapter = new MaskedLora(adapters.byModule.get(module) as Lora, mask, p);
    masks.push(full, mask);
  }
  await compareOutputs("model_dropout", bench, file, tolerance);
  await compareGradients("model_dropout", bench, adapters, file, loss, tolerance);
  adapters.release();
  bench.release();
  for (const mask of masks) mask.release();
}
