/** The directories of runs: what may be written where, and what a killed process leaves there. */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import { checkOutput, claimRun, TakenError } from "../blocklora/training/run_directory.ts";
import {
  copyData,
  copyImages,
  existsSync,
  filesIn,
  FOLDERS,
  inOneProcess,
  octograd,
  outcomeOf,
  spawn,
  withDirectory,
} from "./cli.ts";

const write = async (directory: string, names: readonly string[], content: string) => {
  await Deno.mkdir(directory, { recursive: true });
  for (const name of names) await Deno.writeTextFile(join(directory, name), content);
};

const FRESH = ["adapter_config.json", "adapter_model.safetensors", "result.json"];

Deno.test("claimRun() gives a place to one at a time, and leaves nothing of what is not begun", () =>
  withDirectory(async (directory) => {
    const out = join(directory, "deep", "out");
    {
      await using claim = await claimRun(out, 1000);
      assertEquals(await claimRun(out, 1000), null);
      await write(claim!.path, ["adapter_config.json", ".result.json.1234.tmp"], "half");
    }
    assertEquals(Array.from(Deno.readDirSync(directory)), []);
    {
      await using claim = await claimRun(out, 1000);
      await write(claim!.path, ["checkpoint.safetensors"], "1");
    }
    await write(`${out}.unfinished`, [".checkpoint.safetensors.1234.tmp"], "half");
    {
      await using claim = await claimRun(out, 1000);
      assertEquals(filesIn(claim!.path), ["checkpoint.safetensors", "metrics.jsonl"]);
      await write(claim!.path, FRESH, "new");
      await claim!.metrics.write(new TextEncoder().encode("new"));
      await claim!.publish();
    }
    assertEquals(
      filesIn(directory),
      [...FRESH, "metrics.jsonl"].sort().map((n) => `deep/out/${n}`),
    );
  }));

Deno.test("a run replaces another whole, and keeps the files that are no run's", () =>
  withDirectory(async (directory) => {
    const out = join(directory, "out");
    await write(out, [...FRESH, "split.json"], "old");
    await write(join(out, "mine"), ["notes.txt"], "mine");
    await assertRejects(
      () => checkOutput(out, false),
      TakenError,
      "holds a run, replace that with",
    );
    await checkOutput(out, true);
    // By a link to it, which stays.
    const link = join(directory, "link");
    await Deno.symlink(out, link);
    {
      await using claim = await claimRun(link, 1000);
      await write(claim!.path, FRESH, "new");
      await claim!.publish();
    }
    assertEquals(filesIn(directory), [
      "link",
      ...[...FRESH, "mine/notes.txt"].sort().map((name) => `out/${name}`),
    ]);
    for (const name of FRESH) assertEquals(await Deno.readTextFile(join(link, name)), "new");

    // A process that was killed before it moved the new run, or before it removed the old one.
    const aside = join(directory, ".out.replaced");
    for (const moved of [false, true]) {
      await Deno.rename(out, aside);
      await write(moved ? out : `${out}.unfinished`, FRESH, "newer");
      await (await claimRun(out, 1000))![Symbol.asyncDispose]();
      assertEquals(filesIn(out), [...FRESH, "mine/notes.txt"].sort());
      assertEquals(await Deno.readTextFile(join(out, "result.json")), "newer");
    }
    // If the new one is gone, the old one comes back.
    await Deno.rename(out, aside);
    await (await claimRun(out, 1000))![Symbol.asyncDispose]();
    assertEquals(await Deno.readTextFile(join(out, "result.json")), "newer");
    assertEquals(Array.from(Deno.readDirSync(directory), ({ name }) => name).sort(), [
      "link",
      "out",
    ]);

    await Deno.writeTextFile(join(directory, "file"), "");
    await assertRejects(() => checkOutput(join(directory, "file"), true), TakenError, "is not a");
    await Deno.symlink(join(directory, "none"), join(directory, "lost"));
    await assertRejects(() => checkOutput(join(directory, "lost"), true), TakenError, "is a link");
    // Where something got in the way meanwhile, the finished run stays beside it.
    {
      await using claim = await claimRun(join(directory, "file"), 1000);
      await write(claim!.path, FRESH, "finished");
      await assertRejects(() => claim!.publish(), Error, "Cannot move");
    }
    assert(filesIn(`${join(directory, "file")}.unfinished`).includes("result.json"));
    await write(join(directory, "other"), ["a.txt"], "");
    await assertRejects(() => checkOutput(join(directory, "other"), true), TakenError, "a.txt and");
    await write(join(directory, "begun"), ["metrics.jsonl"], "of version 0.1, killed");
    await checkOutput(join(directory, "begun"), false);
  }));

