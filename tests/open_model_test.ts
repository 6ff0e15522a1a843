/** Models as other programs have saved them, opened from directories and files. */

import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { EMBEDDED_MODEL, openModel } from "../blocklora/models/open_model.ts";
import { Classifier, classPrompts } from "../blocklora/training/classifier.ts";
import type { Clip } from "../clip/clip.ts";
import { encodeSafetensors } from "../tensor/encode_safetensors.ts";
import { withDirectory } from "./cli.ts";
import { encodeTorch, pickleFile } from "./encode_torch.ts";
import { gpuTest } from "./gpu.ts";
import {
  CONFIG,
  EMBEDDED,
  logitsOf,
  modelIn,
  OTHERS,
  PIXELS,
  PROCESSOR,
  sharded,
  WEIGHTS,
  withModels,
} from "./models.ts";
import { byOpenaiNames, readJson } from "./reference.ts";

gpuTest(
  "a directory's weights are those that transformers takes",
  () =>
    withModels(async (open) => {
      const expected = await logitsOf(await openModel(EMBEDDED));
      const [wanted, other] = [encodeSafetensors(WEIGHTS), encodeSafetensors(OTHERS)];
      assertNotEquals(await logitsOf(await open({ "model.safetensors": other })), expected);
      for (
        const files of [
          { "pytorch_model.bin": encodeTorch(WEIGHTS) },
          sharded(WEIGHTS, "safetensors"),
          sharded(WEIGHTS, "bin"),
          // A file that an older save left there.
          { ...sharded(OTHERS, "safetensors"), "model.safetensors": wanted },
          { ...sharded(OTHERS, "bin"), "model.safetensors": wanted },
          { ...sharded(OTHERS, "bin"), ...sharded(WEIGHTS, "safetensors") },
          { ...sharded(OTHERS, "bin"), "pytorch_model.bin": encodeTorch(WEIGHTS) },
          { "model.safetensors": wanted, "pytorch_model.bin": "damaged" },
          { "model.safetensors": wanted, "model.safetensors.index.json": "damaged" },
          {
            "model.safetensors": wanted,
            "adapter_model.safetensors": other,
            "consolidated.pth": other,
          },
          // Files are recognized by their contents, whatever they are called.
          { "model.safetensors": encodeTorch(WEIGHTS) },
          { "pytorch_model.bin": wanted },
        ]
      ) {
        assertEquals(await logitsOf(await open(files)), expected, Object.keys(files).join());
      }
      const named = sharded(WEIGHTS, "safetensors");
      const [first] = Object.keys(named);
      for (
        const [files, reason] of [
          [{ ...named, [first]: "damaged" }, "model-00001-of-00002.safetensors"],
          [{ ...named, [first]: encodeSafetensors(WEIGHTS) }, "is in "],
          [
            { "model.safetensors.index.json": { weight_map: { a: "../../etc/x.safetensors" } } },
            "must name safetensors or bin files beside it",
          ],
          [{ "model.safetensors.index.json": { weight_map: { a: "gone.safetensors" } } }, "gone"],
          [{ "tf_model.h5": "x" }, "Cannot find weights in "],
        ] as [Record<string, unknown>, string][]
      ) {
        await assertRejects(() => open(files), Error, reason);
      }
    }),
);

gpuTest(
  "a pickle that would run code is refused, and nothing runs",
  () =>
    withModels(async (open, path) => {
      const trace = join(path, "trace");
      for (
        const pickle of [
          `\x80\x02cos\nsystem\nX${
            String.fromCharCode(trace.length + 6, 0, 0, 0)
          }touch ${trace}\x85R.`,
          `\x80\x02cbuiltins\neval\nX\x03\x00\x00\x001+1\x85R.`,
          "\x80\x02ctorch.hub\nload\n).",
        ]
      ) {
        await assertRejects(
          () => open({ "pytorch_model.bin": pickleFile(pickle) }),
          RangeError,
          "and only tensors are read; save the state dict alone",
        );
        await assertRejects(() => Deno.stat(trace), Deno.errors.NotFound);
      }
    }),
);

