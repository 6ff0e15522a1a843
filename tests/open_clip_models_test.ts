/** Models of open_clip, opened from its files. */

import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openModel } from "../blocklora/models/open_model.ts";
import type { Clip } from "../clip/clip.ts";
import { tensor } from "../tensor/create.ts";
import { encodeSafetensors } from "../tensor/encode_safetensors.ts";
import { scope } from "../tensor/scope.ts";
import { withDirectory } from "./cli.ts";
import { encodeTorch } from "./encode_torch.ts";
import { fixtures, shared, skip } from "./fixtures.ts";
import { gpuTest } from "./gpu.ts";
import { CONFIG, EMBEDDED, logitsOf, OTHERS, PROCESSOR, WEIGHTS, withModels } from "./models.ts";
import {
  byOpenaiNames,
  Comparison,
  directoriesIn,
  openedClip,
  openSafetensors,
  readJson,
} from "./reference.ts";

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
          // Beside it are the files that timm reads, and those that transformers reads.
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

      // Its configuration counts, not the defaults of OpenAI's models, in a directory or beside a
      // file.
      const changed = openClipConfig({
        model: { quick_gelu: false },
        preprocess: { mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] },
      });
      const files = { "open_clip_model.safetensors": encodeSafetensors(plain) };
      for (const name of ["", "open_clip_model.safetensors"]) {
        const opened = await open({ ...files, "open_clip_config.json": changed }, gone, name);
        assertEquals((opened.model as Clip).config.vision.activation, "gelu");
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
        // The file is opened alone: beside it is the same model in Hugging Face's layout.
        for (const file of ["open_clip_config.json", "open_clip_model.safetensors"]) {
          await Deno.copyFile(new URL(file, directory), join(copy, file));
        }
        const { clip } = await openedClip(copy, { tokenizer: fileURLToPath(tokenizer) });
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
