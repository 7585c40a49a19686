#!/usr/bin/env python3
"""The time of each program to find a run of many units up to date.

    python3 tests/bench/uptodate.py --photos FOLDER [--units 1000] [--rounds 5]

Every shard has one photograph and is a partition, and every kept photograph is an output shard. Goal: below 2 s for each
step. The model is tiny: none is loaded when there is no work.
"""

import sys
from pathlib import Path

import paired
from paired import Side


def main():
    parser = paired.arguments(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of WebDataset shards")
    parser.add_argument("--units", type=int, default=1000)
    args = parser.parse_args()

    with paired.workspace() as work:
        paired.single_shards(args.photos, work / "in", args.units)
        steps = paired.steps(work / "in", work / "run", work / "out", shards_per_partition=1, images_per_shard=1)
        for step in steps.values():
            paired.once(Side("first run", step))
        sides = [Side(name, step, args.units) for name, step in steps.items()]
        runs = paired.measure(sides, args.rounds)
    print(f"\n{args.units} units, all up to date:\n\n| step | seconds | CPU s | peak MB |\n|---|---|---|---|")
    for name, own in runs.items():
        if any(run.printed["status"] != "up-to-date" for run in own):
            sys.exit(f"{name} was not up to date")
        seconds, cpu = paired.median(own, lambda r: r.seconds), paired.median(own, lambda r: r.cpu)
        print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {paired.median(own, lambda r: r.peak_mb):.0f} |")
    paired.keep(runs, args.json)


if __name__ == "__main__":
    main()