gpuTest(
  "images are prepared exactly as the model's files say",
  () =>
    withModels(async (open) => {
      const other = { ...PROCESSOR, image_mean: [0.5, 0.25, 0.125] };
      const preprocessOf = async (files: Record<string, unknown>, without?: string[]) => {
        const { model: clip, preprocess } = await open(files, without);
        clip.release();
        return preprocess;
      };
      const gone = ["preprocessor_config.json"];
      const { mean } = await preprocessOf({}, []);
      assertEquals(mean, PROCESSOR.image_mean);
      // Transformers 5 saves these; 4 saves the processor alone, or beside it the file that counts.
      const saved = { image_processor: other, processor_class: "CLIPProcessor" };
      for (
        const [files, without] of [
          [{ "processor_config.json": saved }, gone],
          [{ "processor_config.json": saved }, []],
          [{
            "processor_config.json": { processor_class: "CLIPProcessor" },
            "preprocessor_config.json": other,
          }, []],
          [{ "preprocessor_config.json": { ...other, image_processor_type: undefined } }, []],
          [
            {
              "preprocessor_config.json": {
                ...other,
                image_processor_type: undefined,
                feature_extractor_type: "CLIPFeatureExtractor",
                size: 48,
                crop_size: 48,
              },
            },
            [],
          ],
          [{
            "preprocessor_config.json": {
              ...other,
              image_processor_type: "CLIPImageProcessorFast",
            },
          }, []],
        ] as [Record<string, unknown>, string[]][]
      ) {
        const found = await preprocessOf(files, without);
        assertEquals(found.mean, [0.5, 0.25, 0.125], JSON.stringify(files));
        assertEquals([found.resize, found.crop, found.cropRule], [48, 48, "floor"]);
      }
      for (
        const changes of [
          { image_processor_type: "SiglipImageProcessor" },
          { image_processor_type: "ViTImageProcessorFast" },
          { feature_extractor_type: "ViTFeatureExtractor" },
          { do_center_crop: false },
          { do_pad: true },
          { use_square_size: true },
          { resample: 2 },
          { size: { height: 48, width: 48 } },
          { crop_size: { height: 48, width: 40 } },
          { crop_size: 32 },
          { rescale_factor: 1 },
          { image_std: [0, 1, 1] },
        ]
      ) {
        const [[name]] = Object.entries(changes);
        for (
          const files of [
            { "preprocessor_config.json": { ...PROCESSOR, ...changes } },
            { "processor_config.json": { image_processor: { ...PROCESSOR, ...changes } } },
          ]
        ) {
          const [file] = Object.keys(files);
          const { message } = await assertRejects(() => preprocessOf(files, []), RangeError);
          const wanted = "crop_size" in changes && changes.crop_size === 32
            ? "images are cropped to 32, the model takes 48"
            : `${file}: ${name}`;
          assert(message.includes(wanted), message);
        }
      }
      const notes: string[] = [];
      await withDirectory(async (directory) => {
        await modelIn(directory, {}, gone);
        const { model: clip, preprocess } = await openModel(directory, {
          onNote: (note) => notes.push(note),
        });
        assertEquals(preprocess.mean, PROCESSOR.image_mean);
        clip.release();
      });
      assertEquals(notes.length, 1);
      assert(notes[0].includes("has no preprocessor_config.json"), notes[0]);
    }),
);

gpuTest("one file is described by the files beside it", () =>
  withModels(async (open) => {
    const expected = await logitsOf(await openModel(EMBEDDED));
    const plain = byOpenaiNames(CONFIG, WEIGHTS);
    const settings = await readJson(new URL("config.json", EMBEDDED_MODEL));
    const gelu = { ...settings, text_config: { ...settings.text_config, hidden_act: "gelu" } };
    for (const name of ["ViT-T-12.pt", "tiny.safetensors"]) {
      const file = { [name]: name.endsWith(".pt") ? encodeTorch(plain) : encodeSafetensors(plain) };
      const without = ["config.json", "preprocessor_config.json"];
      assertEquals(await logitsOf(await open(file, without, name)), expected);
      // The configuration of another model, as in a folder of downloads.
      const stray = { ...file, "config.json": { model_type: "bert" } };
      assertEquals(await logitsOf(await open(stray, without, name)), expected);
      const opened = await open({ ...file, "config.json": gelu }, without, name);
      assertEquals((opened.model as Clip).config.text.activation, "gelu");
      opened.model.release();
      const rounded = await open({ ...file, "config.json": gelu }, [], name);
      assertEquals(rounded.preprocess.cropRule, "floor");
      rounded.model.release();
    }
    const names = { "tiny.bin": encodeTorch(WEIGHTS) };
    assertEquals(await logitsOf(await open(names, [], "tiny.bin")), expected);
    await assertRejects(
      () => open(names, ["config.json"], "tiny.bin"),
      RangeError,
      "needs a config.json beside it",
    );
    const custom = { "x.pt": encodeTorch(byOpenaiNames(CONFIG, WEIGHTS, "text.")) };
    await assertRejects(() => open(custom, ["config.json"], "x.pt"), RangeError, "config.json");
  }));

