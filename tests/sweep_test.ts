/**
 * Sweeps: what they run, in which shares, and that a killed sweep loses nothing.
 */

import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertGreater,
  assertLess,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { join } from "node:path";
import { fitProbe, probePredictions } from "../blocklora/methods/linear_probe.ts";
import { runsOf } from "../blocklora/commands/sweep.ts";
import { shardOf } from "../blocklora/training/shard.ts";
import { UsageError } from "../blocklora/system/flag.ts";
import { memory } from "../tensor/memory.ts";
import { Random } from "../tensor/random.ts";
import { copyData, octograd, outcomeOf, spawn, withDirectory } from "./cli.ts";
import { gpuTest } from "./gpu.ts";

const LISTS = {
  data: "a,b/c",
  methods: "zero-shot,linear-probe,lora-r2,block-lora-r8-n4",
  shots: "1,4",
  seeds: "1,2,3",
};

Deno.test("runsOf() has every method, shot, seed and data set once", () => {
  const runs = runsOf(LISTS);
  assertEquals(runs.length, 2 * (1 + 3 * 2 * 3));
  const told = runs.map(({ data, name, shots, seed }) => [data, name, shots, seed].join());
  assertEquals(new Set(told).size, runs.length);
  const block = runs.at(-1)!;
  assertEquals([block.data, block.shots, block.seed], ["b/c", 4, 3]);
  assertEquals([block.name, block.method?.name], ["block-lora-r8-n4", "block-lora"]);
  assertEquals(block.values, { rank: 8, blocks: 4 });
  for (
    const [wrong, message] of [
      [{ methods: "lora" }, '--methods: "lora" is not linear-probe'],
      [{ methods: "adalora-r2" }, '"adalora-r2" is not'],
      [{ methods: "lora-r4-n2" }, '"lora-r4-n2" is not'],
      [{ shots: "1,0" }, "--shots"],
      [{ seeds: "" }, "--seeds"],
      [{ seeds: "1,4294967296" }, "integers from 0 to 4294967295"],
      [{ data: "x/a,y/a" }, 'two data sets are called "a"'],
    ] as const
  ) {
    assertThrows(() => runsOf({ ...LISTS, ...wrong }), UsageError, message);
  }
});

Deno.test("shardOf() takes the flag, then Slurm's task, then Kubernetes'", () => {
  assertEquals(shardOf(undefined, {}), { index: 0, count: 1 });
  const slurm = {
    SLURM_ARRAY_TASK_ID: "5",
    SLURM_ARRAY_TASK_COUNT: "4",
    SLURM_ARRAY_TASK_MIN: "3",
  };
  const kubernetes = { JOB_COMPLETION_INDEX: "1", JOB_COMPLETIONS: "3" };
  assertEquals(shardOf(undefined, slurm), { index: 2, count: 4 });
  assertEquals(shardOf(undefined, kubernetes), { index: 1, count: 3 });
  // sbatch --array=1-9:2
  const stepped = { SLURM_ARRAY_TASK_MIN: "1", SLURM_ARRAY_TASK_STEP: "2" };
  for (const [i, id] of ["1", "3", "5", "7", "9"].entries()) {
    const task = { ...stepped, SLURM_ARRAY_TASK_ID: id, SLURM_ARRAY_TASK_COUNT: "5" };
    assertEquals(shardOf(undefined, task), { index: i, count: 5 });
  }
  assertEquals(shardOf("0/2", { ...slurm, ...kubernetes }), { index: 0, count: 2 });
  for (const wrong of ["2/2", "1", "1/2/3", "a/2", "-1/2", "0/0", "/"]) {
    assertThrows(() => shardOf(wrong, {}), UsageError, "is no share");
  }
  const alone = { JOB_COMPLETION_INDEX: "1" };
  assertThrows(() => shardOf(undefined, alone), UsageError, "JOB_COMPLETIONS");

  const runs = runsOf(LISTS);
  const shares = [0, 1, 2].map((index) => runs.filter((_, i) => i % 3 === index));
  assertEquals(new Set(shares.flat()), new Set(runs));
  assertEquals(shares.flat().length, runs.length);
});

gpuTest("fitProbe() minimizes its objective", async () => {
  const random = new Random(3, "features");
  const [width, classes, count, penalty] = [6, 3, 30, 0.05];
  const labels = Array.from({ length: count }, (_, i) => i % classes);
  const values = Float32Array.from(
    { length: count * width },
    (_, i) => random.normal() + (i % width === labels[Math.floor(i / width)] ? 2 : 0),
  );
  const features = { values, labels, width };
  const before = memory().liveBuffers;
  const fitted = await fitProbe(features, classes, { steps: 600, learningRate: 0.3, penalty });
  const [weight, bias] = [await fitted.weight.data(), await fitted.bias.data()];

  // In 64 bits: the objective at the minimum has this value, and its gradient is 0.
  const rows = labels.map((_, i) => {
    const row = Array.from(values.subarray(i * width, (i + 1) * width));
    const length = Math.hypot(...row);
    return row.map((value) => value / length);
  });
  let loss = 0;
  const gradient = new Float64Array(classes * width);
  rows.forEach((row, i) => {
    const scores = Array.from(
      { length: classes },
      (_, k) => row.reduce((sum, value, j) => sum + value * weight[k * width + j], bias[k]),
    );
    const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
    loss += (Math.log(total) - scores[labels[i]]) / count;
    for (let k = 0; k < classes; k++) {
      const g = (Math.exp(scores[k]) / total - Number(k === labels[i])) / count;
      row.forEach((value, j) => gradient[k * width + j] += g * value);
    }
  });
  weight.forEach((value, i) => {
    loss += penalty / 2 * value ** 2;
    assertAlmostEquals(gradient[i] + penalty * value, 0, 1e-4);
  });
  assertAlmostEquals(fitted.losses.at(-1)!, loss, 1e-4);
  assertAlmostEquals(fitted.losses[0], Math.log(classes), 1e-5);

  const guesses = await probePredictions(fitted, features);
  const hits = guesses.filter((guess, i) => guess === labels[i]).length;
  assertGreater(hits, 0.8 * count);
  for (const matrix of [fitted.weight, fitted.bias]) matrix.release();
  assertEquals(memory().liveBuffers, before);
});

