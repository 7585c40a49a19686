#!/usr/bin/env python3
"""Encoders on one NVIDIA GPU: `sluice-embed` and a whole run, compared with torch on prepared tensors and on shards.

    make build && python3 tests/bench/gpu.py [--device cuda:0] [--images 20000] [--json FILE]
    python3 tests/bench/gpu.py --tiny --device cpu         # every part at small scale, without a GPU

One command without a network, in under 8 minutes on a machine with a GPU and 16 cores. It generates its photographs, its
models (ViT-L/14 and ViT-B/32 of CLIP, and heads, with random weights) and its shards. It needs numpy and Pillow. The rows
of torch also need torch with CUDA and torchvision, and one row needs DALI. Rows with a missing package are skipped with a
message. `sluice doctor` reports the missing requirements of Sluice on a GPU.
"""

import argparse
import importlib.util
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from gpu_models import HEADS, SIZES, write_encoder, write_head

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "target/release"
SHARD = 1000
# Prepared tensors: the number of timed batches, and their size.
BATCHES, BATCH = 40, 256
WIDTH, HEIGHT = 500, 375


def main():
    if len(sys.argv) > 1 and sys.argv[1] in CHILDREN:
        return CHILDREN[sys.argv[1]](*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0", help="the device of Sluice's models (default cuda:0)")
    parser.add_argument("--images", type=int, default=20000, help="photographs of the whole run (default 20000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cores (default: all)")
    parser.add_argument("--precisions", nargs="+", default=["float16", "bfloat16"])
    parser.add_argument("--work", type=Path, default=ROOT / ".cache/bench", help="the folder for temporary files")
    parser.add_argument("--tiny", action="store_true", help="tiny models and 60 photographs: a trial of the script")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    if args.tiny:
        args.images, args.precisions = 60, ["float16"]
    refuse(args.device)
    args.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="gpu-", dir=args.work))
    try:
        rows = measure(args, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    show(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


def refuse(device):
    """Exits with the missing requirements of the device."""
    done = subprocess.run([PROGRAMS / "sluice", "doctor", "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"sluice doctor: {done.stderr}")
    found = {one["device"]: one for one in json.loads(done.stdout)["devices"]}
    device = {"cuda": "cuda:0", "tensorrt": "tensorrt:0"}.get(device, device)
    if device not in found:
        sys.exit(f"gpu.py: {device}: no such device here; there are {', '.join(found)}")
    if found[device]["missing"]:
        missing, hint = ", ".join(found[device]["missing"]), found[device]["hint"]
        sys.exit(f"gpu.py: {device} lacks {missing}\nhint: {hint}; --tiny --device cpu tries the script without a GPU")


def measure(args, work):
    rows = []
    encoders = ["tiny"] if args.tiny else ["vit-l14", "vit-b32"]
    began = time.monotonic()
    shards = photographs(work / "shards", args.images, args.jobs)
    note(f"{args.images} photographs", began)
    for encoder in encoders:
        model = work / "models" / encoder
        write_encoder(model, encoder)
        for kind in HEADS:
            write_head(work / "models" / f"{kind}-{encoder}", kind, encoder)
        for precision in args.precisions:
            began = time.monotonic()
            sluice(["models", "quantize", f"{model}/", "--precision", precision])
            note(f"{encoder} in {precision}", began)
    # B/32 processes several times as many images in the same time; both read the same shards.
    base = work / "base"
    stage("partition", base, "--input", shards, "--shards-per-partition", 2)
    stage("read", base, "--jobs", args.jobs)
    for encoder in encoders:
        for precision in args.precisions:
            rows.append(embed(args, work, base, encoder, precision))
        rows += torch_rows(args, shards, encoder)
    rows.append(whole(args, work, shards, encoders[0]))
    return rows


def embed(args, work, base, encoder, precision):
    run = work / f"{encoder}-{precision}"
    shutil.copytree(base, run)
    words = ["--model", f"{work / 'models' / encoder}/", "--precision", precision, "--device", args.device, "--jobs", args.jobs]
    with Watch(args.device) as watch:
        result = stage("embed", run, *words)
    shutil.rmtree(run)
    device = result["device"]
    return watch.row(f"sluice-embed, {encoder}, {precision}", result["counts"]["kept"], idle=device.get("idle"), batch=device["batch_size"])


def whole(args, work, shards, encoder):
    """Runs read, rules, exact and perceptual and semantic duplicates, embed, both heads, filter, export, report."""
    models = work / "models"
    words = ["--embedder", f"{models / encoder}/", "--precision", args.precisions[0], "--device", args.device, "--jobs", args.jobs]
    heads = ["--aesthetic", f"{models / f'aesthetic-{encoder}'}/", "--nsfw", f"{models / f'nsfw-{encoder}'}/"]
    limits = ["--min-aesthetic", "0", "--max-nsfw", "1"]
    with Watch(args.device) as watch:
        result = sluice(["run", "--input", shards, "--output", work / "out", *words, *heads, *limits])
    return watch.row(f"sluice run, {encoder}, {args.precisions[0]}", args.images, status=result["status"])


def torch_rows(args, shards, encoder):
    """Measures torch in float16 with scaled-dot-product attention: on prepared tensors, and on the shards."""
    if args.tiny or not has("torch"):
        print(f"left out: torch ({'tiny' if args.tiny else 'not installed'})", file=sys.stderr)
        return []
    rows, sides = [], ["ready"]
    sides += ["torchvision"] if has("torchvision") else []
    sides += ["dali"] if has("nvidia.dali") else []
    for side in sides:
        command = [sys.executable, __file__, side, encoder, str(shards), str(args.jobs)]
        with Watch(args.device) as watch:
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"left out: torch, {side}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            continue
        figures = json.loads(done.stdout.splitlines()[-1])
        row = watch.row(f"torch float16, {encoder}, {side}", figures["images"])
        # Without the start of the process.
        row["images/s"] = figures["images"] / figures["seconds"]
        rows.append(row)
    return rows


def has(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# ------------------------------------------------------------------------------------------------- photographs


def photographs(folder, count, jobs):
    folder.mkdir(parents=True)
    numbers = range(0, count, SHARD)
    with ProcessPoolExecutor(jobs) as pool:
        list(pool.map(shard, [folder] * len(numbers), numbers, [min(SHARD, count - first) for first in numbers]))
    return folder


def shard(folder, first, count):
    with tarfile.open(folder / f"{first // SHARD:05}.tar", "w") as tar:
        for number in range(first, first + count):
            for ending, content in [("jpg", photograph(number)), ("txt", f"photograph {number}".encode())]:
                member = tarfile.TarInfo(f"{number:09}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def photograph(number):
    """Returns a JPEG with large and small structures like a photograph's: about 80 kB."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(number)
    picture = numpy.zeros((HEIGHT, WIDTH, 3), numpy.float32)
    for size, share in [(3, 110), (12, 60), (60, 40), (190, 25)]:
        small = Image.fromarray(random.integers(0, 256, (size, size * 4 // 3, 3), numpy.uint8))
        picture += numpy.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), numpy.float32) * (share / 235)
    out = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(numpy.uint8)).save(out, "JPEG", quality=88)
    return out.getvalue()


# ---------------------------------------------------------------------------------------------------- programs


def stage(name, run, *words):
    return command([PROGRAMS / f"sluice-{name}", "--run", run, *words])


def sluice(words):
    is_quantize = words[:2] == ["models", "quantize"]
    return command([PROGRAMS / "sluice", *words, *(["--json"] if is_quantize else [])])


def command(words):
    words = [str(word) for word in words]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr[-2000:]}{done.stdout[-2000:]}")
    return json.loads(done.stdout)


class Watch:
    """Wall time, CPU time of all child processes, and the GPU's utilisation from nvidia-smi."""

    def __init__(self, device):
        self.samples, self.over = [], threading.Event()
        number = device.partition(":")[2] or "0"
        query = ["nvidia-smi", "-i", number, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        is_seen = device.startswith(("cuda", "tensorrt")) and shutil.which("nvidia-smi")
        self.thread = threading.Thread(target=self.sample, args=(query,)) if is_seen else None

    def sample(self, query):
        while not self.over.wait(0.5):
            done = subprocess.run(query, capture_output=True, text=True)
            if done.returncode == 0:
                self.samples.append(float(done.stdout.split()[0]))

    def __enter__(self):
        if self.thread:
            self.thread.start()
        self.began, self.cpu = time.monotonic(), cpu()
        return self

    def __exit__(self, *_):
        self.seconds, self.cpu = time.monotonic() - self.began, cpu() - self.cpu
        self.over.set()
        if self.thread:
            self.thread.join()

    def row(self, name, images, **more):
        note(name, self.began)
        used = sum(self.samples) / len(self.samples) if self.samples else None
        return {"name": name, "images": images, "seconds": self.seconds, "images/s": images / self.seconds,
                "CPU ms/image": self.cpu * 1000 / images, "GPU %": used, **more}  # fmt: skip


def cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def note(what, began):
    print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr)


def show(rows):
    print("| | images | seconds | images/s | CPU ms/image | GPU % | idle |\n|---|---|---|---|---|---|---|")
    for row in rows:
        used = "" if row["GPU %"] is None else f"{row['GPU %']:.0f}"
        idle = f"{row['idle']:.1%}" if row.get("idle") is not None else ""
        print(f"| {row['name']} | {row['images']} | {row['seconds']:.1f} | {row['images/s']:.0f} | {row['CPU ms/image']:.2f} | {used} | {idle} |")


# --------------------------------------------------------------------------------------- code of separate processes: torch


def vit(encoder):
    """Returns the architecture of gpu_models.py in torch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    size = SIZES[encoder]
    width, heads = size["width"], size["heads"]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
            self.taken, self.given = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            rows, tokens, _ = x.shape
            taken = self.taken(self.first(x)).view(rows, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(*taken).transpose(1, 2).reshape(rows, tokens, width)
            x = x + self.given(mixed)
            up = self.up(self.second(x))
            return x + self.down(up * torch.sigmoid(1.702 * up))

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            side = size["image"] // size["patch"]
            self.patches = nn.Conv2d(3, width, size["patch"], size["patch"], bias=False)
            self.token = nn.Parameter(torch.zeros(1, 1, width))
            self.places = nn.Parameter(torch.zeros(1, side * side + 1, width))
            self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
            self.blocks = nn.Sequential(*(Block() for _ in range(size["layers"])))
            self.projection = nn.Linear(width, size["dimension"], bias=False)

        def forward(self, pixels):
            x = self.patches(pixels).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
            return self.projection(self.after(self.blocks(self.before(x))[:, 0]))

    return Encoder().half().cuda().eval()


def timed(encoder, batches):
    """Returns the seconds and images of all batches except the first two."""
    import torch

    model, images, began = vit(encoder), 0, None
    with torch.inference_mode():
        for number, batch in enumerate(batches):
            if number == 2:
                torch.cuda.synchronize()
                began = time.perf_counter()
            model(batch).float().cpu() if number % 2 else model(batch)
            images += len(batch) if number >= 2 else 0
        torch.cuda.synchronize()
    print(json.dumps({"images": images, "seconds": time.perf_counter() - began}))


def child_ready(encoder, _shards, _jobs):
    import torch

    side = SIZES[encoder]["image"]
    tensor = torch.randn(BATCH, 3, side, side, dtype=torch.half, device="cuda")
    timed(encoder, (tensor for _ in range(BATCHES + 2)))


def child_torchvision(encoder, shards, jobs):
    import torch
    from torchvision import transforms
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import InterpolationMode

    side = SIZES[encoder]["image"]
    resized = transforms.Compose([transforms.Resize(side, InterpolationMode.BICUBIC), transforms.CenterCrop(side)])

    class Shards(torch.utils.data.IterableDataset):
        def __iter__(self):
            about = torch.utils.data.get_worker_info()
            for path in sorted(Path(shards).glob("*.tar"))[about.id :: about.num_workers]:
                with tarfile.open(path) as tar:
                    for member in tar:
                        if member.name.endswith(".jpg"):
                            content = torch.frombuffer(bytearray(tar.extractfile(member).read()), dtype=torch.uint8)
                            yield resized(decode_jpeg(content, mode=ImageReadMode.RGB))

    loader = torch.utils.data.DataLoader(Shards(), batch_size=BATCH, num_workers=int(jobs), pin_memory=True, prefetch_factor=2)
    timed(encoder, (batch.cuda(non_blocking=True).half().div_(127.5).sub_(1) for batch in loader))


def child_dali(encoder, shards, jobs):
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    side = SIZES[encoder]["image"]
    paths = [str(path) for path in sorted(Path(shards).glob("*.tar"))]

    @pipeline_def(batch_size=BATCH, num_threads=int(jobs), device_id=0)
    def decoded():
        raw = fn.readers.webdataset(paths=paths, ext=["jpg"], name="shards")
        pictures = fn.decoders.image(raw, device="mixed", output_type=types.RGB)
        pictures = fn.resize(pictures, resize_shorter=side, interp_type=types.INTERP_CUBIC)
        return fn.crop_mirror_normalize(
            pictures, crop=(side, side), mean=[127.5] * 3, std=[127.5] * 3, dtype=types.FLOAT16, output_layout="CHW"
        )

    iterator = DALIGenericIterator(decoded(), ["pixels"], reader_name="shards")
    timed(encoder, (batch[0]["pixels"] for batch in iterator))


CHILDREN = {"ready": child_ready, "torchvision": child_torchvision, "dali": child_dali}

if __name__ == "__main__":
    main()
