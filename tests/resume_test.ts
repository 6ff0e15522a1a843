/** Runs that are stopped in every way, and go on: nothing is lost, and the bytes are the same. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import {
  copyData,
  existsSync,
  filesIn,
  inOneProcess,
  mounted,
  octograd,
  type Outcome,
  outcomeOf,
  spawn,
  withDirectory,
} from "./cli.ts";

const SHORT = ["--shots", "2", "--batch-size", "4", "--checkpoint-every", "1"];
const FINISHED = [
  "adapter_config.json",
  "adapter_model.safetensors",
  "metrics.jsonl",
  "report.html",
  "result.json",
  "timing.json",
];

/** The files of a run whose bytes must be equal, and what must be in its metrics. */
async function contentsOf(directory: string): Promise<Record<string, unknown>> {
  assertEquals(filesIn(directory), FINISHED);
  const same = FINISHED.filter((name) => !["metrics.jsonl", "timing.json"].includes(name));
  const lines = (await Deno.readTextFile(join(directory, "metrics.jsonl"))).trimEnd().split("\n")
    .map((line) => JSON.parse(line));
  const steps = lines.slice(0, -1)
    .map(({ imagesPerSecond: _, ...line }) => line);
  assertEquals(lines.at(-1).event, "end");
  const files = same.map(async (name) => [name, await Deno.readFile(join(directory, name))]);
  return { ...Object.fromEntries(await Promise.all(files)), steps };
}

function assertDone({ code, stderr }: Outcome): void {
  assertEquals(code, 0, stderr);
}

/** Waits until a run has taken some steps, which fails if it ends before. */
async function stepsTaken(output: string, steps: number, child: Deno.ChildProcess): Promise<void> {
  const metrics = join(`${output}.unfinished`, "metrics.jsonl");
  let ended = false;
  child.status.then(() => ended = true);
  while (!ended) {
    const text = await Deno.readTextFile(metrics).catch(() => "");
    if (text.split("\n").length > steps) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert(!ended, (await outcomeOf(child)).stderr);
}

Deno.test("a run that is killed ten times ends in the bytes of one undisturbed", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const [undisturbed, output] = [join(directory, "a"), join(directory, "b")];
    const args = ["train", "--data", data, "--iterations", "40", ...SHORT];
    const began = performance.now();
    assertDone(await octograd([...args, "--output", undisturbed]));
    const time = performance.now() - began;
    for (let killed = 0; killed < 10;) {
      const again = killed % 2 &&
        existsSync(join(`${output}.unfinished`, "checkpoint.safetensors"));
      const child = spawn(
        again ? ["train", "--resume", output] : [...args, "--output", output],
        { from: again ? "/" : directory },
      );
      const timer = setTimeout(() => child.kill("SIGKILL"), (0.1 + 0.35 * Math.random()) * time);
      const { code } = await outcomeOf(child);
      clearTimeout(timer);
      if (code !== 0) {
        killed++;
        continue;
      }
      // It was finished before the kill. It is compared, and the next run is killed too.
      assertEquals(await contentsOf(output), await contentsOf(undisturbed));
      await Deno.remove(output, { recursive: true });
    }
    assertDone(await octograd([...args, "--output", output, "--workers", "1"]));
    assertEquals(await contentsOf(output), await contentsOf(undisturbed));
    assertEquals(Array.from(Deno.readDirSync(directory), ({ name }) => name).sort(), [
      "a",
      "b",
      "data",
    ]);
  }));

Deno.test("a run that is killed at any write ends in the bytes of one undisturbed", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const args = ["train", "--data", data, "--iterations", "2", ...SHORT, "--overwrite"];
    // A run replaces another, so that this is seen too.
    const from = join(directory, "old");
    const output = join(from, "out");
    const older = [...args, "--seed", "2", "--output", output];
    const [old] = await inOneProcess([older]);
    assertDone(old);
    await Deno.writeTextFile(join(output, "notes.txt"), "mine");
    const before = await Deno.readFile(join(output, "result.json"));
    const snapshots = join(directory, "snapshots");
    const [first] = await inOneProcess([[...args, "--output", output]], { SNAPSHOTS: snapshots });
    assertDone(first);
    await Deno.remove(join(output, "notes.txt"));
    const expected = await contentsOf(output);

    // Of the states without a checkpoint, where all begins anew, one is enough.
    const states = new Map<string, string>();
    for (const name of Array.from(Deno.readDirSync(snapshots), ({ name }) => name).sort()) {
      const path = join(snapshots, name);
      const files = filesIn(path);
      const resumes = files.some((file) => /checkpoint|replaced/.test(file)) ||
        files.includes("out.unfinished/result.json");
      // Half-written files and the metrics are not read again.
      const sizes = files.filter((file) => !/\.tmp$|metrics\.jsonl$/.test(file))
        .map((file) => [file, Deno.statSync(join(path, file)).size]);
      states.set(resumes ? JSON.stringify(sizes) : "anew", path);
      // No state mixes two runs: the complete old one is there, or the new one, or none.
      const result = await Deno.readFile(join(path, "out", "result.json")).catch(() => null);
      if (!result) continue;
      const isOld = result.length === before.length &&
        result.every((byte, i) => byte === before[i]);
      assertEquals(result, isOld ? before : expected["result.json"]);
      if (!isOld) {
        const adapter = await Deno.readFile(join(path, "out", "adapter_model.safetensors"));
        assertEquals(adapter, expected["adapter_model.safetensors"]);
      }
    }
    assert(states.size > 8, [...states.keys()].join("\n"));
    const paths = [...states.values()];
    const outcomes = await inOneProcess(
      paths.map((path) => [...args, "--output", join(path, "out")]),
    );
    for (const [i, path] of paths.entries()) {
      assertDone(outcomes[i]);
      const run = join(path, "out");
      assertEquals(await Deno.readTextFile(join(run, "notes.txt")), "mine");
      await Deno.remove(join(run, "notes.txt"));
      assertEquals(await contentsOf(run), expected, path);
      assertEquals(Array.from(Deno.readDirSync(path), ({ name }) => name), ["out"]);
    }
  }));

