/** Every flag of `train`, from the command line, at the point where it acts. */

import { assert, assertEquals, assertLess, assertMatch, assertNotEquals } from "@std/assert";
import { join } from "node:path";
import { FLAGS } from "../blocklora/commands/train.ts";
import { METHODS } from "../blocklora/methods/lookup.ts";
import { kebab } from "../blocklora/system/flags.ts";
import {
  copyImages,
  copyModel,
  existsSync,
  filesIn,
  FOLDERS,
  inOneProcess,
  type Outcome,
  withDirectory,
} from "./cli.ts";

/** What came of a run, and what it wrote. */
interface Run extends Outcome {
  readonly output: string;
  // deno-lint-ignore no-explicit-any -- documents of any kind
  readonly result: any;
  // deno-lint-ignore no-explicit-any
  readonly config: any;
  readonly adapter: string;
}

const json = async (...path: string[]) => JSON.parse(await Deno.readTextFile(join(...path)));

Deno.test("every flag of train acts", () =>
  withDirectory(async (directory) => {
    const data = join(directory, "data");
    await copyImages("train", 2, join(data, "train"));
    await copyImages("test", 2, join(data, "test"));
    const model = await copyModel(join(directory, "model"));
    const tokenizer = join(directory, "tokenizer");
    await Deno.mkdir(tokenizer);
    for (const name of ["vocab.json", "merges.txt", "tokenizer_config.json"]) {
      await Deno.rename(join(model, name), join(tokenizer, name));
    }
    const spoilt = join(directory, "spoilt");
    await copyImages("train", 2, join(spoilt, "train"));
    await copyImages("test", 2, join(spoilt, "test"));
    const [spoiltName] = filesIn(join(spoilt, "test", FOLDERS[0]));
    await Deno.writeTextFile(join(spoilt, "test", FOLDERS[0], spoiltName), "no image");
    const split = join(directory, "split.json");
    const listed = (side: string, names: readonly string[]) =>
      FOLDERS.flatMap((folder, label) =>
        filesIn(join(data, side, folder)).slice(0, 2)
          .map((name) => [`${side}/${folder}/${name}`, label, names[label]])
      );
    const names = ["boot", "bag", "gown"];
    await Deno.writeTextFile(
      split,
      JSON.stringify({ train: listed("train", names), val: [], test: listed("test", names) }),
    );

    const common = ["train", "--shots", "2", "--batch-size", "4", "--iterations", "2"];
    let base: Run;
    const changes = ({ adapter }: Run) => assertNotEquals(adapter, base.adapter);
    const setting = (name: string, value: unknown) => (run: Run) => {
      assertEquals(run.result.settings[name], value);
      changes(run);
    };
    const saves = (name: string, value: unknown) => (run: Run) => {
      assertEquals(run.result.settings[name], value);
      assertLess(run.result.peakGpuBytes, base.result.peakGpuBytes);
    };
    const says = (pattern: RegExp, code = 1) => (run: Run) => {
      assertEquals(run.code, code, run.stderr);
      assertMatch(run.stderr, pattern);
    };
    const limited = (run: Run) => {
      says(/memory limit [\d.]+ MB: /, 0)(run);
      assert(run.result.peakGpuBytes <= 1e6 * parseFloat(/limit ([\d.]+)/.exec(run.stderr)![1]));
      assertLess(run.result.peakGpuBytes, base.result.peakGpuBytes);
    };
    const rows: [flags: string[], check: (run: Run) => unknown][] = [
      [[], (run) => {
        base = run;
        assertEquals(run.code, 0, run.stderr);
      }],
      [["--data", spoilt, "--on-error", "skip"], says(/skipped .*spoilt/, 0)],
      [["--data", spoilt], says(/Cannot decode .*spoilt/)],
      [["--model", model, "--tokenizer", tokenizer], (run) => {
        assertEquals([run.code, run.config.base_model_name_or_path], [0, model], run.stderr);
      }],
      [["--model", model], says(/Cannot .*tokenizer/)],
      [["--model", "nobody/none", "--offline", "--revision", "v9"], says(/Cannot .*nobody\/none/)],
      [["--precision", "f32"], (run) => assertEquals(run.result.settings.precision, "f32")],
      [["--split", split], (run) => assertEquals(run.result.classes, names)],
      [["--shots", "1"], (run) => assertEquals(run.result.shots, 1)],
      [["--seed", "2"], changes],
      [["--template", "{} it is"], setting("template", "{} it is")],
      [["--method", "lora"], (run) => assertEquals(run.config.peft_type, "LORA")],
      [["--rank", "4"], (run) => assertEquals(run.config.r, 4)],
      [["--blocks", "2"], (run) => assertEquals(run.config.blocks, 2)],
      [["--alpha", "2"], setting("alpha", 2)],
      [["--scaling", "linear"], setting("scaling", "linear")],
      [["--dropout", "0.5"], setting("dropout", 0.5)],
      [
        ["--method", "vera", "--rank", "4", "--initial", "0.2"],
        (run) => assertEquals([run.config.peft_type, run.config.d_initial], ["VERA", 0.2]),
      ],
      [["--encoder", "text"], (run) => {
        assertMatch(run.config.target_modules.join(), /^text_model/);
      }],
      [["--position", "top1"], changes],
      [["--projections", "fc1"], (run) => assertEquals(run.config.target_modules, ["fc1"])],
      [["--iterations", "1"], (run) => assertEquals(run.result.iterations, 1)],
      [["--learning-rate", "0.1"], setting("learningRate", 0.1)],
      [["--minimum-rate", "0.001"], setting("minimumRate", 0.001)],
      [["--weight-decay", "0.9"], setting("weightDecay", 0.9)],
      [["--betas", "0.5,0.9"], setting("betas", [0.5, 0.9])],
      [["--logit-scale", "20"], setting("logitScale", 20)],
      [["--label-smoothing", "0.3"], setting("labelSmoothing", 0.3)],
      [["--max-norm", "0.001"], setting("maxNorm", 0.001)],
      [["--crop-scale", "0.2,0.3"], setting("cropScale", [0.2, 0.3])],
      [["--no-flip"], setting("flip", false)],
      [["--batch-size", "3"], setting("batchSize", 3)],
      [["--recompute", "on"], saves("recompute", true)],
      [["--text-chunk", "1"], saves("textChunk", 1)],
      [["--micro-batch", "1"], saves("microBatch", 1)],
      ...["5.9MB", "5.2MB", "4.9MB", "4.5MB", "4MB"].map((limit): typeof rows[0] => [
        ["--memory-limit", limit],
        limited,
      ]),
      [
        ["--memory-limit", "1MB"],
        says(/Cannot take a step in 1.0 MB: the least that any way needs/),
      ],
      [["--workers", "2"], (run) => assertEquals(run.adapter, base.adapter)],
      [["--checkpoint-every", "1", "--learning-rate", "1e20", "--iterations", "3"], (run) => {
        says(/is saved/)(run);
        assert(existsSync(join(`${run.output}.unfinished`, "checkpoint.safetensors")));
      }],
      [["--profile"], says(/share/, 0)],
      [["--json"], (run) => assertEquals(JSON.parse(run.stdout).iterations, 2)],
      [["--help"], (run) => assertMatch(run.stdout, /^Usage: octograd train/)],
    ];
    // Of their own tests: those that name a directory.
    const elsewhere = ["output", "overwrite", "resume"];
    const tried = new Set(rows.flatMap(([flags]) => flags));
    const all = [...Object.keys(FLAGS), ...METHODS.flatMap(({ flags }) => Object.keys(flags))];
    assertEquals(
      all.filter((name) =>
        !tried.has(`--${kebab(name)}`) && !tried.has(`--no-${kebab(name)}`) &&
        !elsewhere.includes(name)
      ),
      ["data"].filter(() => !tried.has("--data")),
    );
    const commands = rows.map(([flags], i) => [
      ...[...common, "--data", data, "--output", join(directory, "runs", `${i}`)],
      ...flags,
    ]);
    const halves = [0, 1].map((half) => commands.filter((_, i) => i % 2 === half));
    const outcomes = await Promise.all(
      halves.map((half) => inOneProcess(half, { HF_HOME: directory })),
    );
    for (const [i, [flags, check]] of rows.entries()) {
      const output = join(directory, "runs", `${i}`);
      const outcome = outcomes[i % 2][Math.floor(i / 2)];
      const written = existsSync(join(output, "result.json"));
      try {
        check({
          ...outcome,
          output,
          result: written ? await json(output, "result.json") : null,
          config: written ? await json(output, "adapter_config.json") : null,
          adapter: written
            ? (await Deno.readFile(join(output, "adapter_model.safetensors"))).toBase64()
            : "",
        });
      } catch (error) {
        throw new Error(`${flags.join(" ")}: ${(error as Error).message}\n${outcome.stderr}`);
      }
    }
  }));
