"""Published configurations, one for each class of processor and each variant that differs."""

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
DO = {"do_normalize": True, "do_resize": True}
NEW = DO | {"do_rescale": True, "rescale_factor": 1 / 255}


def square(side):
    return {"height": side, "width": side}


def edge(side):
    return {"shortest_edge": side}


def kind(name, **keys):
    return {"image_processor_type": f"{name}ImageProcessor"} | keys


def fast(config):
    """Returns the same configuration with the class that resizes with torchvision."""
    return config | {"image_processor_type": config["image_processor_type"] + "Fast"}


def of(side, crop=None):
    """Returns all configurations for pictures of `side`, or of `crop` if a class crops."""
    crop = crop or side * 7 // 8
    clip = kind("CLIP", size=edge(side), crop_size=square(side), do_center_crop=True, resample=3, do_convert_rgb=True) | NEW | CLIP
    siglip = kind("Siglip", size=square(side), resample=3, processor_class="SiglipProcessor") | NEW | HALF
    dinov2 = kind("Bit", size=edge(side), crop_size=square(crop), do_center_crop=True, resample=3) | NEW | IMAGENET
    vit = kind("ViT", size=square(side), resample=2) | NEW | HALF
    convnext = kind("ConvNext", size=edge(crop), crop_pct=0.875, resample=3) | NEW | IMAGENET
    efficientnet = (
        kind("EfficientNet", size=square(side), crop_size=square(crop), do_center_crop=False, resample=0)
        | kind("EfficientNet", include_top=True, rescale_offset=False)
        | NEW
        | {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.47853944, 0.4732864, 0.47434163]}
    )
    mobilevit = kind("MobileViT", size=edge(side), crop_size=square(crop), do_center_crop=True, resample=2)
    mobilevit |= {"do_flip_channel_order": True, "do_resize": True, "do_rescale": True}
    mobilenet = kind("MobileNetV2", size=edge(side), crop_size=square(crop), do_center_crop=True, resample=2) | NEW | HALF
    levit = kind("Levit", size=edge(crop), crop_size=square(crop), do_center_crop=True, resample=3) | NEW | IMAGENET
    beit = kind("Beit", size=square(side), crop_size=square(crop), do_center_crop=True, resample=3) | NEW | HALF
    return {
        "clip": clip,
        "clip-old": {"feature_extractor_type": "CLIPFeatureExtractor", "size": side, "crop_size": side} | {"resample": 3, "do_center_crop": True} | DO | CLIP,
        "clip-fast": fast(clip),
        "clip-stretched": clip | {"size": square(side)},
        "siglip": siglip,
        "siglip2": siglip | {"resample": 2, "do_convert_rgb": None},
        "siglip-fast": fast(siglip),
        "dinov2": dinov2,
        "dinov2-fast": fast(dinov2),
        "dinov2-lanczos": dinov2 | {"resample": 1},
        "vit": vit,
        "vit-old": {"feature_extractor_type": "ViTFeatureExtractor", "size": side, "resample": 2} | DO | HALF,
        "vit-defaults": kind("ViT", size=square(side)),
        "vit-fast": fast(vit),
        "vit-raw": vit | {"do_rescale": False, "do_normalize": False},
        "swin": {"feature_extractor_type": "ViTFeatureExtractor", "size": side, "resample": 3} | DO | IMAGENET,
        "deit": {"feature_extractor_type": "DeiTFeatureExtractor", "size": side, "crop_size": crop, "resample": 3, "do_center_crop": True} | DO | IMAGENET,
        "deit-fast": kind("DeiT", size=square(side), crop_size=square(crop), resample=3, do_center_crop=True) | NEW | IMAGENET | {"image_processor_type": "DeiTImageProcessorFast"},
        "beit": beit,
        "beit-fast": fast(beit),
        "beit-uncropped": beit | {"do_center_crop": False},
        "convnext": convnext,
        "convnext-old": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": crop, "crop_pct": 0.875, "resample": 3} | DO | IMAGENET,
        "convnext-fast": fast(convnext),
        "convnext-384": convnext | {"size": edge(384)},
        "efficientnet": efficientnet,
        "efficientnet-fast": fast(efficientnet),
        "efficientnet-offset": efficientnet | {"rescale_offset": True, "include_top": False, "resample": 2, "rescale_factor": 1 / 127.5},
        "efficientnet-cropped": efficientnet | {"do_center_crop": True, "do_normalize": False},
        "mobilevit": mobilevit,
        "mobilevit-fast": fast(mobilevit),
        "mobilevit-rgb": mobilevit | {"do_flip_channel_order": False},
        "mobilenetv2": mobilenet,
        "mobilenetv2-fast": fast(mobilenet),
        "mobilenetv1": mobilenet | {"image_processor_type": "MobileNetV1ImageProcessor"},
        "levit": levit,
        "levit-fast": fast(levit),
        "pvt": kind("Pvt", size=square(side)),
        "blip": kind("Blip", size=square(side)),
    }


def timm(side):
    """Returns a `pretrained_cfg` of timm."""
    base = {"input_size": [3, side, side], "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
    base |= {"mean": IMAGENET["image_mean"], "std": IMAGENET["image_std"], "num_classes": 0, "pool_size": [7, 7], "first_conv": "conv_stem"}
    return {
        "timm": base,
        "timm-bilinear": base | {"interpolation": "bilinear", "crop_pct": 0.875, "mean": [0.5] * 3, "std": [0.5] * 3},
        "timm-squash": base | {"crop_mode": "squash", "crop_pct": 1.0},
        "timm-squash-cropped": base | {"crop_mode": "squash", "crop_pct": 0.95},
        "timm-whole": base | {"crop_pct": 1.0},
        "timm-defaults": {"input_size": [3, side, side]},
    }


def open_clip(side):
    """Returns an `open_clip_config.json`."""
    model = {"embed_dim": 32, "vision_cfg": {"image_size": side, "layers": 2}}
    part = {"mean": CLIP["image_mean"], "std": CLIP["image_std"], "interpolation": "bicubic", "resize_mode": "shortest"}
    return {
        "open_clip": {"model_cfg": model, "preprocess_cfg": part},
        "open_clip-defaults": {"model_cfg": model},
        "open_clip-squash": {"model_cfg": model, "preprocess_cfg": part | {"resize_mode": "squash", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}},
    }
