"""Models with random weights, exported as users do. They have few layers, because only the first and last ones differ."""

import json
import math
import shutil

import torch

import processors

ALL = processors.of(224) | {"dinov2": processors.of(256, 224)["dinov2"], "deit": processors.of(256, 224)["deit"]}
ALL |= {name: config for name, config in processors.of(256, 224).items() if name.startswith(("beit", "convnext", "mobilenet", "levit"))}
ALL |= {name: config for name, config in processors.of(288, 256).items() if name.startswith("mobilevit")}
TIMM, OPEN_CLIP = processors.timm(224), processors.open_clip(224)

VIT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
TOWER = VIT | {"image_size": 224, "patch_size": 32}
TEXT = VIT | {"vocab_size": 1000, "max_position_embeddings": 64}


def lively(model, seed=0):
    """Sets weights for which the embeddings of different pictures differ."""
    torch.manual_seed(seed)
    for name, weights in model.named_parameters():
        if weights.dim() >= 2:
            torch.nn.init.normal_(weights, 0, 1 / math.sqrt(max(weights[0].numel(), 1)))
        elif name.endswith("bias"):
            torch.nn.init.normal_(weights, 0, 0.1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.8, 1.3)
            module.bias.data.normal_(0, 0.2)
    return model.eval()


def clip(projection=True, full=False):
    import transformers as T

    if full:
        return T.CLIPModel(T.CLIPConfig(text_config=TEXT | {"eos_token_id": 2}, vision_config=TOWER, projection_dim=32))
    tower = T.CLIPVisionConfig(**TOWER, projection_dim=32)
    return T.CLIPVisionModelWithProjection(tower) if projection else T.CLIPVisionModel(tower)


def siglip(full=False):
    import transformers as T

    if full:
        return T.SiglipModel(T.SiglipConfig(text_config=TEXT, vision_config=TOWER))
    return T.SiglipVisionModel(T.SiglipVisionConfig(**TOWER))


def of(name, labels=None, **config):
    """Returns a transformers model by the prefix of its classes' names; with labels, its classifier."""
    import transformers as T

    if labels:
        config |= {"id2label": dict(enumerate(labels)), "label2id": {label: at for at, label in enumerate(labels)}}
    config = getattr(T, f"{name}Config")(**config)
    return getattr(T, f"{name}ForImageClassification" if labels else f"{name}Model")(config)


NSFW = ["normal", "nsfw"]
#: name: (preprocessor_config.json, model, optimum's task, or the output that torch.onnx gives)
TRANSFORMERS = {
    "CLIP, image encoder": ("clip-old", clip, "image_embeds"),
    "CLIP, fast": ("clip-fast", clip, "image_embeds"),
    "CLIP, without its projection": ("clip", lambda: clip(projection=False), "feature-extraction"),
    "CLIP, whole": ("clip", lambda: clip(full=True), "zero-shot-image-classification"),
    "SigLIP, image encoder": ("siglip", siglip, "feature-extraction"),
    "SigLIP, fast": ("siglip-fast", siglip, "feature-extraction"),
    "SigLIP 2": ("siglip2", siglip, "feature-extraction"),
    "SigLIP, whole": ("siglip", lambda: siglip(full=True), "zero-shot-image-classification"),
    "DINOv2": ("dinov2", lambda: of("Dinov2", **VIT, image_size=224, patch_size=14), "feature-extraction"),
    "DINOv2, fast": ("dinov2-fast", lambda: of("Dinov2", **VIT, image_size=224, patch_size=14), "feature-extraction"),
    "ViT": ("vit", lambda: of("ViT", **VIT), "feature-extraction"),
    "ViT, 2021": ("vit-old", lambda: of("ViT", **VIT), "feature-extraction"),
    "ViT, fast": ("vit-fast", lambda: of("ViT", **VIT), "feature-extraction"),
    "Swin": ("swin", lambda: of("Swin", embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), "feature-extraction"),
    "DeiT": ("deit", lambda: of("DeiT", **VIT), "feature-extraction"),
    "BEiT": ("beit", lambda: of("Beit", **VIT), "feature-extraction"),
    "ConvNeXt": ("convnext-old", lambda: of("ConvNext", depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 64, 96]), "feature-extraction"),
    "ConvNeXt, fast": ("convnext-fast", lambda: of("ConvNext", depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 64, 96]), "feature-extraction"),
    "ConvNeXt, 384": ("convnext-384", lambda: of("ConvNext", depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 64, 96]), "feature-extraction"),
    "ResNet": ("convnext", lambda: of("ResNet", depths=[1, 1, 1, 1], hidden_sizes=[32, 64, 96, 128], embedding_size=16), "feature-extraction"),
    "LeViT": ("levit", lambda: of("Levit", depths=[1, 1, 1]), "feature-extraction"),
    "MobileNetV1": ("mobilenetv1", lambda: of("MobileNetV1", depth_multiplier=0.5), "feature-extraction"),
    "MobileNetV2": ("mobilenetv2", lambda: of("MobileNetV2", NSFW), "image-classification"),
    "MobileViT": ("mobilevit", lambda: of("MobileViT", NSFW), "image-classification"),
    "EfficientNet": ("efficientnet", lambda: of("EfficientNet", NSFW, image_size=224, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280), "image-classification"),
    "EfficientNet, fast": ("efficientnet-fast", lambda: of("EfficientNet", NSFW, image_size=224, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280), "image-classification"),
    "ViT, normal and nsfw (Falconsai)": ("vit", lambda: of("ViT", NSFW, **VIT), "image-classification"),
    "ViT, sfw and nsfw (AdamCodd)": ("vit", lambda: of("ViT", ["sfw", "nsfw"], **VIT), "image-classification"),
    "BEiT, aesthetic and not_aesthetic (cafe_aesthetic)": ("beit", lambda: of("Beit", ["not_aesthetic", "aesthetic"], **VIT), "image-classification"),
    "ViT, neutral to high (Freepik)": ("vit", lambda: of("ViT", ["neutral", "low", "medium", "high"], **VIT), "image-classification"),
    "Swin, five labels": ("swin", lambda: of("Swin", ["drawings", "hentai", "neutral", "porn", "sexy"], embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8]), "image-classification"),
    "ViT, LABEL_0 and LABEL_1": ("vit", lambda: of("ViT", ["LABEL_0", "LABEL_1"], **VIT), "image-classification"),
}
#: name: (pretrained_cfg, architecture, labels)
TIMMS = {
    "timm EfficientNet": ("timm", "efficientnet_lite0", None),
    "timm ResNet, bilinear": ("timm-bilinear", "resnet10t", None),
    "timm ViT, squash": ("timm-squash", "vit_tiny_patch16_224", None),
    "timm ViT, whole": ("timm-whole", "vit_tiny_patch16_224", None),
    "timm ViT, NSFW and SFW (Marqo)": ("timm-squash", "vit_tiny_patch16_224", ["NSFW", "SFW"]),
}
#: name: open_clip_config.json
OPEN_CLIPS = {"open_clip ViT": "open_clip", "open_clip ViT, squash": "open_clip-squash"}


