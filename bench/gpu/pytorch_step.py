"""PyTorch's float32 step of what steps.ts trains.

That is Block-LoRA (8,4) on q, k and v of both of CLIP's towers, with 32 images. Run it as
`python3 pytorch_step.py [cuda|cpu] [--minutes N]`. The weights are random, TensorFloat-32 is off,
attention is fused if this PyTorch has that, and nothing is compiled. A step begins with images on
the host.
"""

import gc
import math
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    print(f"no comparison: {error}")
    sys.exit()

RANK, BLOCKS, DROPOUT, BATCH, CONTEXT, VOCABULARY = 8, 4, 0.25, 32, 77, 49408
# Tokens of the longest of ImageNet's prompts, as in blocklora/cost/imagenet.ts. All prompts are
# padded to it.
LONGEST = 18


class BlockLora(nn.Module):
    """A frozen layer, and blocks of up-projections that share a down-projection."""

    def __init__(self, width):
        super().__init__()
        inner = RANK // BLOCKS
        weight = torch.randn(width, width) / math.sqrt(width)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.down = nn.Parameter(torch.randn(inner, width) / math.sqrt(width))
        ups = [nn.Parameter(torch.zeros(width, inner)) for _ in range(BLOCKS)]
        self.ups = nn.ParameterList(ups)
        self.scale = 1 / math.sqrt(RANK)

    def forward(self, x):
        up = torch.stack(tuple(self.ups)).sum(0)
        delta = F.linear(F.linear(F.dropout(x, DROPOUT), self.down), up)
        return F.linear(x, self.weight, self.bias) + self.scale * delta


class Block(nn.Module):
    """A residual block of CLIP: a norm comes before the attention and before the MLP."""

    def __init__(self, width, causal):
        super().__init__()
        self.heads, self.causal = width // 64, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v = BlockLora(width), BlockLora(width), BlockLora(width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.norm1, self.norm2, self.out, self.up, self.down):
            layer.requires_grad_(False)

    def attend(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, 64)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        if hasattr(F, "scaled_dot_product_attention"):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = q @ k.transpose(-1, -2) / 8
            if self.causal:
                scores = scores + torch.full(scores.shape[-2:], -math.inf, device=x.device).triu(1)
            y = scores.softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))

    def forward(self, x):
        x = x + self.attend(self.norm1(x))
        h = self.up(self.norm2(x))
        return x + self.down(h * torch.sigmoid(1.702 * h))


class Clip(nn.Module):
    """Both towers of a ViT-B."""

    def __init__(self, patch):
        super().__init__()
        tokens = (224 // patch) ** 2 + 1
        frozen = lambda *shape: nn.Parameter(0.02 * torch.randn(*shape), requires_grad=False)
        self.patches = nn.Conv2d(3, 768, patch, patch, bias=False).requires_grad_(False)
        self.token, self.positions = frozen(768), frozen(tokens, 768)
        self.pre, self.post, self.final = (
            nn.LayerNorm(width).requires_grad_(False) for width in (768, 768, 512)
        )
        self.image_blocks = nn.Sequential(*(Block(768, False) for _ in range(12)))
        self.words, self.text_positions = frozen(VOCABULARY, 512), frozen(CONTEXT, 512)
        self.text_blocks = nn.Sequential(*(Block(512, True) for _ in range(12)))
        self.image_out, self.text_out = frozen(512, 768), frozen(512, 512)

    def forward(self, pixels, ids, ends):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), 1, -1), x], 1) + self.positions
        x = self.image_blocks(self.pre(x))
        images = F.normalize(F.linear(self.post(x[:, 0]), self.image_out), dim=-1)
        t = self.text_blocks(self.words[ids] + self.text_positions[: ids.shape[1]])
        t = self.final(t[torch.arange(len(t), device=t.device), ends])
        return 100 * images @ F.normalize(F.linear(t, self.text_out), dim=-1).T


def steps(patch, classes, device):
    """Seconds of the first step, milliseconds of a step, peak bytes, and trainable parameters."""
    torch.manual_seed(1)
    clip = Clip(patch).to(device)
    trained = [p for p in clip.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=1e-2)
    pixels, labels = torch.randn(BATCH, 3, 224, 224), torch.randint(classes, (BATCH,))
    ids = torch.randint(VOCABULARY, (classes, LONGEST), device=device)
    ends = torch.randint(7, LONGEST, (classes,), device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def step():
        start = time.perf_counter()
        logits, wanted = clip(pixels.to(device), ids, ends), labels.to(device)
        loss = F.cross_entropy(logits, wanted)
        hits = (logits.detach().argmax(-1) == wanted).float().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert math.isfinite(loss.item() + hits.item())
        return 1000 * (time.perf_counter() - start)

    first, times = step(), []
    while not times or (sum(times) < 3000 and len(times) < 20):
        times.append(step())
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else math.nan
    trainable = sum(p.numel() for p in trained)
    return first / 1000, sorted(times)[len(times) // 2], peak, trainable


def main():
    device = "cpu" if "cpu" in sys.argv else "cuda"
    minutes = float(sys.argv[sys.argv.index("--minutes") + 1]) if "--minutes" in sys.argv else 10
    end = time.perf_counter() + 60 * minutes
    if device == "cuda" and not torch.cuda.is_available():
        print("no comparison: PyTorch finds no CUDA device")
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    threads = f"{torch.get_num_threads()} threads of the CPU"
    name = torch.cuda.get_device_name() if device == "cuda" else threads
    print(f"PyTorch {torch.__version__}, float32 (TF32 off), {name}\n")
    print("| step                   | parameters | first, s |      ms | images/s | peak, MB |")
    print("| ---------------------- | ---------: | -------: | ------: | -------: | -------: |")
    for patch, classes in ((32, 100), (16, 100), (32, 1000), (16, 1000)):
        label = f"vit-b-{patch}, {classes} classes"
        if time.perf_counter() > end:
            print(f"| {label:22} | no time")
            continue
        try:
            first, ms, peak, trainable = steps(patch, classes, device)
        except RuntimeError as error:
            print(f"| {label:22} | {str(error).splitlines()[0]}", flush=True)
            continue
        finally:
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
        rest = f"{first:8.2f} | {ms:7.1f} | {1000 * BATCH / ms:8.1f} | {peak / 1e6:8.0f} |"
        print(f"| {label:22} | {trainable:10} | {rest}", flush=True)


main()
