/** What `merge` writes, and what it refuses. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { merge } from "../blocklora/commands/merge.ts";
import { EMBEDDED_MODEL } from "../blocklora/models/open_model.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { encodeSafetensors } from "../tensor/encode_safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";
import { copyModel, filesIn, withDirectory } from "./cli.ts";
import { gpuTest } from "./gpu.ts";

const EMBEDDED = fileURLToPath(EMBEDDED_MODEL);

/**
 * Writes a PEFT adapter of the embedded model, which adds `size` to every element of the image
 * features' projection.
 */
async function writeAdapter(directory: string, size: number, alpha = 1): Promise<string> {
  const of = (matrix: string) => `base_model.model.visual_projection.lora_${matrix}.weight`;
  const data = (value: number) => new Float32Array(128).fill(value);
  const weights = encodeSafetensors({
    [of("A")]: { dtype: "F32", shape: [1, 128], data: data(1) },
    [of("B")]: { dtype: "F32", shape: [128, 1], data: data(size) },
  });
  const config = {
    peft_type: "LORA",
    r: 1,
    lora_alpha: alpha,
    target_modules: ["visual_projection"],
  };
  const base = { base_model_name_or_path: "emoji-clip-tiny" };
  await Deno.mkdir(directory);
  await Deno.writeFile(join(directory, "adapter_model.safetensors"), weights);
  await Deno.writeTextFile(
    join(directory, "adapter_config.json"),
    JSON.stringify({ ...base, ...config }),
  );
  return directory;
}

async function openWeights(path: string): Promise<SafetensorsFile> {
  return await SafetensorsFile.open(bytesSource(await Deno.readFile(path), path));
}

gpuTest(
  "merge writes a model with all files beside its weights, and says how these are stored",
  () =>
    withDirectory(async (directory) => {
      const adapter = await writeAdapter(join(directory, "adapter"), 0.5);
      const model = await copyModel(join(directory, "emoji-clip-tiny"));
      const extra = {
        "special_tokens_map.json": '{"bos_token": "<|startoftext|>"}',
        "added_tokens.json": '{"<toy>": 2048}',
        "processor_config.json": '{"processor_class": "CLIPProcessor"}',
      };
      for (const [name, text] of Object.entries(extra)) {
        await Deno.writeTextFile(join(model, name), text);
      }
      const config = (await Deno.readTextFile(join(model, "config.json")))
        .replace('"text_config": {', '"text_config": { "torch_dtype": null,');
      await Deno.writeTextFile(join(model, "config.json"), config);
      await Deno.writeTextFile(join(model, "pytorch_model.bin"), "of no use to the merged model");
      const plain = await (await openWeights(join(model, "model.safetensors"))).floats(
        "visual_projection.weight",
      );

      const names = { F32: "float32", F16: "float16", BF16: "bfloat16" };
      const output = join(directory, "merged");
      for (const [dtype, name] of Object.entries(names)) {
        // Every merge goes into the same directory, and replaces all of it if asked to.
        const args = ["--adapter", adapter, "--model", model, "--output", output, "--dtype", dtype];
        if (dtype !== "F32") {
          const before = await Deno.readFile(join(output, "model.safetensors"));
          await assertRejects(() => merge(args), Error, "replace that with --overwrite");
          assertEquals(await Deno.readFile(join(output, "model.safetensors")), before);
        }
        await merge([...args, "--overwrite"]);
        assertEquals(
          filesIn(output),
          filesIn(model).filter((name) => !/^(README|pytorch)/.test(name)),
        );
        const text = await Deno.readTextFile(join(output, "config.json"));
        const written = JSON.parse(text);
        // Numbers keep their notation: transformers 5 does not accept 1 for 1.0.
        const numbers = (json: string) => json.match(/(?<=: )[\d.e-]+/g);
        assertEquals(numbers(text), numbers(config));
        assert(numbers(text)!.includes("1.0") && numbers(text)!.includes("1e-05"));
        assertEquals([written.torch_dtype, written.dtype, written.text_config.torch_dtype], [
          name,
          name,
          name,
        ]);
        assertEquals(written.vision_config, JSON.parse(config).vision_config);
        for (const [name, text] of Object.entries(extra)) {
          assertEquals(await Deno.readTextFile(join(output, name)), text);
        }
        const file = await openWeights(join(output, "model.safetensors"));
        assertEquals(
          new Set([...file.tensors.values()].map(({ dtype }) => dtype)),
          new Set([dtype]),
        );
        assertEquals(file.tensors.get("logit_scale")!.shape, []);
        const merged = await file.floats("visual_projection.weight");
        const worst = Math.max(...merged.map((value, i) => Math.abs(value - plain[i] - 0.5)));
        assert(worst < { F32: 1e-7, F16: 1e-3, BF16: 8e-3 }[dtype]!, `${dtype}: ${worst}`);
      }
    }),
);

