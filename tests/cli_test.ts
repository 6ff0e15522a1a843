import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
  assertNotEquals,
} from "@std/assert";
import { join } from "node:path";
import { copyData, copyImages, filesIn, octograd, type spawn, withDirectory } from "./cli.ts";

const SHORT = ["--iterations", "3", "--shots", "2", "--batch-size", "8"];
const ADAPTER = ["adapter_config.json", "adapter_model.safetensors"];
const RUN_FILES = [...ADAPTER, "metrics.jsonl", "report.html", "result.json", "timing.json"];

/**
 * The factor by which the embedded model multiplies cosines: its `logit_scale` is 2.755859375. A
 * merged model and a PEFT adapter know no other, so training uses it too: all find the same
 * probabilities.
 */
const LOGIT_SCALE = Math.exp(2.755859375);

/** What `--json` printed, once the exit code is known to be 0. */
async function json(
  args: readonly string[],
  options?: Parameters<typeof spawn>[1],
  // deno-lint-ignore no-explicit-any -- a document of any kind
): Promise<any> {
  const { code, stdout, stderr } = await octograd([...args, "--json"], options);
  assertEquals(code, 0, stderr);
  return JSON.parse(stdout);
}

async function readJson(path: string) {
  return JSON.parse(await Deno.readTextFile(path));
}

