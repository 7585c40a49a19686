#!/usr/bin/env python3
"""`sluice-embed` from shards, in its three precisions, compared with plain ONNX Runtime and torch on prepared tensors.

    make build && python3 tests/bench/embed.py --photos FOLDER [--encoder clip-vit-b32-768|clip-vit-l14] [--shards 6]

There are two references: ONNX Runtime with two threads, which processes the same tensor repeatedly, including its start and
loading, as in Sluice's figures; and torch (the engine of NeMo Curator) without its start. Sluice reads shards, decodes,
preprocesses, embeds and writes Parquet. At the end, the embeddings of each precision are compared with float32's, on these
random weights and on EfficientNet-Lite0's real ones.
"""

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from paired import BENCH, CACHE, PROGRAMS, Side, arguments, environment, keep, measure, once, show, workspace

MODELS = BENCH / "models"
BATCH = 16
THREADS = 2
PRECISIONS = ["float32", "bfloat16", "int8"]
# This environment has ONNX Runtime's Python package, numpy and pyarrow.
TOOLS = CACHE / "venv/bin/python"


def main():
    if len(sys.argv) > 1 and sys.argv[1] in CHILDREN:
        return CHILDREN[sys.argv[1]](*sys.argv[2:])
    parser = arguments(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of WebDataset shards")
    parser.add_argument("--encoder", default="clip-vit-b32-768", choices=["clip-vit-b32-768", "clip-vit-l14"])
    parser.add_argument("--shards", type=int, default=6, help="number of shards for each side and round")
    args = parser.parse_args()
    encoder = MODELS / args.encoder
    if not (encoder / "model.toml").exists():
        subprocess.run([sys.executable, Path(__file__).with_name("models.py")], check=True)
    openvino = environment("openvino").parent.parent
    library = next(openvino.glob("lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.*"))
    torch = environment("nemo")
    short = {"clip-vit-b32-768": "b32", "clip-vit-l14": "l14"}[args.encoder]
    with workspace() as work:
        base, images = read(args.photos, work, args.shards)
        sides = []
        for precision in PRECISIONS:
            run = work / precision
            shutil.copytree(base, run)
            env = {"ORT_DYLIB_PATH": str(library)} if precision == "bfloat16" else {}
            command = [PROGRAMS / "sluice-embed", "--run", run, "--model", encoder, "--precision", precision, "--force"]
            sides.append(Side(f"sluice-embed, {precision}", command, images=images, env=env))
        for name, file in [("float32", "model.onnx"), ("dynamic int8", "model.int8.onnx")]:
            command = [TOOLS, __file__, "onnxruntime", encoder / file, images]
            sides.append(Side(f"ONNX Runtime, {name}", command, images=images))
        few = max(BATCH, images // 4)
        for name in ["float32", "bfloat16"]:
            command = [torch, __file__, "torch", MODELS / "nemo" / short / "openai/clip-vit-large-patch14", few, name]
            sides.append(Side(f"torch, {name}", command))
        runs = measure(sides, args.rounds)
        show(runs, against="torch, float32", title=f"{args.encoder}, {images} images")
        show(runs, against="ONNX Runtime, float32")
        keep(runs, args.json)
        nearness(args.encoder, {precision: work / precision for precision in PRECISIONS})

        # The last model is the reason why int8.py refuses convolutions.
        forced = work / "forced"
        shutil.copytree(CACHE / "models/efficientnet-lite0", forced / "efficientnet-lite0")
        subprocess.run([TOOLS, __file__, "force", forced / "efficientnet-lite0"], check=True, capture_output=True)
        runs = {}
        for precision in PRECISIONS:
            runs[precision] = shutil.copytree(base, work / f"real-{precision}")
            env = {"ORT_DYLIB_PATH": str(library)} if precision == "bfloat16" else {}
            command = [PROGRAMS / "sluice-embed", "--run", runs[precision], "--models", forced]
            once(Side("real", [*command, "--model", "efficientnet-lite0", "--precision", precision], env=env))
        runs["int8, convolutions too"] = runs.pop("int8")
        nearness("EfficientNet-Lite0, real weights", runs)


def read(photos, work, count):
    """Returns a run with this number of shards, up to `read`, and its images."""
    shards, run = work / "shards", work / "base"
    shards.mkdir()
    for shard in sorted(photos.glob("*.tar"))[:count]:
        (shards / shard.name).symlink_to(shard.resolve())
    for words in [["sluice-partition", "--input", shards, "--shards-per-partition", 2], ["sluice-read"]]:
        command = [PROGRAMS / words[0], *map(str, words[1:]), "--run", run]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return run, json.loads(done.stdout)["counts"]["kept"]


def nearness(title, runs):
    print(f"\n{title}: cosine to float32's embeddings\n")
    print("| | mean | lowest | the same nearest neighbour |\n|---|---|---|---|")
    names = [name for name in runs if name != "float32"]
    done = subprocess.run(
        [TOOLS, __file__, "cosines", runs["float32"], *(runs[name] for name in names)], check=True, capture_output=True, text=True
    )
    for name, figures in zip(names, json.loads(done.stdout)):
        print("| {} | {:.5f} | {:.5f} | {:.0%} |".format(name, *figures))


# ------------------------------------------------------------------------------- code for other Python environments


def child_onnxruntime(model, images):
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    tensor = numpy.random.default_rng(0).standard_normal((BATCH, 3, 224, 224)).astype(numpy.float32)
    for first in range(0, int(images), BATCH):
        session.run(None, {"pixel_values": tensor[: int(images) - first]})


def child_torch(folder, images, precision):
    import torch
    from transformers import CLIPVisionModelWithProjection

    torch.set_num_threads(THREADS)
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    encoder = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=kind).eval()
    tensor = torch.randn(BATCH, 3, 224, 224, dtype=kind)
    with torch.inference_mode():
        encoder(pixel_values=tensor)
        began, started = cpu(), time.perf_counter()
        for _ in range(int(images) // BATCH):
            encoder(pixel_values=tensor)
    figures = {"seconds": time.perf_counter() - started, "cpu": cpu() - began, "images": int(images) // BATCH * BATCH}
    print(json.dumps(figures))


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def child_cosines(*runs):
    import numpy
    import pyarrow.parquet

    def vectors(run):
        table = pyarrow.parquet.read_table(Path(run) / "embed/embeddings")
        return numpy.array(table["embedding"].to_pylist(), numpy.float32)

    def neighbours(a):
        return (a @ a.T - 2 * numpy.eye(len(a))).argmax(axis=1)

    reference = vectors(runs[0])
    figures = []
    for run in runs[1:]:
        own = vectors(run)
        cosines = (own * reference).sum(axis=1)
        same = (neighbours(own) == neighbours(reference)).mean()
        figures.append([float(cosines.mean()), float(cosines.min()), float(same)])
    print(json.dumps(figures))


def child_force(folder):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = Path(folder)
    kinds = ["Conv", "MatMul", "Gemm"]
    quantize_dynamic(folder / "model.onnx", folder / "model.int8.onnx", kinds, per_channel=True, weight_type=QuantType.QInt8)


CHILDREN = {"onnxruntime": child_onnxruntime, "torch": child_torch, "cosines": child_cosines, "force": child_force}

if __name__ == "__main__":
    main()