Deno.test("SIGINT, SIGTERM and SIGHUP save what is trained, however many arrive at once", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const codes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
    for (const [signal, expected] of Object.entries(codes)) {
      const output = join(directory, signal);
      const unfinished = `${output}.unfinished`;
      const child = spawn(
        ["train", "--data", data, "--shots", "2", "--batch-size", "4", "--iterations", "100000"]
          .concat("--output", output, "--json"),
      );
      await stepsTaken(output, 3, child);
      // A terminal that is closed takes no more of what is printed.
      const closed = signal === "SIGHUP";
      if (closed) await Promise.all([child.stdout.cancel(), child.stderr.cancel()]);
      for (let i = 0; i < 3; i++) child.kill(signal as keyof typeof codes);
      if (closed) assertEquals((await child.status).code, expected);
      else {
        const { code, stdout, stderr } = await outcomeOf(child);
        assertEquals(code, expected, stderr);
        const { interrupted, iterations, accuracy, adapterPath } = JSON.parse(stdout);
        assertEquals([interrupted, accuracy, adapterPath], [true, undefined, unfinished]);
        assertStringIncludes(stderr, `what was trained in ${iterations} steps is saved`);
        const config = await Deno.readTextFile(join(unfinished, "adapter_config.json"));
        assertEquals(JSON.parse(config).octograd.iterations, iterations);
      }
      assertEquals(filesIn(directory).filter((name) => name.startsWith(signal)), [
        `${signal}.unfinished/adapter_config.json`,
        `${signal}.unfinished/adapter_model.safetensors`,
        `${signal}.unfinished/checkpoint.safetensors`,
        `${signal}.unfinished/metrics.jsonl`,
      ]);
    }
    const [evaluated] = await inOneProcess([
      ["evaluate", "--data", data, "--adapter", join(directory, "SIGINT.unfinished"), "--json"],
    ]);
    assertEquals(JSON.parse(evaluated.stdout).images, 12);
  }));

Deno.test("only a signal that comes later is a second one", async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "tests/interrupt_child.ts"],
    cwd: new URL("../", import.meta.url),
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream())
    .pipeThrough(new TransformStream()).getReader();
  const next = async () => (await lines.read()).value?.trim();
  assertEquals(await next(), "ready");
  child.kill("SIGINT");
  assertEquals(await next(), "first, and the thread is blocked");
  for (let i = 0; i < 3; i++) child.kill("SIGINT");
  assertEquals(await next(), "still here");
  const timer = setInterval(() => child.kill("SIGTERM"), 500);
  const { code } = await child.status;
  clearInterval(timer);
  assertEquals(code, 143);
  await lines.cancel();
  await child.stderr.cancel();
});

Deno.test("a disk that becomes full ends a run, which goes on when there is room", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const disk = join(directory, "disk");
    using mount = await mounted(disk, "size=3m");
    if (!mount) return console.log("not tested: a full file system, as mounting one needs root");
    const output = join(disk, "out");
    const args = ["train", "--data", data, "--iterations", "15", ...SHORT];
    const child = spawn([...args, "--output", output]);
    await stepsTaken(output, 4, child);
    const filler = join(disk, "filler");
    await Deno.writeFile(filler, new Uint8Array(3 << 20)).catch(() => {});
    const { code, stderr } = await outcomeOf(child);
    assertEquals(code, 1);
    assertMatch(
      stderr,
      /what was trained in \d+ steps is saved: .*\n.*: no space left on device\n$/,
    );
    await Deno.remove(filler);
    const undisturbed = join(directory, "undisturbed");
    const outcomes = await inOneProcess([
      ["train", "--resume", output],
      [...args, "--output", undisturbed],
    ]);
    outcomes.forEach(assertDone);
    assertEquals(await contentsOf(output), await contentsOf(undisturbed));
  }));

Deno.test("a run whose directory vanishes is saved; a lost device is found again", () =>
  withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const args = ["train", "--data", data, "--iterations", "30", ...SHORT];
    const [output, lost] = [join(directory, "out"), join(directory, "lost")];
    const unfinished = `${output}.unfinished`;
    const child = spawn([...args, "--output", output]);
    await stepsTaken(output, 3, child);
    await Deno.remove(unfinished, { recursive: true });
    const { code, stderr } = await outcomeOf(child);
    assertEquals(code, 1);
    assertMatch(stderr, /what was trained in \d+ steps is saved: .* --resume .*\n.*\n$/);
    assertMatch(stderr, /Cannot write to .*out.unfinished: the directory has been removed or/);
    assertEquals(filesIn(unfinished), ["checkpoint.safetensors"]);

    const [regained] = await inOneProcess([[...args, "--output", lost]], { LOSE_AFTER: "5" });
    assertDone(regained);
    assertMatch(regained.stderr, /the GPU device is lost .*: looking for a device again, once/);
    assertMatch(regained.stderr, /going on after step \d+/);
    const [resumed] = await inOneProcess([["train", "--resume", unfinished]]);
    assertDone(resumed);
    assertEquals(await contentsOf(output), await contentsOf(lost));
  }));