async function readLines(path: string) {
  const text = await Deno.readTextFile(path);
  assert(text.endsWith("\n"), "the last line is complete");
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

async function assertSameBytes(a: string, b: string, names = ADAPTER): Promise<void> {
  for (const name of names) {
    assertEquals(await Deno.readFile(join(a, name)), await Deno.readFile(join(b, name)), name);
  }
}

Deno.test("train, evaluate, classify and merge agree on what was trained", async () => {
  await withDirectory(async (directory) => {
    const here = { from: directory };
    await copyData(join(directory, "data"));
    const data = ["--data", "data"];
    const recipe = [...SHORT, "--learning-rate", "0.02", "--logit-scale", `${LOGIT_SCALE}`];
    const trained = await octograd(
      ["train", ...data, ...recipe, "--output", "out/a", "--json"],
      here,
    );
    assertEquals(trained.code, 0, trained.stderr);
    const result = JSON.parse(trained.stdout);
    const output = join(directory, "out/a");
    const { zeroShotAccuracy, accuracy, firstLoss, lastLoss, secondsPerStep, peakGpuBytes } =
      result;
    for (const correct of [zeroShotAccuracy * 12 / 100, accuracy * 12 / 100]) {
      assertAlmostEquals(correct, Math.round(correct), 1e-9);
    }
    for (const measured of [firstLoss, lastLoss, secondsPerStep, peakGpuBytes]) {
      assert(measured > 0 && Number.isFinite(measured), `${measured}`);
    }
    const { imagesPerSecond, liveGpuBytes, submitsPerStep, peakBytesByOwner, ...named } = result;
    const categories: number[] = Object.values(peakBytesByOwner);
    assertEquals(categories.reduce((total, bytes) => total + bytes), peakGpuBytes);
    assert(imagesPerSecond > 0 && liveGpuBytes > 0 && liveGpuBytes < peakGpuBytes);
    assertEquals(submitsPerStep, 1); // on a software adapter
    assertEquals(named, {
      model: "emoji-clip-tiny",
      data: "data",
      classes: 3,
      shots: 2,
      seed: 1,
      template: "a photo of a {}.",
      method: "block-lora",
      rank: 8,
      blocks: 4,
      alpha: 1,
      trainableParameters: 18 * (2 * 128 + 4 * 128 * 2),
      iterations: 3,
      zeroShotAccuracy,
      accuracy,
      firstLoss,
      lastLoss,
      secondsPerStep,
      peakGpuBytes,
      adapterPath: output,
    });
    assertMatch(trained.stderr, /zero-shot accuracy: .*\n(.*\n)*adapted accuracy: /);
    assertMatch(
      trained.stderr,
      /step 3\/3 {2}loss [\d.]+ {2}accuracy [\d.]+ % {2}\d+ images\/s {2}0 s left {2}GPU [\d.]+ MB/,
    );

    assertEquals(filesIn(output), RUN_FILES);
    const lines = await readLines(join(output, "metrics.jsonl"));
    assertEquals(lines.length, 4);
    for (const [step, line] of lines.slice(0, 3).entries()) {
      const { loss, accuracy, learningRate } = line;
      assertEquals(line.step, step);
      assert(loss > 0 && accuracy >= 0 && accuracy <= 1);
      const cosine = (1 + Math.cos(step * Math.PI / 3)) / 2;
      assertAlmostEquals(learningRate, 1e-6 + (0.02 - 1e-6) * cosine, 1e-12);
    }
    assertEquals([lines[0].loss, lines[2].loss], [firstLoss, lastLoss]);
    assertEquals(lines[3], { event: "end", ...result });

    // Every form of the adapter must classify the test images as it did after training.
    const adapter = ["--adapter", "out/a"];
    const [evaluated, merged, peft] = [
      await json(["evaluate", ...adapter, ...data], here),
      await json(["merge", ...adapter, "--output", "out/merged"], here),
      await json(["merge", ...adapter, "--output", "out/peft", "--format", "peft"], here),
    ];
    assertEquals([evaluated.accuracy, evaluated.images], [accuracy, 12]);
    assertEquals(merged.output, join(directory, "out/merged"));
    assertEquals(filesIn(peft.output), ADAPTER);
    const evaluations = await Promise.all([
      json(["evaluate", ...adapter, ...data, "--merge"], here),
      json(["evaluate", "--adapter", "out/peft", ...data], here),
      json(["evaluate", "--model", "out/merged", ...data], here),
    ]);
    for (const { classes } of evaluations) assertEquals(classes, evaluated.classes);

    const images = filesIn(join(directory, "data/test")).map((name) => `data/test/${name}`);
    const classify = (...args: string[]) => json(["classify", ...images, ...args], here);
    const classes = ["--classes", "ankle boot,bag,dress"];
    const [adapted, zeroShot, fromMerged, fromPeft] = await Promise.all([
      classify(...adapter),
      classify(...classes),
      classify(...classes, "--model", "out/merged"),
      classify(...classes, "--adapter", "out/peft"),
    ]);
    type Guess = { label: string; probability: number };
    const probabilities = ({ predictions }: { predictions: { path: string; top: Guess[] }[] }) =>
      predictions.map(({ path, top }, i) => {
        assertEquals(path, images[i]);
        const values = top.map(({ probability }) => probability);
        assertEquals(values, values.toSorted((a, b) => b - a));
        assertAlmostEquals(values.reduce((a, b) => a + b), 1, 1e-5);
        return Object.fromEntries(top.map(({ label, probability }) => [label, probability]));
      });
    const expected = probabilities(adapted);
    const largestGap = (other: typeof expected) =>
      Math.max(
        ...other.flatMap((row, i) =>
          Object.entries(row).map(([label, value]) => Math.abs(value - expected[i][label]))
        ),
      );
    assert(largestGap(probabilities(zeroShot)) > 0.1, "training changed nothing");
    assert(largestGap(probabilities(fromMerged)) < 1e-4, "merged");
    assert(largestGap(probabilities(fromPeft)) < 1e-4, "PEFT");
    const right = adapted.predictions.filter(({ path, top }: { path: string; top: Guess[] }) =>
      path.includes(`/${top[0].label.replace(" ", "-")}/`)
    );
    assertAlmostEquals(100 * right.length / 12, accuracy, 1e-9);
  });
});

Deno.test("train gives the same files for the same seed, with any number of workers", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const train = (name: string, ...args: string[]) =>
      octograd(["train", "--data", data, ...SHORT, "--output", join(directory, name), ...args]);
    const [first, again, other] = await Promise.all([
      train("first", "--workers", "1"),
      train("again", "--workers", "3", "--json"),
      train("other", "--seed", "2"),
    ]);
    for (const { code, stderr } of [first, again, other]) assertEquals(code, 0, stderr);
    await assertSameBytes(join(directory, "first"), join(directory, "again"));
    assertNotEquals(
      await Deno.readFile(join(directory, "first", ADAPTER[1])),
      await Deno.readFile(join(directory, "other", ADAPTER[1])),
    );

    const lines = first.stdout.trimEnd().split("\n");
    assertMatch(lines[0], /^zero-shot accuracy: [\d.]+ % \(\d+ of 12\)$/);
    assertMatch(lines.at(-1)!, /^adapted accuracy: [\d.]+ % \(\d+ of 12\)$/);
    assertMatch(first.stdout, /^adapter: .*GPU memory [\d.]+ MB at most, [\d.]+ MB now/m);
  });
});

