"""Scores how sharp images are: sluice-score --command "python score_sharpness.py" --send image"""
import io
import sys

import pyarrow as pa
from PIL import Image, ImageFilter, ImageStat

SCORES = pa.schema([("image_id", pa.string()), ("score", pa.float32())])


def sharpness(file):
    image = Image.open(io.BytesIO(file)).convert("L")
    return ImageStat.Stat(image.filter(ImageFilter.FIND_EDGES)).stddev[0]


with pa.ipc.open_stream(sys.stdin.buffer) as samples, pa.ipc.new_stream(sys.stdout.buffer, SCORES) as scores:
    for batch in samples:
        values = [sharpness(file) for file in batch["image"].to_pylist()]
        scores.write_batch(pa.record_batch([batch["image_id"], values], SCORES))
