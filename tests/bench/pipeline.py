#!/usr/bin/env python3
"""The whole pipeline, shards to curated shards: `sluice run` compared with NeMo Curator's image tutorial.

    python3 tests/bench/pipeline.py --photos FOLDER [--images 600,100] [--rounds 3] [--sides sluice,local,xenna,ray_data]

Both read, embed with CLIP ViT-B/32 (768 values, random weights), score aesthetic and NSFW and write all images. Sluice also
hashes, measures, searches for duplicates and writes a report. The time is from the command to its end, including the start
of Python and Ray. NeMo Curator runs with its executors, and with its stages called one after the other in one process
(`local`), which is its minimum. nemo.py lists the changes that it needs.

Goals: half of local's CPU per image with float32 weights, a fifth with int8; a quarter of the executors' memory; of 100
images a tenth of the executors' CPU.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import paired
from paired import BENCH, PROGRAMS, Side

MODELS = BENCH / "models"


def main():
    parser = paired.arguments(__doc__, rounds=3)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of WebDataset shards of 100 photographs")
    parser.add_argument("--images", default="600,100", help="how many images to curate, one table each")
    parser.add_argument("--sides", default="sluice,local,xenna,ray_data", help="of these four")
    args = parser.parse_args()
    python = paired.environment("nemo")
    subprocess.run([python, Path(__file__).parent / "models.py"], check=True)

    with paired.workspace() as work:
        for images in map(int, args.images.split(",")):
            source = work / f"in-{images}"
            source.mkdir()
            for shard in sorted(args.photos.glob("*.tar"))[: -(-images // 100)]:
                (source / shard.name).symlink_to(shard.resolve())
            sides = sluice(source, work, images) if "sluice" in args.sides else []
            sides += [nemo(python, name, source, work, images) for name in args.sides.split(",") if name != "sluice"]
            runs = paired.measure(sides, args.rounds)
            paired.show(runs, against=sides[-1].name, title=f"{images} images")
            cpu_and_start(runs)
            paired.keep(runs, args.json and args.json.with_stem(f"{args.json.stem}-{images}"))


def sluice(source, work, images):
    out, run = work / "out", work / "run"

    def fresh():
        for folder in (out, run):
            shutil.rmtree(folder, ignore_errors=True)

    command = [PROGRAMS / "sluice", "run", "--input", source, "--output", out, "--run", run, "--models", MODELS]
    command += ["--pipeline", Path(__file__).with_suffix(".toml")]
    precisions = ["float32", "int8"]
    return [Side(f"sluice run {precision}", [*command, "--precision", precision], images, before=fresh) for precision in precisions]


def nemo(python, executor, source, work, images):
    out = work / "nemo"

    def fresh():
        shutil.rmtree(out, ignore_errors=True)
        Path(f"{out}.events").unlink(missing_ok=True)

    script = Path(__file__).parent / "nemo.py"
    command = [python, script, source, out, MODELS / "nemo/b32", "--executor", executor]
    return Side(f"NeMo Curator {executor}", command, images, before=fresh)


def cpu_and_start(runs):
    """Prints the total CPU seconds, and when the first images had passed NeMo Curator's reader and embedder."""
    for name, own in runs.items():
        line = f"{name}: {paired.median(own, lambda r: r.cpu):.1f} CPU s, {paired.median(own, lambda r: r.seconds):.1f} s"
        first = own[-1].printed.get("first", {})
        for stage in ("ImageReaderStage", "ImageEmbeddingStage"):
            if stage in first:
                line += f", {stage} first done at {first[stage]:.1f} s"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
