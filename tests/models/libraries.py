"""The tensors of the libraries themselves."""

import json

import numpy as np


def tensors(folder, pictures):
    """Returns the tensors of Pillow images, by the processor that a folder's files describe."""
    if (folder / "preprocessor_config.json").exists() or (folder / "processor_config.json").exists():
        return by_transformers(folder, pictures)
    if (folder / "open_clip_config.json").exists():
        return by_open_clip(json.loads((folder / "open_clip_config.json").read_text()), pictures)
    return by_timm(json.loads((folder / "config.json").read_text())["pretrained_cfg"], pictures)


def by_transformers(folder, pictures):
    """Uses AutoImageProcessor. The input format is explicit, because a picture with one row is ambiguous."""
    from transformers import AutoImageProcessor

    nested = folder / "processor_config.json"
    if nested.exists():
        (folder / "preprocessor_config.json").write_text(json.dumps(json.loads(nested.read_text())["image_processor"]))
    processor = AutoImageProcessor.from_pretrained(str(folder))
    if nested.exists():
        (folder / "preprocessor_config.json").unlink()
    stated = {} if type(processor).__name__.endswith("Fast") else {"input_data_format": "channels_last"}
    one = lambda picture: processor(picture, return_tensors="pt", **stated)["pixel_values"][0].numpy()
    return np.stack([one(picture) for picture in pictures]).astype(np.float32)


def by_timm(config, pictures):
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config(pretrained_cfg=config), is_training=False)
    return np.stack([transform(picture).numpy() for picture in pictures])


def by_open_clip(config, pictures):
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    merged = merge_preprocess_dict(PreprocessCfg(), config.get("preprocess_cfg", {}))
    merged["size"] = config["model_cfg"]["vision_cfg"]["image_size"]
    transform = image_transform_v2(PreprocessCfg(**merged), is_train=False)
    return np.stack([transform(picture).numpy() for picture in pictures])
