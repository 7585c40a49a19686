#!/usr/bin/env python3
"""The time from the start of a process to its first image: each step, compared with NeMo Curator's stages in one process.

    python3 tests/bench/start.py --photos FOLDER [--rounds 5]

One shard with one photograph. Sluice's figures are for whole processes, including the work on the image and the exit.
`embed` runs CLIP ViT-L/14 (1.2 GB of weights in an external file), pulled into a cache like a user's models. NeMo Curator's
figures are the times at which its reader, and its embedder with the same architecture, had finished their first batch.
Goals: 0.1 s without a model, 1.5 s for `embed`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import paired
from paired import BENCH, PROGRAMS, Side


def main():
    parser = paired.arguments(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of WebDataset shards")
    parser.add_argument("--no-nemo", action="store_true", help="Sluice alone")
    args = parser.parse_args()
    folder = Path(__file__).parent
    python = paired.environment("nemo")
    subprocess.run([python, folder / "models.py"], check=True)

    with paired.workspace() as work:
        paired.single_shards(args.photos, work / "in", 1)
        steps = paired.steps(work / "in", work / "run", work / "out", embedder="clip-vit-l14")
        pull = [PROGRAMS / "sluice", "models", "pull", "clip-vit-l14", "--from", BENCH / "models/clip-vit-l14"]
        paired.once(Side("pull", [*pull, "--models", work / "models"]))
        steps["embed"][steps["embed"].index("--models") + 1] = work / "models"
        sides = [Side(name, [*command, "--force"]) for name, command in steps.items()]
        if not args.no_nemo:

            def fresh():
                shutil.rmtree(work / "nemo", ignore_errors=True)
                (work / "nemo.events").unlink(missing_ok=True)

            nemo = [python, folder / "nemo.py", work / "in", work / "nemo", BENCH / "models/nemo/l14"]
            sides.append(Side("NeMo Curator", nemo, before=fresh))
        runs = paired.measure(sides, args.rounds)
    print("\n| | seconds | CPU s |\n|---|---|---|")
    for name, own in runs.items():
        cpu = paired.median(own, lambda r: r.cpu)
        if name == "NeMo Curator":
            for stage, what in (("ImageReaderStage", "first decoded"), ("ImageEmbeddingStage", "first embedded")):
                print(f"| {name}, {what} | {paired.median(own, lambda r: r.printed['first'][stage]):.2f} | |")
        print(f"| {name}, whole process | {paired.median(own, lambda r: r.seconds):.3f} | {cpu:.3f} |")
    paired.keep(runs, args.json)


if __name__ == "__main__":
    sys.exit(main())