gpuTest(
  "a directory's tokenizer is that which transformers takes",
  () =>
    withModels(async (open) => {
      const vocabulary = await readJson(new URL("vocab.json", EMBEDDED_MODEL));
      const merges = (await Deno.readTextFile(new URL("merges.txt", EMBEDDED_MODEL))).split("\n")
        .filter((line) => line !== "" && !line.startsWith("#"));
      const json = {
        model: { type: "BPE", vocab: vocabulary, merges, end_of_word_suffix: "</w>" },
        added_tokens: [{ id: 2048, content: "<toy>", normalized: false }],
      };
      const idsOf = async (files: Record<string, unknown>) => {
        const { model: clip, tokenizer } = await open(files, []);
        clip.release();
        return [...tokenizer.encode("don’t <toy> <Cat>")];
      };
      const words = await idsOf({});
      const decoder = { "2048": { content: "<toy>", normalized: false, special: false } };
      const split = await idsOf({ "tokenizer_config.json": { added_tokens_decoder: decoder } });
      assert(!words.includes(2048) && split.includes(2048));
      assertEquals(await idsOf({ "added_tokens.json": { "<toy>": 2048 } }), split);
      // The file of Hugging Face's tokenizers comes first, and leaves quotes curly.
      const curly = await idsOf({ "tokenizer.json": json });
      assert(curly.includes(2048));
      assertNotEquals(curly, split);
      const config = { added_tokens_decoder: { "2049": { content: "<Cat>", normalized: false } } };
      const both = await idsOf({ "tokenizer.json": json, "tokenizer_config.json": config });
      assert(both.includes(2048) && both.includes(2049));
      for (
        const [files, reason] of [
          [{ "tokenizer_config.json": { tokenizer_class: "SiglipTokenizer" } }, "SiglipTokenizer"],
          [{ "tokenizer_config.json": { bos_token: "<s>" } }, 'its bos_token is "<s>"'],
          [
            { "tokenizer_config.json": { eos_token: { content: "</s>" } } },
            'its eos_token is "</s>"',
          ],
          [{ "tokenizer.json": { ...json, normalizer: { type: "NFKC" } } }, "NFKC"],
          [{ "tokenizer.json": "damaged" }, "tokenizer.json: it is not JSON"],
        ] as [Record<string, unknown>, string][]
      ) {
        await assertRejects(() => open(files, []), Error, reason);
      }
    }),
);

gpuTest(
  "a fingerprint tells a model from every other, wherever it is",
  () =>
    withModels(async (open) => {
      const fingerprintOf = async (files: Record<string, unknown>) => {
        const { model: clip, fingerprint } = await open(files, []);
        clip.release();
        return fingerprint;
      };
      const first = await fingerprintOf({});
      assertEquals(await fingerprintOf({ "README.md": "says nothing" }), first);
      assertEquals(
        await fingerprintOf({
          "config.json": await readJson(new URL("config.json", EMBEDDED_MODEL)),
        }),
        first,
      );
      const { shape, data } = WEIGHTS.logit_scale;
      const merged = {
        ...WEIGHTS,
        logit_scale: { dtype: "F16", shape, data: Float32Array.from(data, (x) => 1.01 * x) },
      } as const;
      const vocabulary = await readJson(new URL("vocab.json", EMBEDDED_MODEL));
      const seen = new Set([first]);
      for (
        const files of [
          { "model.safetensors": encodeSafetensors(merged) },
          { "vocab.json": { ...vocabulary, more: 2048 } },
          { "added_tokens.json": { more: 2048 } },
          { "preprocessor_config.json": { ...PROCESSOR, image_mean: [0.5, 0.5, 0.5] } },
          {
            "config.json": (await Deno.readTextFile(new URL("config.json", EMBEDDED_MODEL)))
              .replace("quick_gelu", "gelu"),
          },
        ]
      ) {
        const other = await fingerprintOf(files);
        assert(!seen.has(other), Object.keys(files).join());
        seen.add(other);
      }
    }),
);

gpuTest(
  "a model whose weights are NaN or infinite is not loaded, and classifies nothing",
  () =>
    withModels(async (open) => {
      for (
        const [name, value] of [
          ["logit_scale", NaN],
          ["visual_projection.weight", NaN],
          ["text_model.final_layer_norm.bias", Infinity],
        ] as const
      ) {
        const { shape, data } = WEIGHTS[name];
        const broken = Float32Array.from(data, (x, i) => i === data.length - 1 ? value : x);
        const weights = { ...WEIGHTS, [name]: { dtype: "F32", shape, data: broken } as const };
        await assertRejects(
          () => open({ "model.safetensors": encodeSafetensors(weights) }),
          RangeError,
          `Cannot load "${name}": it holds ${value}`,
        );
        // As if it had become so on the GPU.
        const floats = { ...WEIGHTS, [name]: { dtype: "F32", shape, data } as const };
        const { model: clip, tokenizer } = await open({
          "model.safetensors": encodeSafetensors(floats),
        });
        const { binding: { buffer }, engine, size } = clip.weights.get(name);
        engine.queue.write(buffer, 4 * (size - 1), Float32Array.of(value));
        const prompts = classPrompts(clip, tokenizer, ["cat", "dog"], "a {}.");
        const classifier = new Classifier(clip, prompts);
        await assertRejects(() => classifier.predict(PIXELS), RangeError, "logits are NaN");
        for (const each of [classifier, prompts, clip]) each.release();
      }
    }),
);
