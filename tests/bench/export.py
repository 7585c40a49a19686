#!/usr/bin/env python3
"""`sluice-export write` from disk to disk, compared with `cp` of the shards.

    python3 tests/bench/export.py --photos FOLDER [--copies 20] [--rounds 5]

Every sample is kept. The sources are in the page cache. Both sides flush every file to disk before it counts as written:
`cp` by a following `sync FILE`, export by itself. A third side copies without flushing. Goal: 70% of cp's MB/s.
"""

import os
import shutil
import sys
from pathlib import Path

import paired
from paired import Side


def main():
    parser = paired.arguments(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of WebDataset shards")
    parser.add_argument("--copies", type=int, default=20, help="number of names of each shard")
    args = parser.parse_args()

    with paired.workspace() as work:
        source, target = work / "in", work / "cp"
        source.mkdir()
        for copy in range(args.copies):
            for shard in sorted(args.photos.glob("*.tar")):
                shutil.copy(shard, source / f"{copy:04}-{shard.name}")
        steps = paired.steps(source, work / "run", work / "out", images_per_shard=100)
        for name in ("partition", "read", "export decide", "export plan", "export write"):
            done = paired.once(Side(name, steps[name]))
        size = done.printed["outputs"]["bytes"]
        shards = sum(shard.stat().st_size for shard in source.iterdir())

        def fresh():
            for folder in (target, work / "out"):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            os.sync()

        copy = f"cp {source}/*.tar {target}"
        # `images` are megabytes here.
        sides = [
            Side("sluice-export write", steps["export write"], size / 1e6, before=fresh),
            Side("cp, sync", ["sh", "-c", f"{copy} && sync {target}/*"], shards / 1e6, before=fresh),
            Side("cp", ["sh", "-c", copy], shards / 1e6, before=fresh),
        ]
        runs = paired.measure(sides, args.rounds)
    print(f"\n{shards / 1e6:.0f} MB of shards, {size / 1e6:.0f} MB written:\n\n| | MB/s | of cp, sync | CPU s/GB | peak MB |\n|---|---|---|---|---|")
    for name, own in runs.items():
        speed = paired.median(own, lambda r: r.images / r.seconds)
        share = paired.median(zip(own, runs["cp, sync"]), lambda p: p[0].images / p[0].seconds * p[1].seconds / p[1].images)
        cpu = paired.median(own, paired.cpu_ms)
        print(f"| {name} | {speed:.0f} | {share:.0%} | {cpu:.2f} | {paired.median(own, lambda r: r.peak_mb):.0f} |")
    paired.keep(runs, args.json)


if __name__ == "__main__":
    sys.exit(main())
