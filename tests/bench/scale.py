#!/usr/bin/env python3
"""A million small samples through the default pipeline with cheap models: exact counts, time and peak memory of each step.

    make build
    .cache/venv/bin/python tests/bench/scale.py [--samples 1000000] [--keep FOLDER]

The samples are PNGs of 24x24 pixels with captions, in shards of 10,000. One in 1,000 is truncated, one in 1,000 has no image,
one in 50 is a copy and one in 50 almost a copy of an image some samples away. The number of samples that `read` and `exact`
must drop is therefore known, and the maximum that `dedup` may keep. Embedder and heads have random weights, generated here.
The programs are those of target/release, or of --programs; every step is a separate process.

Fails when a count is not exact or when `sluice verify` fails.
"""

import json
import re
import struct
import sys
import tarfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import paired
from paired import Side

SIDE, BLOCK, PER_SHARD, WIDTH = 24, 3, 10_000, 64
# The numbers modulo which a sample is of a kind.
EVERY_BROKEN, EVERY_COPY = 1000, 50
CUT, NO_IMAGE, COPY, NEAR = 7, 13, 21, 42
# The distance of a copy from its original: more than a shard.
AWAY = 12_345
KINDS = ["cut", "no image", "copy", "near", "own"]


def kind(number):
    """Returns the kind of a sample, and the sample whose picture it has."""
    if number % EVERY_BROKEN in (CUT, NO_IMAGE):
        return ("cut" if number % EVERY_BROKEN == CUT else "no image"), number
    original = number - AWAY
    # A copy of a sample that is sound and not a copy.
    if original >= 0 and number % EVERY_COPY in (COPY, NEAR) and kind(original)[0] == "own":
        return ("copy" if number % EVERY_COPY == COPY else "near"), original
    return "own", number


