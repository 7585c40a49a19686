#!/usr/bin/env python3
"""Time and peak memory of the steps without a model on a folder of many small images.

    .cache/venv/bin/python tests/bench/folder.py [--images 100000] [--programs target/release]

JPEGs of 32 x 32 pixels in folders of 1,000, every tenth with a caption file, every hundredth a copy. The peaks are the
kernel's, of resident memory.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paired
from PIL import Image


def jpeg(seed):
    """Returns a picture of random blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks).resize((32, 32), Image.NEAREST).save(out, "JPEG", quality=85)
    return out.getvalue()


def make(folder, count):
    """Writes the images, and returns the number of different ones."""
    for number in range(count):
        place = folder / f"{number // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        copy = number % 100 == 99
        (place / f"{number:07d}.jpg").write_bytes(jpeg(number - 1 if copy else number))
        if number % 10 == 0:
            (place / f"{number:07d}.txt").write_text(f"picture {number}")
    return count - count // 100


def measured(command):
    """Runs a command. Returns its seconds, CPU seconds and peak in MB."""
    started = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(map(str, command))}: status {status}\n{printed.decode()}")
    cpu = usage.ru_utime + usage.ru_stime
    return time.monotonic() - started, cpu, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--programs", type=Path, default=paired.PROGRAMS)
    args = parser.parse_args()
    with paired.workspace() as work:
        different = make(work / "in", args.images)
        run = ["--run", work / "run"]
        steps = {
            "partition": ["sluice-partition", "--input", work / "in"],
            "read": ["sluice-read"],
            "exact": ["sluice-dedup", "exact", "--step", "exact", "--methods", "exact"],
            "export decide": ["sluice-export", "decide", "--survivors-of", "exact"],
            "export plan": ["sluice-export", "plan", "--survivors-of", "exact", "--output", work / "out"],
            "export write": ["sluice-export", "write"],
            "export index": ["sluice-export", "index"],
            "verify": ["sluice", "verify"],
        }
        print(f"{args.images} images\n\n| step | seconds | CPU s | peak MB |\n|---|---|---|---|")
        for name, (program, *flags) in steps.items():
            seconds, cpu, peak = measured([args.programs / program, *flags, *run])
            print(f"| `{name}` | {seconds:.1f} | {cpu:.1f} | {peak:.0f} |", flush=True)
        index = json.loads((work / "out/index.json").read_text())
        kept = sum(shard["nsamples"] for shard in index["shardlist"])
        assert kept == different, (kept, different)
        print(f"\n{kept} kept")


if __name__ == "__main__":
    main()
