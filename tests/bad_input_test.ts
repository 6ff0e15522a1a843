import encodeJpeg from "@jsquash/jpeg/encode.js";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import {
  copyData,
  copyImages,
  copyModel,
  existsSync,
  filesIn,
  mounted,
  octograd,
  type Outcome,
  withDirectory,
} from "./cli.ts";
import { withHeaderLength, withOtherProjection, withOverlap } from "./damaged_files.ts";

const SHORT = ["--iterations", "2", "--shots", "4", "--batch-size", "8"];

/**
 * Asserts that a command failed with one line that says why, the last on stderr, and without a
 * stack trace.
 */
function assertRefused({ code, stdout, stderr }: Outcome, reason: RegExp, expected = 1): void {
  assertEquals(code, expected, stderr);
  assertEquals(stdout, "");
  const lines = stderr.trimEnd().split("\n");
  assertMatch(lines.at(-1)!, /^octograd (train|evaluate|classify|merge): Cannot [^.].*[^.]$/);
  assertMatch(lines.at(-1)!, reason);
  assert(!/^ {4}at |Uncaught|\(os error/m.test(stderr), stderr);
  assertEquals(lines.filter((line) => line.startsWith("octograd")).length, 1, stderr);
}

/** Asserts that `train` refuses its arguments and makes no directory. */
async function assertUntrained(
  directory: string,
  args: readonly string[],
  reason: RegExp,
): Promise<void> {
  const output = join(directory, "runs", "out");
  // With --json, stdout must stay empty even if the zero-shot accuracy was computed first.
  const outcome = await octograd(["train", "--json", ...SHORT, "--output", output, ...args]);
  assertRefused(outcome, reason);
  assert(!existsSync(join(directory, "runs")), `${args.join(" ")} left files behind`);
}

Deno.test("train needs a GPU", async () => {
  await withDirectory(async (directory) => {
    const output = join(directory, "out");
    const none = "/nonexistent";
    const env = {
      DENO_WEBGPU_BACKEND: "vulkan",
      VK_DRIVER_FILES: none,
      VK_ICD_FILENAMES: none,
    };
    const data = await copyData(join(directory, "data"));
    const outcome = await octograd(
      ["train", "--data", data, ...SHORT, "--output", output],
      { env },
    );
    assertRefused(outcome, /adapter.*(install|driver)/i, 3);
    assert(!existsSync(output));
  });
});

Deno.test("train refuses directories that hold no data set", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const refused = (reason: RegExp, ...args: string[]) =>
      assertUntrained(directory, ["--data", data, ...args], reason);
    await refused(/missing: no such file or directory, name a/, "--data", `${directory}/missing`);
    await refused(
      /classnames.json|not a directory/i,
      "--data",
      join(data, "train/bag", filesIn(join(data, "train/bag"))[0]),
    );
    await refused(/class "ankle boot": it has 4 training images, add some or/, "--shots", "5");
    await refused(/there is no file|no such file/, "--split", `${directory}/none.json`);

    await Deno.mkdir(join(data, "train/empty"));
    await refused(/class "empty": .* has no images .*, add some or remove it$/);
    await Deno.remove(join(data, "train/empty"));

    for (const side of ["train", "test"]) {
      for (const folder of ["bag", "dress"]) {
        await Deno.remove(join(data, side, folder), { recursive: true });
      }
    }
    await refused(/2 classes or more are needed, it has 1/);
  });
});

Deno.test("train names an image that cannot be read, and leaves it out if told so", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const pixels = new ImageData(40, 30);
    pixels.data.fill(120);
    const jpeg = new Uint8Array(await encodeJpeg(pixels));
    const broken = {
      "cut.jpg": [
        jpeg.slice(0, jpeg.length - 60),
        /the JPEG is cut short .*, replace or remove it/,
      ],
      "notes.jpg": [new TextEncoder().encode("milk, eggs"), /it is not a JPEG, PNG or WebP image/],
    } as const;
    // Five shots take every image of a class: four good ones and the broken one.
    await copyImages("train", 5, join(data, "train"));
    await Deno.remove(join(data, "train/bag", filesIn(join(data, "train/bag"))[0]));
    for (const side of ["train", "test"]) {
      for (const [name, [content, reason]] of Object.entries(broken)) {
        const path = join(data, side, "bag", name);
        await Deno.writeFile(path, content);
        const shots = ["--data", data, "--shots", side === "train" ? "5" : "4"];
        const named = new RegExp(`Cannot decode ${path}: ${reason.source}`);
        await assertUntrained(directory, shots, named);
        if (name === "cut.jpg") await assertSkipped(directory, shots, path, named);
        await Deno.remove(path);
      }
    }
    assertRefused(
      await octograd(["classify", join(directory, "none.png"), "--classes", "a,b"]),
      /none\.png: no such file or directory/,
    );
  });
});

