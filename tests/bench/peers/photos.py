"""Large photographs for benchmarks: JPEGs of 12 to 24 megapixels, made from small photographs.

An enlarged photograph is smooth, so its file is small and decoding is easy. Each photograph here is therefore tiled from
several enlarged ones, with noise like a camera sensor's. Quality 90, 4:2:0: 2 to 3 bits per pixel, like cameras.

usage: photos.py SHARDS OUT.tar COUNT   (in the environment of peers/images.txt)
"""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [(4000, 3000), (3000, 4000), (4624, 3468), (6000, 4000)]


def photographs(shards):
    for shard in sorted(Path(shards).glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    yield Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")


def large(small, size, rng):
    """Returns one photograph as the background, four others in its quarters at half strength, and noise."""
    width, height = size
    first, *others = [np.asarray(photo.resize(size, Image.BICUBIC), np.float32) for photo in small[:1]] + small[1:]
    quarters = np.empty((height, width, 3), np.float32)
    for index, photo in enumerate(others):
        top, left = index // 2 * (height // 2), index % 2 * (width // 2)
        quarters[top : top + height // 2, left : left + width // 2] = photo.resize((width // 2, height // 2), Image.BICUBIC)
    picture = 0.6 * first + 0.4 * quarters + rng.normal(0, 5, (height, width, 1)).astype(np.float32)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def main():
    shards, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    source, rng = photographs(shards), np.random.default_rng(7)
    with tarfile.open(out, "w") as tar:
        for number in range(count):
            small = [next(source) for _ in range(5)]
            content = io.BytesIO()
            large(small, SIZES[number % len(SIZES)], rng).save(content, "jpeg", quality=90, subsampling="4:2:0")
            member = tarfile.TarInfo(f"{number:06}.jpg")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)


main()