Deno.test("train adapts the layers that its flags name", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const run = async (...args: string[]) => {
      const output = join(directory, args.join(""));
      const shared = ["train", "--data", data, ...SHORT, "--output", output];
      const result = await json([...shared, ...args]);
      const again = await json(["evaluate", "--data", data, "--adapter", output]);
      assertEquals(again.accuracy, result.accuracy);
      return { result, config: await readJson(join(output, ADAPTER[0])) };
    };
    const [vision, text] = await Promise.all([
      run(
        ...["--method", "lora", "--rank", "4", "--alpha", "2", "--dropout", "0"],
        ...["--encoder", "vision", "--position", "top1", "--projections", "q,fc1"],
        ...["--no-flip", "--crop-scale", "0.5,1"],
      ),
      run(
        ...["--blocks", "2", "--scaling", "linear", "--alpha", "16", "--encoder", "text"],
        ...[
          "--position",
          "0",
          "--label-smoothing",
          "0.1",
          "--max-norm",
          "1",
          "--betas",
          "0.8,0.99",
        ],
        ...["--template", "a {} of emoji", "--logit-scale", "50"],
      ),
    ]);
    assertEquals(vision.result.trainableParameters, 4 * (128 + 128) + 4 * (128 + 512));
    assertEquals(vision.config.target_modules, [
      "vision_model.encoder.layers.3.mlp.fc1",
      "vision_model.encoder.layers.3.self_attn.q_proj",
    ]);
    const { method, rank, blocks, alpha } = vision.result;
    assertEquals([method, rank, blocks, alpha], ["lora", 4, 1, 2]);
    assertEquals([vision.config.peft_type, vision.config.use_rslora], ["LORA", true]);
    assertEquals(vision.config.lora_dropout, 0);
    assertEquals(vision.config.octograd.recipe.flip, false);
    assertEquals(vision.config.octograd.recipe.cropScale, [0.5, 1]);

    assertEquals(text.result.trainableParameters, 3 * (4 * 128 + 2 * 128 * 4));
    assertEquals(text.config.target_modules.length, 3);
    assertMatch(text.config.target_modules[0], /^text_model\.encoder\.layers\.0\./);
    assertEquals([text.config.blocks, text.config.use_rslora], [2, false]);
    assertEquals(text.config.octograd.template, "a {} of emoji");
    assertEquals(text.config.octograd.logitScale, 50);
    assertEquals(text.config.octograd.recipe.betas, [0.8, 0.99]);
  });
});

Deno.test("train draws a split of CLASS/*, saves it, and reads it and CoOp's again", async () => {
  await withDirectory(async (directory) => {
    const data = join(directory, "data");
    await copyImages("train", 5, data);
    await copyImages("test", 5, data);
    const output = join(directory, "out");
    const drawn = await json(["train", "--data", data, ...SHORT, "--output", output]);
    const file = join(output, "split.json");
    const split = await readJson(file);
    assertEquals([split.train.length, split.test.length], [21, 9]);
    const paths = [...split.train, ...split.test].map(([path]) => path).sort();
    assertEquals(paths, filesIn(data));

    const again = join(directory, "again");
    const reused = await json(
      ["train", "--data", data, "--split", file, ...SHORT, "--output", again],
    );
    assertEquals(reused.accuracy, drawn.accuracy);
    await assertSameBytes(output, again, [ADAPTER[1]]);
    assertEquals(filesIn(again), RUN_FILES);

    // A data set as CoOp has it: images in a folder, and beside it a split that names the classes.
    const coop = join(directory, "coop");
    await copyImages("train", 5, join(coop, "images"));
    const names = ["boot", "bag", "gown"];
    const entries = filesIn(join(coop, "images")).map((path, i) =>
      [path, Math.floor(i / 5), names[Math.floor(i / 5)]] as const
    );
    const range = (from: number, to: number) =>
      entries.filter((_, i) => i % 5 >= from && i % 5 < to);
    await Deno.writeTextFile(
      join(coop, "split_zhou_Clothes.json"),
      JSON.stringify({ train: range(0, 2), val: range(2, 3), test: range(3, 5) }),
    );
    const third = join(directory, "third");
    await json(["train", "--data", coop, ...SHORT, "--output", third]);
    assertEquals((await readJson(join(third, ADAPTER[0]))).octograd.classes, names);
    assertEquals(filesIn(third), RUN_FILES);
    const evaluated = await json(["evaluate", "--data", coop, "--adapter", third]);
    assertEquals(evaluated.images, 6);
  });
});

