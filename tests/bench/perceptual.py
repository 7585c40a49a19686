#!/usr/bin/env python3
"""Perceptual duplicates among millions of synthetic 64-bit hashes: in one process, in parts, and with faiss's binary indexes.

    cargo build --release -p sluice-dedup --example pairs && python3 tests/bench/perceptual.py [--hashes 10000000] [--parts 1,4,16]

The hashes: nine tenths random, a tenth near-copies of others (0 to 6 bits flipped), a twentieth of all with half of the bits constant.
Two are duplicates within 4 bits. In parts every task is a process that reads the file and finds its share of the pairs; `decide` then
decides from all pairs. All sides of Sluice must decide the same, which their digests show.

faiss finds the pairs alone: `IndexBinaryMultiHash` with 3 tables of 21 bits and one flip, which is exact for 4 bits, and
`IndexBinaryFlat`. Of the queries a part is measured and scaled, 100,000 and 1000; filling the index is measured whole.
"""

import sys

import paired

BITS = 4
QUERIES = {"multi-hash": 100_000, "flat": 1000}
PAIRS = paired.PROGRAMS / "examples/pairs"


def main():
    if sys.argv[1:2] == ["peer"]:
        return PEERS[sys.argv[2]](*sys.argv[3:])
    parser = paired.arguments(__doc__)
    parser.add_argument("--hashes", type=int, default=10_000_000)
    parser.add_argument("--parts", default="1,4,16")
    parser.add_argument("--peers", default="multi-hash,flat")
    parser.add_argument("--no-alone", action="store_true", help="without `perceptual` by one process, which takes long for many hashes")
    args = parser.parse_args()
    python = paired.environment("perceptual")
    with paired.workspace() as folder:
        hashes = folder / "hashes"
        paired.once(paired.Side("made", [python, __file__, "peer", "make", hashes, args.hashes]))
        print("| | tasks | CPU s | longest task, s | peak MB of a task | removed |\n|---|---|---|---|---|---|")
        digests = []
        if not args.no_alone:
            alone = paired.once(paired.Side("alone", [PAIRS, "alone", hashes, BITS]))
            row("`perceptual` alone", 1, [alone], alone.printed["removed"])
            digests.append(alone.printed["digest"])
        for parts in map(int, args.parts.split(",")):
            digests.append(in_parts(hashes, folder / f"pairs-{parts}", parts))
        assert len(set(digests)) == 1, digests
        print(f"\ndecided by all: {digests[0]}\n", flush=True)
        for name in filter(None, args.peers.split(",")):
            run = paired.once(paired.Side(name, [python, __file__, "peer", name, hashes]))
            row(f"faiss, {name}", 1, [run], "")


def in_parts(hashes, output, parts):
    """Prints the rows of so many tasks, and returns the digest of what they decide."""
    tasks = [paired.once(paired.Side("part", [PAIRS, "part", hashes, BITS, parts, output, part])) for part in range(parts)]
    decided = paired.once(paired.Side("decide", [PAIRS, "decide", hashes, BITS, output]))
    row("`pairs`", parts, tasks, f"{output.stat().st_size // 16} pairs")
    row("then `perceptual`", 1, [decided], decided.printed["removed"])
    return decided.printed["digest"]


def row(name, count, runs, removed):
    cpu, longest, peak = sum(run.cpu for run in runs), max(run.seconds for run in runs), max(run.peak_mb for run in runs)
    print(f"| {name} | {count} | {cpu:.1f} | {longest:.1f} | {peak:.0f} | {removed} |", flush=True)


def make(path, count):
    import numpy as np

    random, count = np.random.default_rng(0), int(count)
    hashes = random.integers(0, 2**64, count, np.uint64)
    constant = random.random(count) < 0.05
    hashes[constant] |= np.uint64(0xFFFFFFFF)
    copies = np.flatnonzero(random.random(count) < 0.1)
    hashes[copies] = hashes[random.integers(0, count, len(copies))]
    for flip in range(6):
        flipped = copies[random.random(len(copies)) < 0.5]
        hashes[flipped] ^= np.uint64(1) << random.integers(0, 64, len(flipped), np.uint64)
    hashes.tofile(path)


def read(path):
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(1)
    return np.fromfile(path, np.uint8).reshape(-1, 8)


def multi_hash(path):
    import faiss

    index = faiss.IndexBinaryMultiHash(64, 3, 21)
    index.nflip = 1
    searched("multi-hash", index, read(path))


def flat(path):
    import faiss

    searched("flat", faiss.IndexBinaryFlat(64), read(path))


def searched(name, index, codes):
    """Fills the index, searches with a part of the codes, and prints the CPU seconds of filling and of all searches."""
    import json
    import time

    import numpy as np

    began = time.process_time()
    index.add(codes)
    added, began = time.process_time() - began, time.process_time()
    queries = np.random.default_rng(1).permutation(len(codes))[: QUERIES[name]]
    index.range_search(np.ascontiguousarray(codes[queries]), BITS + 1)
    cpu = added + (time.process_time() - began) * len(codes) / len(queries)
    print(json.dumps({"cpu": cpu, "seconds": cpu}))


PEERS = {"make": make, "multi-hash": multi_hash, "flat": flat}

if __name__ == "__main__":
    main()