gpuTest(
  "merge refuses values that F16 cannot hold, and then writes nothing",
  () =>
    withDirectory(async (directory) => {
      for (const [i, size] of [1e5, -1e5, 65520].entries()) {
        const adapter = await writeAdapter(join(directory, `adapter${i}`), size);
        const output = join(directory, `out${i}`);
        const args = ["--adapter", adapter, "--output", output, "--dtype"];
        await assertRejects(() => merge([...args, "F16"]), RangeError, "visual_projection.weight");
        await assertRejects(() => Deno.stat(output), Deno.errors.NotFound);
        await merge([...args, "BF16"]);
      }
      const adapter = await writeAdapter(join(directory, "adapter"), 3.4e38);
      const args = ["--adapter", adapter, "--output", join(directory, "out"), "--dtype"];
      await assertRejects(() => merge([...args, "BF16"]), RangeError, "BF16");
    }),
);

gpuTest(
  "merge changes neither its inputs nor files that it did not write",
  () =>
    withDirectory(async (directory) => {
      const adapter = await writeAdapter(join(directory, "adapter"), 1);
      const model = await copyModel(join(directory, "emoji-clip-tiny"));
      const weights = await Deno.readFile(join(model, "model.safetensors"));
      const link = join(directory, "link");
      await Deno.symlink(model, link);
      const refused = (reason: string, output: string, ...args: string[]) =>
        assertRejects(
          () => merge(["--adapter", adapter, "--model", model, "--output", output, ...args]),
          Error,
          reason,
        );
      for (const output of [model, adapter, link]) {
        await refused("what is merged is read from there", output);
        await refused("what is merged is read from there", output, "--format", "peft");
      }
      assertEquals(await Deno.readFile(join(model, "model.safetensors")), weights);
      for (
        const [i, [name, ...args]] of [
          ["tokenizer.json"],
          ["pytorch_model.bin"],
          ["model.safetensors.index.json"],
          ["result.json", "--format", "peft"],
          ["model.safetensors", "--format", "peft"],
        ].entries()
      ) {
        const output = join(directory, `out${i}`);
        await Deno.mkdir(output);
        await Deno.writeTextFile(join(output, name), "another's");
        await Deno.writeTextFile(join(output, "notes.txt"), "mine");
        await refused(`it has ${name} of something else`, output, ...args);
        assertEquals(filesIn(output), [name, "notes.txt"].sort());
      }
      assertEquals(filesIn(EMBEDDED).length, filesIn(model).length);
    }),
);

gpuTest(
  "merge writes no weights that are infinite with the adapter",
  () =>
    withDirectory(async (directory) => {
      const adapter = await writeAdapter(join(directory, "adapter"), 3e38, 9);
      const output = join(directory, "merged");
      await assertRejects(
        () => merge(["--adapter", adapter, "--output", output]),
        RangeError,
        'Cannot save "visual_projection.weight": it holds Infinity with the adapter merged',
      );
      assertEquals(filesIn(directory).filter((name) => name.startsWith("merged")), []);
    }),
);
