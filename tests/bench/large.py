#!/usr/bin/env python3
"""Peak memory of the steps on large samples: long texts, huge images, a sample of a million members.

    python3 tests/bench/large.py [--programs target/release] [--cases texts-1m,images] [--jobs 1,8]

The script generates all input. The peaks are the kernel's, of resident memory. No models are needed.
"""

import argparse
import gzip
import io
import json
import os
import random
import resource
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LETTERS = "abcdefghijklmnopqrstuvwxyz     "


def child(command):
    """Runs a command and prints its peak."""
    code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
    print(json.dumps([code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))


def png(width, height, row):
    """Returns a PNG of equal RGB rows, compressed row by row, so that its pixels are never in memory."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(b"\0" + row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def texts(folder, caption, metadata, samples=1024):
    """Writes samples whose texts have this number of bytes, all different."""
    image = png(64, 64, bytes(range(192)))
    source = random.Random(1)
    pool = "".join(source.choices(LETTERS, k=1 << 21))
    with tarfile.open(folder / "texts.tar", "w") as tar:
        for number in range(samples):
            start = source.randrange(1 << 20)
            add(tar, f"{number:05}.png", image)
            if caption:
                add(tar, f"{number:05}.txt", pool[start:start + caption].encode())
            add(tar, f"{number:05}.json", json.dumps({"text": pool[start:start + metadata]}).encode())


def images(folder):
    image = png(16_000, 16_000, bytes(48_000))
    with tarfile.open(folder / "images.tar", "w") as tar:
        for number in range(8):
            add(tar, f"{number}.png", image)


def members(folder):
    with gzip.open(folder / "members.tar.gz", "wb", compresslevel=6) as packed, tarfile.open(mode="w|", fileobj=packed) as tar:
        add(tar, "first.png", png(64, 64, bytes(range(192))))
        for number in range(1_000_000):
            tar.addfile(tarfile.TarInfo(f"a.{number}"))


CASES = {
    "texts-1m": (lambda folder: texts(folder, (1 << 20) - 64, (1 << 20) - 64), "1,024 captions and JSONs of 1 MiB"),
    "texts-200k": (lambda folder: texts(folder, 0, 200_000), "1,024 JSONs of 200 kB"),
    "images": (images, "8 PNGs of 16,000 x 16,000"),
    "members": (members, "1,000,000 empty members of one key in a gzip"),
}
STEPS = [
    ("partition", "--input INPUT"),
    ("read", ""),
    ("filter", "--rule long=size(metadata.text)>0"),
    ("dedup", "exact --methods exact --survivors-of filter"),
    ("export", "decide --survivors-of dedup"),
    ("export", "plan --output OUTPUT --images-per-shard 100"),
    ("export", "write"),
    ("export", "index"),
]
AFTER_READ = {"images", "members"}


def measure(case, jobs, programs, folder):
    run, output = folder / f"run-{jobs}", folder / f"out-{jobs}"
    values = {"INPUT": str(folder / "in"), "OUTPUT": str(output)}
    steps = STEPS[:2] if case in AFTER_READ else STEPS
    commands = [(f"{stage} {line.split()[0]}" if line[:1].isalpha() else stage,
                 [programs / f"sluice-{stage}", *(values.get(word, word) for word in line.split()), "--run", run, "--jobs", str(jobs)])
                for stage, line in steps]
    if case not in AFTER_READ:
        commands.append(("verify", [programs / "sluice", "verify", "--run", run, "--jobs", str(jobs)]))
    for name, command in commands:
        started = time.monotonic()
        line = subprocess.run([sys.executable, "-S", __file__, "run", *map(str, command)], capture_output=True, text=True, check=True)
        code, peak = json.loads(line.stdout)
        print(f"| {case} | {jobs} | {name} | {peak:.0f} | {time.monotonic() - started:.1f} | {code} |", flush=True)


def main():
    if sys.argv[1:2] == ["run"]:
        return child(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--jobs", default="2")
    args = parser.parse_args()
    print("| case | jobs | step | peak MB | seconds | exit |\n|---|---|---|---|---|---|")
    for case in args.cases.split(","):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            source = Path(folder) / "in"
            source.mkdir()
            CASES[case][0](source)
            for jobs in args.jobs.split(","):
                measure(case, int(jobs), args.programs.resolve(), Path(folder))


if __name__ == "__main__":
    main()
