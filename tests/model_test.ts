import { assertEquals, assertThrows } from "@std/assert";
import { emptyModel } from "../blocklora/cost/models.ts";
import { attach } from "../blocklora/methods/lookup.ts";
import { DEFAULT_ADAPTER } from "../blocklora/methods/adapter_config.ts";
import { classPrompts } from "../blocklora/training/classifier.ts";
import { sites } from "../blocklora/methods/sites.ts";
import { CLIP_FAMILY } from "../clip/clip.ts";
import { FAMILIES, familyOf } from "../clip/families.ts";
import type { Model, ModelDefinition } from "../clip/model.ts";
import { Tokenizer } from "../clip/tokenizer.ts";
import { VisionTower } from "../clip/vision.ts";
import { onDryEngine } from "../tensor/device.ts";
import { TINY } from "./reference.ts";

Deno.test("familyOf() finds a model's family by its model_type", () => {
  assertEquals(familyOf({ model_type: "clip" }), CLIP_FAMILY);
  for (const other of [{ model_type: "bert" }, { model_type: "toString" }, {}, null, "clip", []]) {
    assertEquals(familyOf(other), null);
  }
  const types = FAMILIES.map(({ modelType }) => modelType);
  assertEquals(new Set(types).size, types.length);
});

/** A model of images alone, as DINOv2 is: everything that a new tower has to define. */
const IMAGES_ALONE: ModelDefinition = {
  config: TINY.vision,
  imageSize: TINY.vision.imageSize,
  context: null,
  build(weights): Model {
    const vision = new VisionTower(weights, TINY.vision, TINY.embedding);
    const none = () => {
      throw new TypeError("Cannot compare images with texts: the model has no text tower");
    };
    return {
      ...{ vision, text: null, weights, definition: IMAGES_ALONE, precision: "f32" },
      embedding: TINY.embedding,
      imageFeatures: (pixels, pass) => vision.forward(pixels, pass),
      textFeatures: none,
      logits: none,
      release: () => weights.release(),
    };
  },
};

Deno.test("a model of images alone is adapted without texts", () => {
  onDryEngine({}, () => {
    const model = emptyModel(IMAGES_ALONE);
    assertEquals(model.weights.names.every((name) => /^vis(ion|ual)_/.test(name)), true);
    assertEquals(sites(model), model.vision.linears);
    const adapters = attach(model, DEFAULT_ADAPTER, 1);
    assertEquals(adapters.byModule.size, 3 * TINY.vision.layers);
    assertEquals([adapters.changes("vision"), adapters.changes("text")], [true, false]);
    adapters.release();
    const onText = () => attach(model, { ...DEFAULT_ADAPTER, encoder: "text" }, 1);
    assertThrows(onText, RangeError, "Cannot adapt the text tower: the model has none");
    const tokenizer = Tokenizer.fromVocabulary(
      { "<|startoftext|>": 0, "<|endoftext|>": 1 },
      "#version: 0.2\n",
    );
    const encode = () => classPrompts(model, tokenizer, ["a"], "a {}.");
    assertThrows(encode, TypeError, "the model has no text tower");
    model.release();
  });
});
