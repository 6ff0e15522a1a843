/**
 * Loads a model and adapters from a directory in a separate process, and prints the logits as JSON.
 * The argument is the directory.
 */

import { loadAdapters } from "../blocklora/methods/lookup.ts";
import { Clip } from "../clip/clip.ts";
import { init } from "../tensor/device.ts";
import { tensor } from "../tensor/create.ts";
import { SafetensorsFile } from "../tensor/safetensors.ts";
import { bytesSource } from "../tensor/tensor_file.ts";

const [directory] = Deno.args;
const readJson = async (name: string) =>
  JSON.parse(await Deno.readTextFile(`${directory}/${name}`));
const open = async (name: string) =>
  await SafetensorsFile.open(bytesSource(await Deno.readFile(`${directory}/${name}`), name));

await init();
const clip = await Clip.load(await readJson("sizes.json"), [await open("model.safetensors")]);
const { adapters, extra } = await loadAdapters(
  clip,
  await open("adapter_model.safetensors"),
  await readJson("adapter_config.json"),
);
const { pixels, shape, ids, rows } = await readJson("inputs.json");
const images = clip.imageFeatures(tensor(Float32Array.from(pixels), shape));
const texts = clip.textFeatures(clip.text.prompts(Int32Array.from(ids), rows));
const logits = Array.from(await clip.logits(images, texts, 100).data());
console.log(JSON.stringify({ logits, extra, config: adapters.config }));
