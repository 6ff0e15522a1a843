/** Models as other programs have saved them, opened from directories and files. */

import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Classifier, classPrompts } from "../blocklora/training/classifier.ts";
import { EMBEDDED_MODEL, type OpenedModel, openModel } from "../blocklora/models/open_model.ts";
import { type ClipConfig, parseConfig } from "../clip/config.ts";
import { tensor } from "../tensor/create.ts";
import { encodeSafetensors, type TensorToSave } from "../tensor/encode_safetensors.ts";
import { scope } from "../tensor/scope.ts";
import { copyModel, withDirectory } from "./cli.ts";
import { encodeTorch, pickleFile } from "./encode_torch.ts";
import { fixtures, shared, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";
import {
  byOpenaiNames,
  Comparison,
  directoriesIn,
  openSafetensors,
  readJson,
} from "./reference.ts";

const EMBEDDED = fileURLToPath(EMBEDDED_MODEL);
const CONFIG: ClipConfig = parseConfig(await readJson(new URL("config.json", EMBEDDED_MODEL)));

type Weights = Record<string, TensorToSave>;

async function embeddedWeights(): Promise<Weights> {
  const file = await openSafetensors(new URL("model.safetensors", EMBEDDED_MODEL));
  const entries = [...file.tensors].map(async ([name, { shape }]) =>
    [name, { dtype: "F16" as const, shape, data: await file.floats(name) }] as const
  );
  return Object.fromEntries(await Promise.all(entries));
}

const WEIGHTS = await embeddedWeights();
/** The same model with all that trains turned around: to be told from it. */
const OTHERS: Weights = Object.fromEntries(
  Object.entries(WEIGHTS).map(([name, saved]) => [
    name,
    name === "logit_scale" ? saved : { ...saved, data: Float32Array.from(saved.data, (x) => -x) },
  ]),
);

/** A directory with the embedded model's small files, and whatever else. */
async function modelIn(
  directory: string,
  files: Readonly<Record<string, unknown>>,
  without: readonly string[] = ["model.safetensors"],
): Promise<string> {
  await copyModel(directory);
  for (const name of without) await Deno.remove(join(directory, name));
  for (const [name, content] of Object.entries(files)) {
    const bytes = content instanceof Uint8Array
      ? content
      : new TextEncoder().encode(typeof content === "string" ? content : JSON.stringify(content));
    await Deno.writeFile(join(directory, name), bytes);
  }
  return directory;
}

const PIXELS = Float32Array.from(
  { length: 2 * 3 * 48 * 48 },
  (_, i) => ((i * 37) % 101 - 50) / 32,
);

/** Logits of an opened model, which is released. */
async function logitsOf({ clip, tokenizer }: OpenedModel): Promise<number[]> {
  const prompts = classPrompts(clip, tokenizer, ["cat", "dog", "a café"], "a photo of a {}.");
  const logits = scope(() =>
    clip.logits(clip.imageFeatures(tensor(PIXELS, [2, 3, 48, 48])), clip.textFeatures(prompts))
  );
  const values = Array.from(await logits.data());
  for (const each of [logits, prompts, clip]) each.release();
  return values;
}

/** Opens a directory of the embedded model with other files, or one of the files there. */
type Open = (
  files: Readonly<Record<string, unknown>>,
  without?: readonly string[],
  name?: string,
) => Promise<OpenedModel>;

function withModels(body: (open: Open, path: string) => Promise<void>): Promise<void> {
  return withDirectory(async (directory) => {
    const path = join(directory, "model");
    await body(async (files, without, name = "") => {
      await Deno.remove(path, { recursive: true }).catch(() => {});
      return await openModel(join(await modelIn(path, files, without), name));
    }, path);
  });
}

/** Two files of weights and what tells which tensor is in which. */
function sharded(weights: Weights, format: "safetensors" | "bin"): Record<string, unknown> {
  const names = Object.keys(weights);
  const halves = [names.slice(0, 50), names.slice(50)];
  const encode = format === "bin" ? encodeTorch : encodeSafetensors;
  const stem = format === "bin" ? "pytorch_model" : "model";
  const files = halves.map((half, i): [string, Uint8Array] => [
    `${stem}-0000${i + 1}-of-00002.${format}`,
    encode(Object.fromEntries(half.map((name) => [name, weights[name]]))),
  ]);
  const map = halves.flatMap((half, i) => half.map((name) => [name, files[i][0]]));
  return {
    ...Object.fromEntries(files),
    [`${stem}.${format}.index.json`]: { metadata: {}, weight_map: Object.fromEntries(map) },
  };
}

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
          // What an older save has left there.
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
          // By what they hold, whatever they are called.
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
  "a pickle that would run something is refused, and nothing runs",
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

const PROCESSOR = await readJson(new URL("preprocessor_config.json", EMBEDDED_MODEL));

gpuTest(
  "images are prepared as the model's files say, and by nothing that they do not say",
  () =>
    withModels(async (open) => {
      const other = { ...PROCESSOR, image_mean: [0.5, 0.25, 0.125] };
      const preprocessOf = async (files: Record<string, unknown>, without?: string[]) => {
        const { clip, preprocess } = await open(files, without);
        clip.release();
        return preprocess;
      };
      const gone = ["preprocessor_config.json"];
      const { mean } = await preprocessOf({}, []);
      assertEquals(mean, PROCESSOR.image_mean);
      // As transformers 5 saves them; 4 has the processor alone there, or what counts beside it.
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
        const { clip, preprocess } = await openModel(directory, {
          onNote: (note) => notes.push(note),
        });
        assertEquals(preprocess.mean, PROCESSOR.image_mean);
        clip.release();
      });
      assertEquals(notes.length, 1);
      assert(notes[0].includes("has no preprocessor_config.json"), notes[0]);
    }),
);

