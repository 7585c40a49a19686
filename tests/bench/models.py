#!/usr/bin/env python3
"""CLIP encoders and heads with random weights, in the layouts of Sluice and of NeMo Curator.

    python3 tests/bench/models.py

Speed does not depend on the weights' values, so these models have the published architectures and random weights. They are
in .cache/bench/models:

    clip-vit-b32/       model.onnx, model.toml                      ViT-B/32, 512 values
    clip-vit-b32-768/   the same, 768 values, for NeMo Curator's heads
    clip-vit-l14/       model.onnx, model.onnx.data, model.toml     ViT-L/14, 768 values
    tiny/               model.onnx, model.toml                      a convolution, 768 values, for benchmarks of other parts
    aesthetic-mlp-*/  aesthetic-affine-*/  nsfw-*/                  heads as LAION's V2, V1 and NSFW, of the encoders l14,
                                                                    b32 (that of 768 values) and tiny
    nemo/b32/  nemo/l14/                                            the 768-value encoders and the heads, as torch files
"""

import json
import shutil
import subprocess
import sys

from paired import BENCH, ROOT, inside

MODELS = BENCH / "models"
# The names of 768-value encoders in their heads' names and in NeMo's folders.
SHORT = {"clip-vit-b32-768": "b32", "clip-vit-l14": "l14", "tiny": "tiny"}
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

B32 = {
    "text": dict(hidden_size=512, intermediate_size=2048, num_attention_heads=8, num_hidden_layers=12),
    "vision": dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, patch_size=32),
}
L14 = {
    "text": dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12),
    "vision": dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24, patch_size=14),
}
ARCHITECTURES = {"clip-vit-b32": (B32, 512), "clip-vit-b32-768": (B32, 768), "clip-vit-l14": (L14, 768)}

ENCODER = f"""\
name = "{{name}}"
kind = "embedder"
licence = "none needed"
origin = "random weights, tests/bench/models.py"
output = "image_embeds"
dimension = {{dimension}}

[preprocess]
resize = {{{{ shortest-edge = 224 }}}}
filter = "bicubic"
crop = {{{{ width = 224, height = 224 }}}}
mean = {MEAN}
std = {STD}
"""

HEAD = """\
name = "{name}"
kind = "head"
licence = "none needed"
origin = "random weights, tests/bench/models.py"
dimension = 768
embedder = "{embedder}"

[score]
range = [{low}, {high}]
threshold = {threshold}
"""

# Widths of the layers, and the functions between them and after the last one.
HEADS = {
    "aesthetic-affine": ((768, 1), None, None),
    "aesthetic-mlp": ((768, 1024, 128, 64, 16, 1), None, None),
    "nsfw": ((768, 64, 512, 256, 1), "ReLU", "Sigmoid"),
}


def main():
    inside("nemo")
    for name, (architecture, dimension) in ARCHITECTURES.items():
        if not done(MODELS / name):
            encoder(name, architecture, dimension)
    if not done(MODELS / "tiny"):
        tiny()
    for embedder, short in SHORT.items():
        for head in HEADS:
            if not done(MODELS / f"{head}-{short}"):
                export_head(head, f"{head}-{short}", embedder)
        if short != "tiny":
            nemo_heads(MODELS / "nemo" / short)


def done(folder):
    """Returns whether a model is complete: its spec is written last."""
    return (folder / "model.toml").exists()


