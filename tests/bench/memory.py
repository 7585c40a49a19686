#!/usr/bin/env python3
"""Peak memory of every step on few samples and on a hundred times as many.

    python3 tests/bench/memory.py --photos FOLDER [--copies 100] [--embedder tiny] [--steps read,embed,…]

The shards have several names (links). Goal: at most 1.15 times the memory. Embeddings of `tiny` have 768 values, like those
of the real encoders; the model itself is small, so that growth is visible. The peaks are the kernel's, of resident memory,
including programs and libraries; below 17 MB they are this script's own.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import paired
from paired import Side


def child(command):
    """Runs a command and prints its peak."""
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    print(json.dumps({"peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}))


def main():
    if sys.argv[1:2] == ["run"]:
        return child(sys.argv[2:])
    parser = paired.arguments(__doc__, rounds=1)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of WebDataset shards")
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--embedder", default="tiny", help="of models.py")
    parser.add_argument("--steps", help="run only these steps after partition")
    args = parser.parse_args()

    peaks, seconds = {}, {}
    with paired.workspace() as work:
        for copies in (1, args.copies):
            source = work / f"in-{copies}"
            paired.linked_shards(args.photos, source, copies)
            # More units than are processed concurrently, on both sides.
            units = {"shards_per_partition": 1, "images_per_shard": 100}
            steps = paired.steps(source, work / f"run-{copies}", work / f"out-{copies}", args.embedder, **units)
            for name, command in steps.items():
                if args.steps and name not in args.steps.split(",") and name != "partition":
                    continue
                print(f"{copies} copies: {name}", file=sys.stderr)
                run = paired.once(Side(name, [sys.executable, "-S", __file__, "run", *command]))
                peaks[name, copies], seconds[name, copies] = run.peak_mb, run.seconds
    print(f"\n{args.embedder}; peak MB of the shards once and {args.copies} times:\n")
    print("| step | once | many | ratio | seconds |\n|---|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in peaks):
        few, many = peaks[name, 1], peaks[name, args.copies]
        print(f"| {name} | {few:.1f} | {many:.1f} | {many / few:.2f} | {seconds[name, args.copies]:.1f} |")


if __name__ == "__main__":
    main()