/** Asserts that `--on-error skip` trains and classifies without an image. */
async function assertSkipped(
  directory: string,
  args: readonly string[],
  path: string,
  reason: RegExp,
): Promise<void> {
  const output = join(directory, "skipped");
  const shared = [...SHORT, ...args, "--output", output, "--overwrite"]
    .concat("--on-error", "skip", "--json");
  const skipped = await octograd(["train", ...shared]);
  assertEquals(skipped.code, 0, skipped.stderr);
  assert(skipped.stderr.includes(`skipped ${path}`), skipped.stderr);
  assert(JSON.parse(skipped.stdout).accuracy >= 0);

  const classify = ["classify", path, "--adapter", output, "--json"];
  assertRefused(await octograd(classify), reason);
  const left = await octograd([...classify, "--on-error", "skip"]);
  assertEquals([left.code, JSON.parse(left.stdout).predictions], [0, []]);

  const before = await Deno.readTextFile(join(output, "metrics.jsonl"));
  const again = ["train", ...shared, "--on-error", "fail"];
  assertRefused(await octograd(again), reason);
  assertEquals(await Deno.readTextFile(join(output, "metrics.jsonl")), before);
}

Deno.test("commands refuse models that are damaged, incomplete or do not fit", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const model = await copyModel(join(directory, "model"));
    const weights = join(model, "model.safetensors");
    const intact = await Deno.readFile(weights);
    const refused = (reason: RegExp, ...args: string[]) =>
      assertUntrained(directory, ["--data", data, "--model", model, ...args], reason);

    const damaged: [Uint8Array, RegExp][] = [
      [intact.slice(0, -1000), /model\.safetensors.*(short|bytes|end)/],
      [intact.slice(0, 5), /model\.safetensors/],
      [withHeaderLength(intact, 2 ** 40), /model\.safetensors.*header/],
      [withOverlap(intact), /model\.safetensors.*overlap/],
    ];
    for (const [content, reason] of damaged) {
      await Deno.writeFile(weights, content);
      await refused(reason);
    }
    await Deno.remove(weights);
    await refused(/neither model\.safetensors nor model\.safetensors\.index\.json/);
    await Deno.writeFile(weights, intact);

    const path = join(model, "config.json");
    const config = await Deno.readTextFile(path);
    const changes: [string, string, RegExp][] = [
      ['"num_hidden_layers": 4', '"num_hidden_layers": 5', /vision_model\.encoder\.layers\.4/],
      ['"num_hidden_layers": 4', '"num_hidden_layers": 3', /vision_model\.encoder\.layers\.3/],
      ['"intermediate_size": 512', '"intermediate_size": 256', /\[512,128\].*\[256,128\]/],
      ['"patch_size": 12', '"patch_size": 16', /\[128,3,12,12\].*\[128,3,16,16\]|patch/],
      ['"vocab_size": 2048', '"vocab_size": 4096', /\[2048,128\].*\[4096,128\]/],
      ['"quick_gelu"', '"swish"', /swish/],
      ["{", "[", /config\.json.*JSON/],
    ];
    for (const [from, to, reason] of changes) {
      assert(config.includes(from));
      await Deno.writeTextFile(path, config.replace(from, to));
      await refused(reason);
    }
    await Deno.writeTextFile(path, config);

    await Deno.rename(join(model, "merges.txt"), join(model, "merges.bak"));
    await refused(/Cannot find a tokenizer in .*model: .* with --tokenizer$/);
    await refused(/Cannot find the model "none": there is no such path/, "--model", "none");
    await refused(/Cannot use "some\/model" offline: /, "--model", "some/model", "--offline");
  });
});

Deno.test("train refuses settings that fit neither the model nor each other", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const refused = (reason: RegExp, ...args: string[]) =>
      assertUntrained(directory, ["--data", data, ...args], reason);
    await refused(/rank 6 into 4 blocks: the rank must be a multiple/, "--rank", "6");
    await refused(/position "middle": it must be all, /, "--position", "middle");
    await refused(/layer 9: the tower's layers are 0 to/, "--position", "9");
    await refused(/projection "w": choose from q, k, v/, "--projections", "q,w");
    await refused(/template "a photo": it must have \{\}/, "--template", "a photo");
    await refused(/24/, "--template", `${"a very ".repeat(20)} long {}`);
  });
});