def transformers_model(name, folder):
    """Exports with optimum, or one output with torch; returns the model."""
    from optimum.exporters.onnx import main_export

    config, make, task = TRANSFORMERS[name]
    model, saved = lively(make()), folder.with_name(folder.name + ".saved")
    if task == "image_embeds":
        export(Output(model, task), folder, task)
        model.config.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(ALL[config]))
        return model
    model.save_pretrained(saved)
    (saved / "preprocessor_config.json").write_text(json.dumps(ALL[config]))
    main_export(str(saved), str(folder), task=task, do_validation=False)
    shutil.copy(saved / "preprocessor_config.json", folder)
    shutil.rmtree(saved)
    return model


class Output(torch.nn.Module):
    """A model with one of its outputs."""

    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, pixels):
        return getattr(self.model(pixels), self.name)


def timm_model(name, folder):
    """Exports with torch, with the config.json that timm's push_to_hf_hub writes."""
    import timm

    config, architecture, labels = TIMMS[name]
    model = lively(timm.create_model(architecture, pretrained=False, num_classes=len(labels or [])))
    export(model, folder, "logits" if labels else "embedding")
    stated = {"architecture": architecture, "num_classes": len(labels or []), "num_features": model.num_features}
    stated |= {"pretrained_cfg": TIMM[config] | {"num_classes": len(labels or [])}} | ({"label_names": labels} if labels else {})
    (folder / "config.json").write_text(json.dumps(stated))
    return model


def open_clip_model(name, folder):
    import open_clip

    tower = {"image_size": 224, "layers": 2, "width": 64, "head_width": 16, "patch_size": 32}
    text = {"context_length": 16, "vocab_size": 1000, "width": 64, "heads": 4, "layers": 1}
    model = lively(open_clip.CLIP(embed_dim=32, vision_cfg=tower, text_cfg=text).visual)
    export(model, folder, "image_features")
    (folder / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP[OPEN_CLIPS[name]]))
    return model


def export(model, folder, output, side=224):
    """Calls `torch.onnx.export` with a dynamic number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    free = {"pixel_values": {0: "n"}, output: {0: "n"}}
    torch.onnx.export(
        model, (torch.randn(2, 3, side, side),), str(folder / "model.onnx"), input_names=["pixel_values"],
        output_names=[output], dynamic_axes=free, opset_version=17, dynamo=False,
    )


def make(name, folder):
    for table, maker in [(TRANSFORMERS, transformers_model), (TIMMS, timm_model), (OPEN_CLIPS, open_clip_model)]:
        if name in table:
            return maker(name, folder)
    raise KeyError(name)
