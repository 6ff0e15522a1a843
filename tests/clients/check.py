"""Whether transformers, and PEFT with an adapter, have the features that octograd has.

python3 check.py FEATURES MODEL [ADAPTER], FEATURES being what features.ts wrote for the same.
"""

import sys

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

features, source, *adapter = sys.argv[1:]
expected = load_file(features)
model = CLIPModel.from_pretrained(source).float()
versions = f"transformers {transformers.__version__}, PyTorch {torch.__version__}"
if adapter:
    import peft

    model = peft.PeftModel.from_pretrained(model, adapter[0])
    versions += f", PEFT {peft.__version__}"
model.eval()

size = model.config.vision_config.image_size
context, vocabulary = (getattr(model.config.text_config, name) for name in ("max_position_embeddings", "vocab_size"))
count = 4
pixels = torch.tensor([((i * 37) % 101 - 50) / 32 for i in range(count * 3 * size**2)])
ids = [
    [
        vocabulary - 2 if at == 0 else 5 + (7 * at + 13 * row) % 500 if at < 4 + row else vocabulary - 1
        for at in range(context)
    ]
    for row in range(count)
]
with torch.no_grad():
    made = {
        "image_features": model.get_image_features(pixel_values=pixels.reshape(count, 3, size, size)),
        "text_features": model.get_text_features(input_ids=torch.tensor(ids)),
    }
worst = max(
    (getattr(values, "pooler_output", values) - expected[name]).abs().max().item()
    for name, values in made.items()
)
# What else such a program asks of a model's directory.
if not adapter:
    tokenizer, processor = AutoTokenizer.from_pretrained(source), AutoImageProcessor.from_pretrained(source)
    prompt = tokenizer(["a photo of a cat"], padding="max_length", max_length=context)["input_ids"][0]
    assert prompt[0] == vocabulary - 2 and prompt[-1] == vocabulary - 1, prompt
    assert processor.size["shortest_edge"] == size
print(f"{versions}: {worst:.1e} from {source}{' with ' + adapter[0] if adapter else ''}")
sys.exit(worst > 1e-4)