Deno.test("a directory has one run at a time, and a finished one is not replaced in silence", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const short = ["train", "--data", data, "--shots", "1", "--batch-size", "4", "--json"];
    const endless = [...short, "--iterations", "100000", "--checkpoint-every", "2"];
    const out = join(directory, "out");
    const running = spawn([...endless, "--output", out]);
    while (!existsSync(join(`${out}.unfinished`, "checkpoint.safetensors"))) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const two = [...short, "--iterations", "2"];
    const [busy] = await inOneProcess([[...two, "--output", out]]);
    assertEquals(busy.code, 1);
    assertMatch(busy.stderr, /it is being written to by another process, wait for that, or name/);
    running.kill("SIGKILL");
    await outcomeOf(running);

    // The lock has gone with the process. The run goes on by its own command alone.
    const other = ["--learning-rate", "0.001"];
    const outcomes = await inOneProcess([
      [...two, "--output", out],
      [...two, "--output", out, "--overwrite"],
      [...two, "--output", out],
      [...two, ...other, "--output", out, "--overwrite"],
    ]);
    assertEquals(outcomes.map(({ code }) => code), [1, 0, 1, 0]);
    assertMatch(
      outcomes[0].stderr,
      /holds an unfinished run \(its iterations is 100000, now it would be 2\), go on with that/,
    );
    assertMatch(outcomes[1].stderr, /is another \(its iterations .*\): begun anew/);
    assertMatch(outcomes[2].stderr, /it holds a run, replace that with --overwrite, or name/);
    const result = JSON.parse(await Deno.readTextFile(join(out, "result.json")));
    assertEquals([result.settings.learningRate, result.iterations], [0.001, 2]);
    assert(!existsSync(`${out}.unfinished`));

    // Without --output, another run gets another directory.
    const runs = join(directory, "here");
    await Deno.mkdir(runs);
    const paths: string[] = [];
    for (const more of [[], other, []]) {
      const { code, stdout, stderr } = await octograd([...two, ...more], { from: runs });
      assertEquals(code, 0, stderr);
      paths.push(JSON.parse(stdout).adapterPath);
      if (paths.length > 1) assertMatch(stderr, /holds a run: this run goes to .*-[23]\n/);
    }
    assertEquals(paths, [paths[0], `${paths[0]}-2`, `${paths[0]}-3`]);
  }));

Deno.test("train tells images that are in both sides, and classes that have none left", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const [first] = filesIn(join(data, "train", FOLDERS[1]));
    const twin = join(data, "test", FOLDERS[2], "twin.png");
    await Deno.copyFile(join(data, "train", FOLDERS[1], first), twin);
    const spoilt = join(directory, "spoilt");
    await copyImages("train", 4, join(spoilt, "train"));
    await copyImages("test", 4, join(spoilt, "test"));
    for (const name of filesIn(join(spoilt, "train", FOLDERS[1]))) {
      await Deno.writeTextFile(join(spoilt, "train", FOLDERS[1], name), "no image");
    }
    const untested = await copyData(join(directory, "untested"));
    for (const name of filesIn(join(untested, "test", FOLDERS[0]))) {
      await Deno.writeTextFile(join(untested, "test", FOLDERS[0], name), "no image");
    }
    const short = ["train", "--shots", "4", "--batch-size", "4", "--iterations", "1", "--data"];
    const skips = ["--on-error", "skip", "--output"];
    const [told, trained, tested, diverged, later] = await inOneProcess([
      [...short, data, "--output", join(directory, "a")],
      [...short, spoilt, ...skips, join(directory, "b")],
      [...short, untested, ...skips, join(directory, "c")],
      [
        ...[...short, data, "--output", join(directory, "d"), "--iterations", "3"],
        ...["--learning-rate", "1e38", "--checkpoint-every", "1"],
      ],
      [
        ...[...short, data, "--output", join(directory, "e"), "--iterations", "3"],
        ...["--learning-rate", "1e20", "--checkpoint-every", "1"],
      ],
    ]);
    assertEquals(told.code, 0, told.stderr);
    assertMatch(
      told.stderr,
      /1 test images are byte for byte equal .* such as .*twin.png: the acc/,
    );
    assertMatch(
      trained.stderr,
      /Cannot use class "bag": not one of its images can be read, such as/,
    );
    assertMatch(tested.stderr, /Cannot use class "ankle boot": not one of its images can be read/);
    assertMatch(diverged.stderr, /after step 0, at a learning rate of 1e\+38; try a lower --learn/);
    assertMatch(later.stderr, /the loss of step 1 is NaN, at a learning rate of 7\d+; try a/);
    assertMatch(later.stderr, /what was trained in 1 steps is saved/);
    assertEquals(filesIn(join(directory, "e.unfinished")), [
      "checkpoint.safetensors",
      "metrics.jsonl",
    ]);
    assertEquals([trained, tested, diverged, later].map(({ code }) => code), [1, 1, 1, 1]);
    for (const name of ["b", "c", "d"]) {
      assert(!existsSync(join(directory, name)));
      assert(!existsSync(join(directory, `${name}.unfinished`)));
    }
  }));