/** The embedded model's `open_clip_config.json`. */
function openClipConfig({ model = {}, preprocess = {} } = {}): unknown {
  return {
    model_cfg: {
      embed_dim: 128,
      quick_gelu: true,
      vision_cfg: { image_size: 48, layers: 4, width: 128, patch_size: 12 },
      text_cfg: { context_length: 24, vocab_size: 2048, width: 128, heads: 2, layers: 2 },
      ...model,
    },
    preprocess_cfg: { mean: PROCESSOR.image_mean, std: PROCESSOR.image_std, ...preprocess },
  };
}

gpuTest(
  "open_clip's directories and files are read as open_clip reads them",
  () =>
    withModels(async (open) => {
      const expected = await logitsOf(await openModel(EMBEDDED));
      const plain = byOpenaiNames(CONFIG, WEIGHTS);
      const custom = byOpenaiNames(CONFIG, WEIGHTS, "text.");
      const other = encodeSafetensors(byOpenaiNames(CONFIG, OTHERS));
      const config = openClipConfig();
      const gone = ["model.safetensors", "config.json"];
      for (
        const [files, without] of [
          [{ "open_clip_model.safetensors": encodeSafetensors(plain) }, gone],
          [{ "open_clip_model.safetensors": encodeSafetensors(custom) }, gone],
          [{ "open_clip_pytorch_model.bin": encodeTorch(plain) }, gone],
          [{ "open_clip_pytorch_model.safetensors": encodeSafetensors(plain) }, gone],
          [{ "model.safetensors": encodeSafetensors(plain) }, ["config.json"]],
          [
            {
              "open_clip_model.safetensors": encodeSafetensors(plain),
              "open_clip_pytorch_model.bin": encodeTorch(byOpenaiNames(CONFIG, OTHERS)),
            },
            gone,
          ],
          // Beside it what timm reads, and what transformers does.
          [
            {
              "config.json": { architecture: "vit_tiny_patch12_clip_48" },
              "model.safetensors": other,
              "open_clip_model.safetensors": encodeSafetensors(plain),
            },
            [],
          ],
          [{ "open_clip_model.safetensors": encodeSafetensors(plain) }, ["model.safetensors"]],
          [{ "open_clip_model.safetensors": other }, []],
        ] as [Record<string, unknown>, string[]][]
      ) {
        const opened = await open({ ...files, "open_clip_config.json": config }, without);
        assertEquals(await logitsOf(opened), expected, Object.keys(files).join());
      }

      // What its configuration says, and not what OpenAI's models have, in a directory or beside a
      // file.
      const changed = openClipConfig({
        model: { quick_gelu: false },
        preprocess: { mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] },
      });
      const files = { "open_clip_model.safetensors": encodeSafetensors(plain) };
      for (const name of ["", "open_clip_model.safetensors"]) {
        const opened = await open({ ...files, "open_clip_config.json": changed }, gone, name);
        assertEquals(opened.clip.config.vision.activation, "gelu");
        assertEquals(opened.preprocess.mean, [0.5, 0.5, 0.5]);
        assertEquals(opened.preprocess.std, [0.25, 0.25, 0.25]);
        assertEquals(opened.preprocess.cropRule, "round");
        assertNotEquals(await logitsOf(opened), expected);
      }
      await assertRejects(
        () => open({ ...files, "open_clip_config.json": "{" }, gone),
        Error,
        "open_clip_config.json: it is not JSON",
      );
    }),
);

