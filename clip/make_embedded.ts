/**
 * Makes the embedded model from the float32 checkpoint of its training. It rounds the weights to
 * half precision and copies the files that Hugging Face's layout needs.
 *
 * `deno run -A clip/make_embedded.ts CHECKPOINT_DIRECTORY && deno fmt`
 *
 * @module
 */

import { SafetensorsFile } from "../tensor/safetensors.ts";
import { encodeSafetensors, type TensorToSave } from "../tensor/encode_safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";

/**
 * The files to copy. `tokenizer.json` is left out: it would only repeat the vocabulary and the
 * merges.
 */
const FILES = [
  "config.json",
  "preprocessor_config.json",
  "tokenizer_config.json",
  "vocab.json",
  "merges.txt",
];

/** Reads the checkpoint in the directory `from`, and writes the model into the directory `to`. */
export async function makeEmbedded(to: URL, from: URL): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for (const name of FILES) {
    const content = await Deno.readTextFile(new URL(name, from));
    const half = content.replace('"torch_dtype": "float32"', '"torch_dtype": "float16"');
    await Deno.writeTextFile(new URL(name, to), half);
  }
  const bytes = await Deno.readFile(new URL("model.safetensors", from));
  const file = await SafetensorsFile.open(bytesSource(bytes, "model.safetensors"));
  const tensors: Record<string, TensorToSave> = {};
  for (const { name, shape } of file.tensors.values()) {
    if (name.endsWith("position_ids")) continue; // a buffer of transformers: 0, 1, 2, …
    // The checkpoint stores a list of one number there, which transformers 5 rejects.
    const stored = name === "logit_scale" ? [] : shape;
    tensors[name] = { dtype: "F16", shape: stored, data: await file.floats(name) };
  }
  // transformers rejects a file that does not say which format it was written for.
  const half = encodeSafetensors(tensors, { format: "pt" });
  await Deno.writeFile(new URL("model.safetensors", to), half);
}

if (import.meta.main) {
  const [from] = Deno.args;
  if (from === undefined) {
    console.error("Usage: deno run -A clip/make_embedded.ts CHECKPOINT_DIRECTORY");
    Deno.exit(2);
  }
  const checkpoint = new URL(`${from.replace(/\/+$/, "")}/`, `file://${Deno.cwd()}/`);
  await makeEmbedded(new URL("./emoji-clip-tiny/", import.meta.url), checkpoint);
}
