"""Writes the libraries' tensors of three computed pictures, for the tests of shared/model.

For each configuration, the output has its files, the bytes of the pixels, and for each channel of the tensor the factor and
the summand that convert a byte to the tensor's value.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import libraries
import processors

SIZES = [(61, 47), (40, 93), (23, 17)]
SIDE = 16


def picture(width, height):
    """Returns a pattern of integers, which the tests also compute."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([7 * x + 3 * y, x * x // 50 + y, x ^ y], axis=-1).astype(np.uint8))


def configurations():
    for name, config in processors.of(SIDE).items():
        if name != "convnext-384":
            yield name, {"preprocessor_config.json": config}
    for name, config in processors.timm(SIDE).items():
        yield name, {"config.json": {"architecture": "resnet18", "num_classes": 0, "pretrained_cfg": config}}
    for name, config in processors.open_clip(SIDE).items():
        yield name, {"open_clip_config.json": config}


def scale(folder):
    """Returns the library's values of 0 and 255, for each channel."""
    plain = [Image.new("RGB", (SIDE * 2, SIDE * 2), (value,) * 3) for value in (0, 255)]
    low, high = (tensor.mean(axis=(1, 2), dtype=np.float64) for tensor in libraries.tensors(folder, plain))
    return (high - low) / 255, low


def main(target):
    pictures = [picture(*size) for size in SIZES]
    cases, pixels = [], b""
    for name, files in configurations():
        with tempfile.TemporaryDirectory() as folder:
            for file, content in files.items():
                (Path(folder) / file).write_text(json.dumps(content))
            factor, summand = scale(Path(folder))
            found = libraries.tensors(Path(folder), pictures)
        exact = (found - summand[:, None, None]) / factor[:, None, None]
        rounded = exact.round()
        assert abs(exact - rounded).max() < 1e-2, (name, abs(exact - rounded).max())
        assert rounded.min() >= 0 and rounded.max() <= 255, name
        cases.append({"name": name, "files": files, "shape": list(found.shape[1:]), "factor": factor.tolist(), "summand": summand.tolist()})
        pixels += rounded.astype(np.uint8).tobytes()
    target.mkdir(parents=True, exist_ok=True)
    (target / "cases.json").write_text(json.dumps({"pictures": SIZES, "cases": cases}, indent=1) + "\n")
    (target / "pixels.bin").write_bytes(pixels)
    print(f"{len(cases)} configurations, {len(pixels)} bytes: {target}")
