#!/usr/bin/env python3
"""`sluice try` compared with real runs, for random settings: both keep the same images.

    make build demo-data models
    .cache/venv/bin/python tests/bench/tries.py --input demo/input --settings 20 --seed 1 -- --preset small

Arguments after `--` are flags of `sluice run` for the default pipeline. The input is curated once. For each setting,
`sluice try` predicts the kept images, and `sluice run` keeps them. Fails at the first difference.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import paired

KEEP = ["best", "hard", "easy", "random"]


def call(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr[-2000:]}")
    return done.stdout


def draw(chance, scores, flags):
    """Returns random settings as flags of `sluice run` and of `sluice try`."""
    some = lambda name: chance.choice(scores[name]) + chance.choice([0, 0, 1e-4, -1e-4])
    drawn = {
        "min-aesthetic": (lambda: some("aesthetic"), lambda value: f"--min=aesthetic={value}"),
        "max-nsfw": (lambda: some("nsfw"), lambda value: f"--max=nsfw={value}"),
        "eps": (lambda: round(chance.uniform(0, 0.4), 3), lambda value: f"--eps={value}"),
        "keep": (lambda: chance.choice(KEEP), lambda value: f"--keep={value}"),
        "max-distance": (lambda: chance.randint(0, 12), lambda value: f"--max-distance={value}"),
    }
    names = chance.sample(sorted(drawn), chance.randint(1, len(drawn)))
    tried = []
    for name in names:
        value, flag = drawn[name]
        flags[name] = value()
        tried.append(flag(flags[name]))
    return tried


def kept(sluice, run):
    lines = call(sluice, "inspect", run / "export/decisions", "--json", "--head=1000000000", "--where=keep")
    return {json.loads(line)["image_id"] for line in lines.splitlines()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", required=True)
    parser.add_argument("--settings", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--programs", type=Path, default=paired.PROGRAMS)
    parser.add_argument("flags", nargs="*", help="flags of sluice run, after --")
    args = parser.parse_args()
    sluice, chance, flags = args.programs.absolute() / "sluice", random.Random(args.seed), {}
    os.environ.setdefault("SLUICE_MODELS", str(paired.CACHE / "models"))
    with tempfile.TemporaryDirectory() as folder:
        run, lists = Path(folder, "run"), Path(folder, "lists")
        curate = [sluice, "run", "--input", args.input, "--run", run, "--output", Path(folder, "out"), *args.flags]
        call(*curate)
        rows = lambda step: call(sluice, "inspect", run / step / "scores", "--json", "--head=100000").splitlines()
        scores = {step: [json.loads(row)["score"] for row in rows(step)] for step in ("aesthetic", "nsfw")}
        for number in range(args.settings):
            tried = draw(chance, scores, flags)
            call(sluice, "try", "--run", run, "--ids", lists, *tried)
            expected = set((lists / "kept.txt").read_text().splitlines())
            call(*curate, *(f"--{name}={value}" for name, value in flags.items()))
            found = kept(sluice, run)
            print(f"{number + 1}: {' '.join(tried)}: {len(found)} kept", flush=True)
            if found != expected:
                sys.exit(f"differ: {sorted(found ^ expected)[:10]}")


if __name__ == "__main__":
    main()