/** Every result and adapter below a directory, by path, and the directories of incomplete runs. */
async function resultsIn(directory: string, path = ""): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const { name, isDirectory } of Deno.readDir(join(directory, path))) {
    if (isDirectory) {
      const inner = await resultsIn(directory, join(path, name));
      if (inner.size === 0) found.set(join(path, name), "nothing");
      for (const [key, value] of inner) found.set(key, value);
    } else if (/^result|safetensors$/.test(name)) {
      const bytes = await Deno.readFile(join(directory, path, name));
      found.set(join(path, name), new TextDecoder("latin1").decode(bytes));
    }
  }
  return found;
}

Deno.test("a sweep that is killed three times ends with the results of one undisturbed", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const args = ["sweep", "--data", data, "--shots", "1,2", "--seeds", "1", "--iterations", "5"]
      .concat("--methods", "zero-shot,linear-probe,lora-r2,block-lora-r4-n2", "--batch-size", "4")
      .concat("--checkpoint-every", "1");
    const undisturbed = join(directory, "undisturbed");
    const began = performance.now();
    const reference = await octograd([...args, "--output", undisturbed, "--json"]);
    const time = performance.now() - began;
    assertEquals(reference.code, 0, reference.stderr);
    const { done, skipped, runs } = JSON.parse(reference.stdout);
    assertEquals([done, skipped, runs.length], [7, 0, 7]);
    const expected = await resultsIn(undisturbed);
    assertEquals(expected.size, 7 + 4);

    const disturbed = join(directory, "disturbed");
    const first = spawn([...args, "--output", disturbed]);
    const metrics = join(disturbed, "data", "lora-r2-2shots-seed1.unfinished", "metrics.jsonl");
    let ended = false;
    first.status.then(() => ended = true);
    while (!ended && (await Deno.readTextFile(metrics).catch(() => "")).split("\n").length < 4) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    first.kill("SIGKILL");
    assertNotEquals((await outcomeOf(first)).code, 0);
    let [killed, said] = [1, ""];
    while (killed < 3) {
      const child = spawn([...args, "--output", disturbed]);
      const timer = setTimeout(() => child.kill("SIGKILL"), (0.2 + 0.3 * Math.random()) * time);
      const { code, stderr } = await outcomeOf(child);
      clearTimeout(timer);
      said += stderr;
      killed++;
      if (code === 0) break;
    }
    // Two sweeps on one output share what is left.
    const finished = await Promise.all(
      [1, 2].map(() => octograd([...args, "--output", disturbed, "--json"])),
    );
    for (const { code, stdout, stderr } of finished) {
      assertEquals(code, 0, stderr);
      const { done, skipped, left } = JSON.parse(stdout);
      assertEquals(done + skipped + left, 7);
      said += stderr;
    }
    assertMatch(said, /going on after step [1-5]\n/);
    assertEquals(await resultsIn(disturbed), expected);

    const result = JSON.parse(
      expected.get(join("data", "block-lora-r4-n2-2shots-seed1", "result.json"))!,
    );
    const { labels, predictions, images, accuracy, losses, peakBytesByOwner } = result;
    const hits = labels.filter((label: number, i: number) => label === predictions[i]).length;
    assertAlmostEquals(accuracy, 100 * hits / labels.length, 1e-9);
    assertEquals([images.length, losses.length], [labels.length, 5]);
    assert(images.every((path: string) => path.startsWith("test/")), images[0]);
    const categories: number[] = Object.values(peakBytesByOwner);
    assertEquals(categories.reduce((sum, bytes) => sum + bytes), result.peakGpuBytes);
    assertLess(result.trainableParameters, 23040);
    assert(!/"\/|file:/.test(JSON.stringify(result)), "a path of this machine");

    // Runs of the same names with other settings are refused.
    const other = await octograd([...args, "--output", disturbed, "--learning-rate", "1"]);
    assertEquals(other.code, 1);
    assertStringIncludes(other.stderr, "its learningRate is 0.005, now it would be 1");
    const shares = await Promise.all(
      ["0/2", "1/2"].map((shard) =>
        octograd([...args, "--output", disturbed, "--shard", shard, "--json"])
      ),
    );
    const counts = shares.map(({ stdout }) => JSON.parse(stdout).skipped);
    assertEquals(counts, [4, 3]);
  }));