Deno.test("an invalid command line exits with code 2, and --help prints help", async () => {
  const refused: [string[], RegExp][] = [
    [[], /^Usage: octograd train\|evaluate\|classify\|merge/],
    [["trian"], /^Usage: octograd train/],
    [["constructor"], /^Usage: octograd train/],
    [["train", "--itertions", "3"], /unknown flag, did you mean --iterations\?/],
    [["train", "--iter=3"], /--iter=3: unknown flag, did you mean --iterations\?/],
    [["evaluate", "--shots", "3"], /^octograd evaluate: Cannot understand --shots: unknown flag/],
    [["train", "-x"], /Cannot understand -x: unknown flag, see --help/],
    [["train", "data"], /Cannot understand "data": it belongs to no flag/],
    [["train", "--rank", "2.5"], /--rank: "2.5" is not an integer from 1/],
    [["train", "--rank", "1e9"], /--rank: "1e9" is not an integer from 1 to 4096/],
    [["train", "--alpha", "1e39"], /--alpha: "1e39" is beyond what a float32 holds/],
    [
      ["train", "--weight-decay", "1e-46"],
      /--weight-decay: "1e-46" is beyond what a float32 holds/,
    ],
    [["train", "--rank", "many"], /--rank: "many" is not an integer/],
    [["train", "--dropout", "1"], /--dropout: "1" is not a number from 0 to 0.999/],
    [["train", "--learning-rate", "Infinity"], /--learning-rate: "Infinity" is not a number/],
    [["train", "--shots", "0"], /--shots: "0" is not an integer from 1/],
    [["train", "--seed=-1"], /--seed: "-1" is not an integer from 0 to 4294967295/],
    [["train", "--checkpoint-every", "soon"], /--checkpoint-every: "soon" is no interval, write/],
    [["train", "--resume", "a", "--output", "b"], /Cannot use --output with --resume/],
    [["train", "--betas", "0.9"], /--betas: "0.9" is not two numbers/],
    [["train", "--crop-scale", "1,0.5"], /--crop-scale: 1 is more than 0.5/],
    [
      ["train", "--method", "adalora"],
      /--method: "adalora" is not one of block-lora, block-lora-collapsed, dora, lora, lora-dense/,
    ],
    [["train", "--method", "lora", "--blocks", "4"], /--blocks with lora: its flags are --rank/],
    [["train", "--data"], /--data: it needs a value, DIR/],
    [["train", "--output", "--json"], /--output: it needs a value, DIR/],
    [["classify"], /Cannot classify nothing: name at least one image/],
    [["classify", "x.png"], /Cannot classify without classes: give --adapter or --classes/],
    [["merge", "--adapter", "x"], /Cannot merge: give --adapter and --output/],
  ];
  for (const [args, pattern] of refused) {
    const { code, stdout, stderr } = await octograd(args);
    assertEquals([code, stdout], [2, ""], args.join(" "));
    assertMatch(stderr, pattern);
    assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
  }
  for (const name of ["train", "evaluate", "classify", "merge"]) {
    const { code, stdout, stderr } = await octograd([name, "--help", "--whatever"]);
    assertEquals([code, stderr], [0, ""]);
    assertMatch(stdout, new RegExp(`^Usage: octograd ${name} .*\n\n[^]*--json .*\n +--help `));
  }
  const { code, stdout } = await octograd(["--help"]);
  assertEquals([code, stdout.split(" ")[0]], [0, "Usage:"]);
});
