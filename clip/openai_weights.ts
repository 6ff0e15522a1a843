/**
 * The names of the weights in openai/CLIP's state dicts.
 *
 * @module
 */

/**
 * Where to find a weight in an OpenAI state dict: in a tensor, in one third of its rows, or in its
 * transpose.
 */
export interface WeightLocation {
  readonly name: string;
  readonly third?: 0 | 1 | 2;
  readonly transposed?: boolean;
}

const OPENAI_FIXED: Readonly<Record<string, WeightLocation>> = {
  "logit_scale": { name: "logit_scale" },
  "vision_model.embeddings.class_embedding": { name: "visual.class_embedding" },
  "vision_model.embeddings.patch_embedding.weight": { name: "visual.conv1.weight" },
  "vision_model.embeddings.position_embedding.weight": { name: "visual.positional_embedding" },
  "vision_model.pre_layrnorm.weight": { name: "visual.ln_pre.weight" },
  "vision_model.pre_layrnorm.bias": { name: "visual.ln_pre.bias" },
  "vision_model.post_layernorm.weight": { name: "visual.ln_post.weight" },
  "vision_model.post_layernorm.bias": { name: "visual.ln_post.bias" },
  "visual_projection.weight": { name: "visual.proj", transposed: true },
  "text_model.embeddings.token_embedding.weight": { name: "token_embedding.weight" },
  "text_model.embeddings.position_embedding.weight": { name: "positional_embedding" },
  "text_model.final_layer_norm.weight": { name: "ln_final.weight" },
  "text_model.final_layer_norm.bias": { name: "ln_final.bias" },
  "text_projection.weight": { name: "text_projection", transposed: true },
};

const OPENAI_PARTS: Readonly<Record<string, string>> = {
  "layer_norm1": "ln_1",
  "layer_norm2": "ln_2",
  "self_attn.out_proj": "attn.out_proj",
  "mlp.fc1": "mlp.c_fc",
  "mlp.fc2": "mlp.c_proj",
};

/**
 * Where to find the weight that Hugging Face calls `name` in openai/CLIP's state dict. In models
 * with open_clip's `custom_text`, `text` is `"text."`: the names of the text tower's weights are
 * the same, but begin with it.
 */
export function openaiSource(name: string, text: "" | "text." = ""): WeightLocation {
  const block = /^(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name);
  if (!block) {
    const source = OPENAI_FIXED[name];
    return name.startsWith("text_") ? { ...source, name: text + source.name } : source;
  }
  const [, tower, layer, layerName, kind] = block;
  const base = `${tower === "vision" ? "visual." : text}transformer.resblocks.${layer}`;
  const third = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].indexOf(layerName);
  if (third >= 0) return { name: `${base}.attn.in_proj_${kind}`, third: third as 0 | 1 | 2 };
  return { name: `${base}.${OPENAI_PARTS[layerName]}.${kind}` };
}

/** Whether these are the names of openai/CLIP. */
export function isOpenai(names: Iterable<string>): boolean {
  return [...names].includes("visual.conv1.weight");
}