def encoder(name, architecture, dimension):
    import onnx
    import torch
    from transformers import CLIPConfig, CLIPModel

    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    text, vision = ({**architecture[tower], "projection_dim": dimension} for tower in ("text", "vision"))
    config = CLIPConfig(text_config=text, vision_config={**vision, "image_size": 224}, projection_dim=dimension)
    model = CLIPModel(config).eval()
    if name in SHORT:
        nemo_encoder(model, MODELS / "nemo" / SHORT[name] / "openai/clip-vit-large-patch14")

    class Vision(torch.nn.Module):
        """The image tower with its projection."""

        def __init__(self):
            super().__init__()
            self.tower, self.projection = model.vision_model, model.visual_projection

        def forward(self, pixel_values):
            return self.projection(self.tower(pixel_values=pixel_values).pooler_output)

    with torch.no_grad():
        export(Vision().eval(), torch.randn(2, 3, 224, 224), "pixel_values", "image_embeds", folder / "whole.onnx")
    graph = onnx.load(folder / "whole.onnx")
    if name == "clip-vit-l14":
        # Weights in a separate file can be mapped into memory.
        onnx.save_model(graph, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    else:
        onnx.save_model(graph, folder / "model.onnx")
    (folder / "whole.onnx").unlink()
    subprocess.run([sys.executable, ROOT / "shared/model/convert/int8.py", folder], check=True)
    (folder / "model.toml").write_text(ENCODER.format(name=name, dimension=dimension))
    print(folder)


def tiny():
    import torch

    folder = MODELS / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    steps = [torch.nn.Conv2d(3, 64, 32, 32), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 768)]
    network = torch.nn.Sequential(*steps).eval()
    export(network, torch.randn(2, 3, 224, 224), "pixel_values", "image_embeds", folder / "model.onnx")
    (folder / "model.toml").write_text(ENCODER.format(name="tiny", dimension=768))
    print(folder)


def export(module, example, input_name, output_name, path):
    import torch

    names = {"input_names": [input_name], "output_names": [output_name]}
    rows = {input_name: {0: "N"}, output_name: {0: "N"}}
    torch.onnx.export(module, (example,), str(path), **names, dynamic_axes=rows, opset_version=17, dynamo=False)


def nemo_encoder(model, folder):
    """Writes the encoder where NeMo Curator looks for openai/clip-vit-large-patch14, so that it downloads nothing."""
    from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    # A vocabulary of letters: the processor requires a tokenizer, although images do not need it.
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizerFast(vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt"))
    size, crop = {"shortest_edge": 224}, {"height": 224, "width": 224}
    images = CLIPImageProcessor(size=size, crop_size=crop, resample=3, image_mean=MEAN, image_std=STD)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


def layers(head):
    """Returns the linear layers of a head, the same in every call."""
    import torch

    torch.manual_seed(1)
    widths = HEADS[head][0]
    return [torch.nn.Linear(taken, given) for taken, given in zip(widths, widths[1:])]


def head_network(head):
    """Returns a head for torch: it takes embeddings of length 1 and returns a score."""
    import torch

    class Standardise(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(768))
            self.register_buffer("std", torch.ones(768))

        def forward(self, x):
            return (x - self.mean) / self.std

    _, between, last = HEADS[head]
    steps = [Standardise()] if head == "nsfw" else []
    for layer in layers(head):
        steps += [layer, getattr(torch.nn, between)()] if between else [layer]
    if last:
        steps[-1] = getattr(torch.nn, last)()
    return torch.nn.Sequential(*steps).eval()


def export_head(head, name, embedder):
    import torch

    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    export(head_network(head), torch.randn(2, 768), "embedding", "score", folder / "model.onnx")
    low, high, threshold = (0.0, 1.0, 0.5) if head == "nsfw" else (1.0, 10.0, 5.0)
    spec = HEAD.format(name=name, embedder=embedder, low=low, high=high, threshold=threshold)
    (folder / "model.toml").write_text(spec)
    print(folder)


def nemo_heads(root):
    """Writes the heads in the format of NeMo Curator's stages."""
    import torch
    from safetensors.torch import save_file

    aesthetic = root / "ttj/sac-logos-ava1-l14-linearMSE/model.safetensors"
    nsfw = root / "laion/clip-autokeras-binary-nsfw/clip_autokeras_binary_nsfw.pth"
    aesthetic.parent.mkdir(parents=True, exist_ok=True)
    nsfw.parent.mkdir(parents=True, exist_ok=True)
    # The published head has dropouts between its layers, which also have numbers.
    state = {}
    for number, layer in zip((0, 2, 4, 6, 7), layers("aesthetic-mlp")):
        state |= {f"layers.{number}.{key}": value.detach() for key, value in layer.state_dict().items()}
    save_file(state, str(aesthetic))
    state = {"norm.mean": torch.zeros(768), "norm.variance": torch.ones(768)}
    for number, layer in enumerate(layers("nsfw"), 1):
        state |= {f"linear_{number}.{key}": value.detach() for key, value in layer.state_dict().items()}
    torch.save(state, nsfw)


if __name__ == "__main__":
    sys.exit(main())