gpuTest("one file is described by what lies beside it", () =>
  withModels(async (open) => {
    const expected = await logitsOf(await openModel(EMBEDDED));
    const plain = byOpenaiNames(CONFIG, WEIGHTS);
    const settings = await readJson(new URL("config.json", EMBEDDED_MODEL));
    const gelu = { ...settings, text_config: { ...settings.text_config, hidden_act: "gelu" } };
    for (const name of ["ViT-T-12.pt", "tiny.safetensors"]) {
      const file = { [name]: name.endsWith(".pt") ? encodeTorch(plain) : encodeSafetensors(plain) };
      const without = ["config.json", "preprocessor_config.json"];
      assertEquals(await logitsOf(await open(file, without, name)), expected);
      // The configuration of another model, such as lies in a folder of downloads.
      const stray = { ...file, "config.json": { model_type: "bert" } };
      assertEquals(await logitsOf(await open(stray, without, name)), expected);
      const opened = await open({ ...file, "config.json": gelu }, without, name);
      assertEquals(opened.clip.config.text.activation, "gelu");
      opened.clip.release();
      const rounded = await open({ ...file, "config.json": gelu }, [], name);
      assertEquals(rounded.preprocess.cropRule, "floor");
      rounded.clip.release();
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
        const { clip, tokenizer } = await open(files, []);
        clip.release();
        return [...tokenizer.encode("don’t <toy> <Cat>")];
      };
      const words = await idsOf({});
      const decoder = { "2048": { content: "<toy>", normalized: false, special: false } };
      const split = await idsOf({ "tokenizer_config.json": { added_tokens_decoder: decoder } });
      assert(!words.includes(2048) && split.includes(2048));
      assertEquals(await idsOf({ "added_tokens.json": { "<toy>": 2048 } }), split);
      // The file of Hugging Face's tokenizers counts before the others, and leaves quotes curly.
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
        const { clip, fingerprint } = await open(files, []);
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
  "a model whose weights have become NaN or infinite classifies nothing",
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
        const { clip, tokenizer } = await open({ "model.safetensors": encodeSafetensors(weights) });
        const prompts = classPrompts(clip, tokenizer, ["cat", "dog"], "a {}.");
        const classifier = new Classifier(clip, prompts);
        await assertRejects(() => classifier.predict(PIXELS), RangeError, "logits are NaN");
        for (const each of [classifier, prompts, clip]) each.release();
      }
    }),
);

interface Manifest {
  readonly rtol: number;
  readonly tolerance: { readonly outputs: Readonly<Record<string, { atol: number }>> };
}

const towers = fixtures("towers");
const tokenizer = shared("models/openai-clip-tokenizer/");
if (!towers || !tokenizer) skip("models of open_clip agree with PyTorch");
else {
  const models = directoriesIn(towers).filter((name) => name.startsWith("openclip_"));
  const compared = new Comparison();
  for (const name of models) {
    gpuTest(`a model of open_clip agrees with PyTorch: ${name}`, async () => {
      const directory = new URL(`${name}/`, towers);
      const { rtol, tolerance: { outputs } } = await readJson(
        new URL("manifest.json", directory),
      ) as Manifest;
      const io = await openSafetensors(new URL("io.safetensors", directory));
      await withDirectory(async (copy) => {
        // Alone: beside it the same model lies in Hugging Face's layout.
        for (const file of ["open_clip_config.json", "open_clip_model.safetensors"]) {
          await Deno.copyFile(new URL(file, directory), join(copy, file));
        }
        const { clip } = await openModel(copy, { tokenizer: fileURLToPath(tokenizer) });
        const [images, rows] = [
          io.tensors.get("in.pixel_values")!.shape,
          io.tensors.get("in.input_ids")!.shape[0],
        ];
        const pixels = await io.floats("in.pixel_values");
        const prompts = clip.text.prompts(await io.integers("in.input_ids"), rows);
        const made = {
          image_features: scope(() => clip.imageFeatures(tensor(pixels, images))),
          text_features: clip.textFeatures(prompts),
        };
        const logits = clip.logits(made.image_features, made.text_features);
        for (const [what, actual] of Object.entries({ ...made, logits_per_image: logits })) {
          const { atol } = outputs[what];
          await compared.tensor(`${name}/${what}`, actual, io, `out.${what}`, { atol, rtol });
        }
        for (const each of [prompts, clip]) each.release();
      });
    });
  }
  Deno.test("models of open_clip are compared in full", () => {
    assert(models.length > 0);
    assertEquals(compared.names.size, 3 * models.length);
    compared.report(
      `open_clip fixtures: ${compared.names.size} tensors of ${models.length} models`,
    );
  });
}
