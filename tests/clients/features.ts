/**
 * Writes what octograd makes of fixed inputs with a model or an adapter, for `check.py` to compare.
 *
 * `deno run -A tests/clients/features.ts OUTPUT MODEL [ADAPTER]`
 *
 * @module
 */

import { openChosen } from "../../blocklora/models/chosen_model.ts";
import { openAdapted } from "../../blocklora/training/adapted_model.ts";
import { Console } from "../../blocklora/system/console.ts";
import { userPath } from "../../blocklora/system/user_path.ts";
import { tensor } from "../../tensor/create.ts";
import { shutDown } from "../../tensor/device.ts";
import { encodeSafetensors, type TensorToSave } from "../../tensor/encode_safetensors.ts";
import { scope } from "../../tensor/scope.ts";

const [output, model, adapter] = Deno.args;
const chosen = {
  ...{ model, revision: undefined, offline: false, tokenizer: undefined },
  precision: "f32" as const,
};
const console = new Console(true);
const { model: clip } = adapter === undefined
  ? await openChosen(chosen, console)
  : await openAdapted(userPath(adapter), chosen, console);

const { imageSize } = clip.vision;
const { context, vocabulary } = clip.text!;
const images = 4;
const pixels = Float32Array.from(
  { length: images * 3 * imageSize ** 2 },
  (_, i) => ((i * 37) % 101 - 50) / 32,
);
// A start, words, and the end again and again, as the tokenizers of these models pad.
const ids = Int32Array.from({ length: images * context }, (_, i) => {
  const [row, at] = [Math.floor(i / context), i % context];
  if (at === 0) return vocabulary - 2;
  return at < 4 + row ? 5 + (7 * at + 13 * row) % 500 : vocabulary - 1;
});
const prompts = clip.text!.prompts(ids, images);
const features = {
  image_features: scope(() =>
    clip.imageFeatures(tensor(pixels, [images, 3, imageSize, imageSize]))
  ),
  text_features: clip.textFeatures(prompts),
};
const tensors: Record<string, TensorToSave> = {};
for (const [name, made] of Object.entries(features)) {
  const data = await made.data() as Float32Array<ArrayBuffer>;
  tensors[name] = { dtype: "F32", shape: made.shape, data };
}
await Deno.writeFile(output, encodeSafetensors(tensors));
shutDown();