Deno.test("evaluate, classify and merge refuse damaged or foreign adapters", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const adapter = join(directory, "adapter");
    const trained = await octograd(["train", "--data", data, ...SHORT, "--output", adapter]);
    assertEquals(trained.code, 0, trained.stderr);
    const image = join(data, "test/bag", filesIn(join(data, "test/bag"))[0]);
    const merged = join(directory, "merged");
    const commands = [
      ["evaluate", "--data", data],
      ["classify", image],
      ["merge", "--output", merged],
    ];
    const refused = async (reason: RegExp, which: string[][], ...args: string[]) => {
      for (const command of which) {
        assertRefused(await octograd([...command, "--adapter", adapter, ...args]), reason);
      }
      assert(!existsSync(merged));
    };

    const model = await copyModel(join(directory, "model"));
    const weights = await Deno.readFile(join(model, "model.safetensors"));
    await Deno.writeFile(join(model, "model.safetensors"), withOtherProjection(weights));
    await refused(/it was made for a model of/, commands, "--model", model);

    const [file, config] = ["adapter_model.safetensors", "adapter_config.json"]
      .map((name) => join(adapter, name));
    const [intact, text] = [await Deno.readFile(file), await Deno.readTextFile(config)];
    await Deno.writeFile(file, intact.slice(0, -100));
    await refused(/adapter_model\.safetensors/, commands);
    await Deno.writeFile(file, intact);
    for (
      const [from, to, reason] of [
        ['"r": 8', '"r": 16', /lora_A.* is \[2,128\]/],
        ['"blocks": 4', '"blocks": 3', /lora_B\.3\.weight" is not known/],
        ['"r": 8', '"r": 9', /rank 9 is not a multiple of the number of its blocks, 4/],
        ["{", "", /adapter_config\.json: it is not JSON/],
      ] as const
    ) {
      assert(text.includes(from));
      await Deno.writeTextFile(config, text.replace(from, to));
      await refused(reason, commands.slice(0, 1));
    }
    await Deno.remove(config);
    await refused(/Cannot find an adapter in .*adapter: it needs/, commands);
  });
});

Deno.test("escape sequences in a folder's name do not reach the terminal", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    await Deno.mkdir(join(data, "train", "\x1b]0;owned\x07\x1b[2J\u202egnp"));
    const { stderr } = await octograd(["train", "--data", data]);
    assertStringIncludes(stderr, 'class "\\u001b]0;owned\\u0007\\u001b[2J\\u202egnp"');
    // deno-lint-ignore no-control-regex -- they must not be there
    const commands = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/;
    assert(!commands.test(stderr), stderr);

    const classes = ["bag\x1b[31m", "two\nlines", "\u009b2J\u202e"];
    const [image] = filesIn(join(data, "test/bag"));
    const odd = join(directory, "a\r\x1b[2K.png");
    await Deno.copyFile(join(data, "test/bag", image), odd);
    const args = ["classify", odd, "--classes", classes.join(",")];
    const plain = await octograd(args);
    assertEquals(plain.stdout.trimEnd().split("\n").length, 4, plain.stdout);
    const json = await octograd([...args, "--json"]);
    const { predictions: [{ path, top }] } = JSON.parse(json.stdout);
    assertEquals(path, odd);
    assertEquals(top.map(({ label }: { label: string }) => label).sort(), classes.sort());
    for (const { stdout, stderr } of [plain, json]) assert(!commands.test(stdout + stderr));
  });
});

Deno.test("train and merge write nothing without space or permission", async () => {
  await withDirectory(async (directory) => {
    const data = await copyData(join(directory, "data"));
    const adapter = join(directory, "adapter");
    const train = (output: string) => ["train", "--data", data, ...SHORT, "--output", output];
    const trained = await octograd(train(adapter));
    assertEquals(trained.code, 0, trained.stderr);
    const merge = (output: string) => ["merge", "--adapter", adapter, "--output", output];
    const refused = async (output: string, reason: string, otherForRuns = reason) => {
      for (const [command, told] of [[train, otherForRuns], [merge, reason]] as const) {
        assertRefused(
          await octograd(command(output)),
          new RegExp(
            `Cannot write to ${output}(.unfinished)?: ${told}, name an?(other)? directory`,
          ),
        );
      }
    };

    const file = join(adapter, "metrics.jsonl");
    await refused(file, "file exists", "it is not a directory");
    await refused(join(file, "out"), "not a directory");
    const disks = [
      ["full", "size=64k", "no space left on device"],
      ["read-only", "ro", "read-only file system"],
    ];
    for (const [kind, options, reason] of disks) {
      const disk = join(directory, kind);
      using mount = await mounted(disk, options);
      if (!mount) {
        console.log(`not tested: a ${kind} file system, as mounting one needs root`);
        continue;
      }
      // A run is made beside its directory, and moved.
      await refused(disk, reason, "it is a mount point");
      await refused(join(disk, "a/b"), reason);
      assertEquals(filesIn(disk), []);
      assert(!existsSync(join(disk, "a")), "directories are left behind");
    }
  });
});
