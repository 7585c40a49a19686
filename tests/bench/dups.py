#!/usr/bin/env python3
"""What each method of `dedup` finds of changed copies, by the change and by the threshold.

    make build && python3 tests/bench/dups.py --dups FOLDER --models FOLDER [--embedder efficientnet-lite0]

FOLDER has shards and `truth.csv` with the columns shard, key, group and transformation, one image of each group an `original`. For each
change the share of copies that the method links with their original, and the precision of all links: the share of linked pairs of one group.
"""

import argparse
import csv
import json
import subprocess
import tempfile
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import paired

DISTANCES = [0, 2, 4, 6, 8, 10, 12]
PDQ_DISTANCES = [15, 31, 47]
FORMS = "hflip,vflip,rot90,rot180,transpose"
EPS = [0.02, 0.05, 0.1, 0.15, 0.2, 0.25]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dups", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--embedder", default="efficientnet-lite0")
    args = parser.parse_args()
    pictures = truth(args.dups)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        sluice("partition", run, "--input", args.dups)
        sluice("read", run, "--hashes", "pdq,transformed")
        sluice("embed", run, "--model", args.embedder, "--models", args.models)
        columns = {"exact": links(run, "exact", "exact")}
        for bits in DISTANCES:
            columns[f"{bits} bits"] = links(run, "perceptual", f"bits-{bits}", "--max-distance", bits)
        columns["4 bits, forms"] = links(run, "perceptual", "forms", "--transformations", FORMS)
        for bits in PDQ_DISTANCES:
            columns[f"PDQ, {bits} bits"] = links(run, "perceptual", f"pdq-{bits}", "--hash", "pdq", "--max-distance", bits)
        for eps in EPS:
            step = f"eps-{str(eps).replace('.', '-')}"
            columns[f"eps {eps}"] = links(run, "semantic", step, "--eps", eps)
    table(pictures, columns)


def sluice(program, run, *words):
    command = [paired.PROGRAMS / f"sluice-{program}", *words, "--run", run]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def links(run, method, step, *words):
    """The pairs of names that a method links, as a step of its own."""
    common = ["--step", step, "--methods", method]
    if method == "semantic":
        sluice("dedup", run, "fit", *common, "--clusters", 1)
        sluice("dedup", run, "assign", *common)
        sluice("dedup", run, "match", *common, *words)
    else:
        sluice("dedup", run, method, *common, *words)
    command = [paired.PROGRAMS / "sluice", "inspect", "--json", "--rows", "1000000", run / step / "duplicates"]
    lines = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [(row["image_id"], row["duplicate_of"]) for row in map(json.loads, lines)]


def truth(folder):
    rows = csv.DictReader((folder / "truth.csv").open())
    return {f"{row['shard'].removesuffix('.tar')}/{row['key']}": (row["group"], row["transformation"]) for row in rows}


def table(pictures, columns):
    linked = {name: components(pictures, pairs) for name, pairs in columns.items()}
    originals = {group: name for name, (group, change) in pictures.items() if change == "original"}
    changes = defaultdict(list)
    for name, (group, change) in pictures.items():
        if change != "original" and group in originals:
            changes[change].append((name, originals[group]))
    print("| |", " | ".join(columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for change, pairs in sorted(changes.items()):
        shares = [sum(root[a] == root[b] for a, b in pairs) / len(pairs) for root in linked.values()]
        print(f"| {change} ({len(pairs)}) |", " | ".join(f"{share:.2f}" for share in shares), "|")
    print("| precision |", " | ".join(f"{precision(pictures, root):.3f}" for root in linked.values()), "|")


def components(pictures, pairs):
    parent = {name: name for name in pictures}

    def root(name):
        while parent[name] != name:
            name = parent[name]
        return name

    for a, b in pairs:
        parent[root(a)] = root(b)
    return {name: root(name) for name in pictures}


def precision(pictures, root):
    members = defaultdict(list)
    for name in pictures:
        members[root[name]].append(pictures[name][0])
    found = [a == b for groups in members.values() for a, b in combinations(groups, 2)]
    return sum(found) / len(found) if found else 1.0


if __name__ == "__main__":
    main()
