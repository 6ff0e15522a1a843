/**
 * Makes the embedded model from the float32 checkpoint that it was trained as: weights rounded to half precision, the
 * files that Hugging Face's layout needs. `deno run -A clip/make_embedded.ts CHECKPOINT_DIRECTORY`
 *
 * @module
 */

import {
  bytesSource,
  encodeSafetensors,
  SafetensorsFile,
  type TensorToSave,
} from "../tensor/safetensors.ts";

/** What is copied as it is. `tokenizer.json` would say again what the vocabulary and the merges say. */
const FILES = ["config.json", "preprocessor_config.json", "vocab.json", "merges.txt"];

if (import.meta.main) {
  const [from] = Deno.args;
  const to = new URL("./emoji-clip-tiny/", import.meta.url);
  await Deno.mkdir(to, { recursive: true });
  for (const name of FILES) {
    const content = await Deno.readTextFile(`${from}/${name}`);
    await Deno.writeTextFile(new URL(name, to), content.replace('"float32"', '"float16"'));
  }
  const bytes = await Deno.readFile(`${from}/model.safetensors`);
  const file = await SafetensorsFile.open(bytesSource(bytes, "model.safetensors"));
  const tensors: Record<string, TensorToSave> = {};
  for (const { name, shape } of file.tensors.values()) {
    if (name.endsWith("position_ids")) continue;
    tensors[name] = { dtype: "F16", shape, data: await file.floats(name) };
  }
  const half = encodeSafetensors(tensors, { format: "pt" });
  await Deno.writeFile(new URL("model.safetensors", to), half);
  console.log(`${Object.keys(tensors).length} tensors, ${half.length} bytes`);
}