def png(pixels):
    """Returns a PNG of RGB pixels, with fast compression."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def picture(number):
    """Returns blocks of random brightness and colour."""
    blocks = np.random.default_rng(number).integers(0, 256, (SIDE // BLOCK, SIDE // BLOCK, 3), np.uint8)
    return blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)


def members(number):
    what, original = kind(number)
    key = f"{number:09}"
    yield f"{key}.txt", f"picture {number}".encode()
    if what == "no image":
        return
    pixels = picture(original)
    if what == "near":
        pixels[0, 0, 0] ^= 1
    content = png(pixels)
    yield f"{key}.png", content[: len(content) // 2] if what == "cut" else content


def write_shard(folder, first, end):
    """Writes a shard, and returns the number of samples of each kind."""
    counts = dict.fromkeys(KINDS, 0)
    with open(folder / f"{first // PER_SHARD:05}.tar", "wb", buffering=1 << 20) as file:
        for number in range(first, end):
            counts[kind(number)[0]] += 1
            for name, content in members(number):
                about = tarfile.TarInfo(name)
                about.size = len(content)
                file.write(about.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    return counts


def write_input(folder, samples):
    folder.mkdir(parents=True)
    firsts = range(0, samples, PER_SHARD)
    with ProcessPoolExecutor() as pool:
        ends = [min(first + PER_SHARD, samples) for first in firsts]
        counts = list(pool.map(write_shard, [folder] * len(ends), firsts, ends))
    return {what: sum(count[what] for count in counts) for what in KINDS}


def write_model(folder, name, inputs, outputs, spec):
    """Writes a model with one matrix of random weights."""
    random = np.random.default_rng(len(name))
    weights = (random.standard_normal((inputs[1], outputs)) / inputs[1] ** 0.5).astype(np.float32)
    source = "x" if len(inputs) == 2 else "flat"
    nodes = [] if source == "x" else [helper.make_node("Flatten", ["x"], ["flat"])]
    nodes.append(helper.make_node("MatMul", [source, "w"], ["y"]))
    shape = ["N", inputs[1]] if source == "x" else ["N", *inputs[2:]]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / name).mkdir(parents=True)
    onnx.save(model, folder / name / "model.onnx")
    (folder / name / "model.toml").write_text(f'name = "{name}"\n{spec}')


def write_models(folder):
    preprocess = (
        "[preprocess]\nresize = { exact = { width = 8, height = 8 } }\nfilter = 'bilinear'\n"
        "mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n"
    )
    embedder = f"kind = 'embedder'\ndimension = {WIDTH}\n{preprocess}"
    write_model(folder, "scale-embedder", [None, 192, 3, 8, 8], WIDTH, embedder)
    for name, threshold, keep in [("scale-aesthetic", -0.2, "at-least"), ("scale-nsfw", 0.2, "below")]:
        score = f"[score]\nrange = [-1.0, 1.0]\nthreshold = {threshold}\nkeep = '{keep}'\n"
        head = f"kind = 'head'\nembedder = 'scale-embedder'\ndimension = {WIDTH}\n{score}"
        write_model(folder, name, [None, WIDTH], 1, head)


def nodes(programs, values, run):
    """Returns the command lines of the default pipeline, from its DAG."""
    dag = json.loads(paired.subprocess.check_output([programs / "sluice", "dag"]))
    values = {p["name"]: p["default"] or "" for p in dag["parameters"]} | values
    fill = lambda word: re.sub(r"\$\{([a-z-]+)\}", lambda match: str(values[match[1]]), word)
    for step in dag["steps"]:
        command = [programs / step["program"], *([step["subcommand"]] if step["subcommand"] else [])]
        yield step["name"], [*command, f"--run={run}", *map(fill, step["arguments"])]


def decided(run):
    """Returns the counts of `export decide`: samples in, kept, and dropped by reason."""
    total = {"in": 0, "kept": 0}
    for receipt in sorted((run / "export/receipts").glob("part-*.json")):
        counts = json.loads(receipt.read_text())["counts"]
        for name, count in [("in", counts["in"]), ("kept", counts["kept"]), *counts["dropped"].items()]:
            total[name] = total.get(name, 0) + count
    return total


def check(samples, made, counts, output):
    """Checks the counts that must be exact."""
    dropped = sum(count for name, count in counts.items() if name not in ("in", "kept"))
    index = json.loads((output / "index.json").read_text())
    rows = sum(shard["nsamples"] for shard in index["shardlist"])
    for what, found, expected in [
        ("samples in", counts["in"], samples),
        ("kept and dropped", counts["kept"] + dropped, samples),
        ("cut", counts.get("read/truncated-image", 0), made["cut"]),
        ("without an image", counts.get("read/no-image", 0), made["no image"]),
        ("copies", counts.get("exact/exact-duplicate", 0), made["copy"]),
        ("samples of the output", rows, counts["kept"]),
    ]:
        if found != expected:
            sys.exit(f"{what}: {found}, expected {expected}")
        print(f"- {what}: {found:,}, exact")


def main():
    parser = paired.arguments(__doc__, rounds=1)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--programs", type=Path, default=paired.PROGRAMS)
    parser.add_argument("--keep", type=Path, help="keep the input, the run and the output in this folder")
    args = parser.parse_args()
    with nullcontext(args.keep) if args.keep else paired.workspace() as work:
        made = write_input(work / "input", args.samples)
        write_models(work / "models")
        size = sum(shard.stat().st_size for shard in (work / "input").glob("*.tar"))
        print(f"{args.samples:,} samples, {size / 1e9:.2f} GB: {made}\n", flush=True)
        print("| step | seconds | CPU s | peak MB |\n|---|---|---|---|", flush=True)
        run, output = work / "run", work / "output"
        values = {"input": work / "input", "output": output, "models": work / "models"}
        values |= {"embedder": "scale-embedder", "aesthetic": "scale-aesthetic", "nsfw": "scale-nsfw"}
        commands = list(nodes(args.programs.absolute(), values, run))
        commands.append(("verify", [args.programs.absolute() / "sluice", "verify", f"--run={run}"]))
        figures = {}
        for name, command in commands:
            figures[name] = one = paired.once(Side(name, command))
            print(f"| `{name}` | {one.seconds:.0f} | {one.cpu:.0f} | {one.peak_mb:.0f} |", flush=True)
        seconds, cpu = (sum(getattr(one, what) for one in figures.values()) for what in ("seconds", "cpu"))
        print(f"| all | {seconds:.0f} | {cpu:.0f} | {max(one.peak_mb for one in figures.values()):.0f} |\n")
        counts = decided(run)
        print(json.dumps(counts, indent=2))
        check(args.samples, made, counts, output)
        paired.keep({name: [one] for name, one in figures.items()}, args.json)


if __name__ == "__main__":
    main()
