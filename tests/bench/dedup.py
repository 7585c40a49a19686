#!/usr/bin/env python3
"""k-means and matching in clusters, compared with faiss, scikit-learn, NumPy and torch, on synthetic unit vectors.

    cargo build --release -p sluice-knn --examples && python3 tests/bench/dedup.py [--rounds 5] [--threads 1] [--what kmeans-1000]

The vectors: 768 values, 2000 topics, a tenth near-copies (cosine about 0.997). They are generated once, 3.4 GB in
.cache/bench/data. k-means: 100k vectors, 20 iterations from rows of the data on every side; `sluice, k-means++` includes
its seeding. Matching: 1M vectors in 1000 clusters of uneven size, the same on all sides; eps 0.01. The peers implement
NeMo Curator's rule, by which an earlier row counts even if it is removed; `sluice, kept only` is Sluice's default rule.
torch takes many times as long as NumPy, so it is a separate row.

`recall` and `skew` have no peer and need no Python packages. They compare the duplicates found by clusters and probes with
brute force in the same process, and near-copies in one cluster with the same number in even clusters.

Reading the file is excluded from k-means on both sides, and included in matching on both sides. `peak MB` is resident
memory, including the mapped file of NumPy and torch; `anonymous MB` below excludes the file.
"""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import paired

DATA = paired.BENCH / "data"
ITERATIONS = 20
EPS = 0.01
MATCHING_CLUSTERS = 1000
ROWS = ["kmeans-316", "kmeans-1000", "matching", "matching-torch"]
# The arguments of `examples/clusters.rs`: rows, values, clusters, eps.
OWN = {
    "recall": ["recall", 100_000, 256, 100, EPS, "1,2,4,8"],
    "skew": ["skew", 500_000, 256, 500, EPS],
}


def main():
    if sys.argv[1:2] == ["peer"]:
        return peer(*sys.argv[2:])
    parser = paired.arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1, choices=[1, 2])
    parser.add_argument("--what", default=",".join(ROWS[:3]), help=f"rows, of {','.join([*ROWS, *OWN])} (default: the first three)")
    args = parser.parse_args()
    for what in args.what.split(","):
        if what in OWN:
            own(what, args.threads)
    args.what = ",".join(what for what in args.what.split(",") if what not in OWN)
    if not args.what:
        return
    python = paired.environment("dedup")
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"]
    env = {name: str(args.threads) for name in names}
    small, large = made(python, "100k", 100_000), None
    everything = {}
    for what in args.what.split(","):
        name, _, variant = what.partition("-")
        if name == "kmeans":
            sides = kmeans_sides(python, small, variant, env)
        else:
            large = large or made(python, "1m", 1_000_000)
            sides = matching_sides(python, large, variant, env)
        runs = paired.measure(sides, args.rounds)
        paired.show(runs, against=sides[-1].name, title=f"{what}, {args.threads} threads")
        told(runs)
        everything |= {f"{what}: {side}": own for side, own in runs.items()}
    paired.keep(everything, args.json)


def own(what, threads):
    """Runs a measurement without a peer and prints its rows as a table."""
    command = [paired.PROGRAMS / "examples/clusters", *map(str, OWN[what])]
    env = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    heads = list(rows[-1])
    print(f"\n{' '.join(map(str, OWN[what]))}, {threads} threads\n")
    for cells in [heads, ["---"] * len(heads), *[[row.get(head, "") for head in heads] for row in rows]]:
        print("|", " | ".join(map(str, cells)), "|")


def kmeans_sides(python, vectors, clusters, env):
    ours = paired.PROGRAMS / "examples/kmeans"
    words = [vectors, clusters, ITERATIONS]
    return [
        paired.Side("sluice", [ours, *words, "random"], 100_000, env),
        paired.Side("sluice, k-means++", [ours, *words, "plus-plus"], 100_000, env),
        paired.Side("scikit-learn", [python, __file__, "peer", "sklearn", *words], 100_000, env),
        paired.Side("faiss", [python, __file__, "peer", "faiss", *words], 100_000, env),
    ]


def matching_sides(python, vectors, variant, env):
    labels = vectors.with_suffix(".labels.npy")
    if not labels.exists():
        paired.once(paired.Side("clusters", [python, __file__, "peer", "labels", vectors, labels]))
    ours, words = paired.PROGRAMS / "examples/matching", [vectors, labels, EPS]
    peers = [variant or "numpy"]
    return [
        paired.Side("sluice", [ours, *words, "any-earlier"], 1_000_000, env),
        paired.Side("sluice, kept only", [ours, *words, "kept-only"], 1_000_000, env),
        *[paired.Side(name, [python, __file__, "peer", name, *words], 1_000_000, env) for name in peers],
    ]


def made(python, name, rows):
    """Returns the synthetic vectors, and generates them if they are missing."""
    path = DATA / f"dedup-{name}.npy"
    if not path.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        paired.once(paired.Side("vectors", [python, __file__, "peer", "make", path, rows]))
    return path


def told(runs):
    """Prints the results of the sides, which should be similar."""
    found = ["inertia", "removed", "seeding_cpu", "anonymous_mb"]
    print()
    for name, own in runs.items():
        last = own[-1].printed
        print(f"- {name}: {paired.median(own, lambda run: run.cpu):.2f} CPU s;", {key: last[key] for key in found if key in last})


def peer(name, *words):
    PEERS[name](*words)


class Measured:
    """Measures wall and CPU seconds, and the process's peak memory."""

    def __init__(self):
        self.anonymous, self.ended = 0, threading.Event()
        threading.Thread(target=self.watch, daemon=True).start()
        self.cpu, self.began = cpu(), time.perf_counter()

    def watch(self):
        while not self.ended.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            self.anonymous = max(self.anonymous, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

    def end(self):
        self.used = {"seconds": time.perf_counter() - self.began, "cpu": cpu() - self.cpu}
        self.used["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.ended.set()

    def tell(self, **found):
        print(json.dumps({**self.used, "anonymous_mb": self.anonymous // 1024, **found}))


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def threads():
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def faiss_kmeans(path, clusters, iterations):
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(threads())
    vectors = np.load(path)
    means = faiss.Kmeans(vectors.shape[1], int(clusters), niter=int(iterations), seed=42, max_points_per_centroid=10**9)
    measured = Measured()
    means.train(vectors)
    measured.end()
    measured.tell(inertia=inertia(vectors, means.centroids, means.index.search(vectors, 1)[1][:, 0]))


def sklearn_kmeans(path, clusters, iterations):
    import numpy as np
    from sklearn.cluster import KMeans

    vectors = np.load(path)
    measured = Measured()
    means = KMeans(int(clusters), init="random", n_init=1, max_iter=int(iterations), tol=0, random_state=42).fit(vectors)
    measured.end()
    measured.tell(inertia=inertia(vectors, means.cluster_centers_, means.labels_))


def inertia(vectors, centroids, labels):
    parts = (slice(i, i + 10_000) for i in range(0, len(vectors), 10_000))
    return round(float(sum(((vectors[part] - centroids[labels[part]]) ** 2).sum() for part in parts)), 1)


def numpy_nearest_earlier(vectors, batch=1024):
    """Returns for each row its highest similarity with an earlier row, block by block."""
    import numpy as np

    best = np.zeros(len(vectors), np.float32)
    for start in range(0, len(vectors), batch):
        end = min(start + batch, len(vectors))
        products = vectors[:end] @ vectors[start:end].T  # earlier rows x rows
        products[start:end][np.tril_indices(end - start)] = -np.inf
        best[start:end] = products.max(0)
    best[:1] = 0
    return best


def torch_nearest_earlier(vectors, batch=1024):
    import torch

    tensor = torch.from_numpy(vectors)
    best = torch.zeros(len(tensor))
    for start in range(0, len(tensor), batch):
        end = min(start + batch, len(tensor))
        products = tensor[:end] @ tensor[start:end].T
        products[start:end].masked_fill_(torch.ones(end - start, end - start, dtype=torch.bool).tril_(), -torch.inf)
        best[start:end] = products.amax(0)
    best[:1] = 0
    return best.numpy()


def matching(nearest_earlier, path, labels, eps):
    import numpy as np

    vectors, labels = np.load(path, mmap_mode="r"), np.load(labels)
    if nearest_earlier is torch_nearest_earlier:
        import torch

        torch.set_num_threads(threads())
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(labels.max() + 2))
    measured = Measured()
    removed = 0
    for first, last in zip(bounds, bounds[1:]):
        if first < last:
            removed += int((nearest_earlier(np.ascontiguousarray(vectors[order[first:last]])) >= 1 - float(eps)).sum())
    measured.end()
    measured.tell(removed=removed)


def make_vectors(path, rows, dim=768, topics=2000):
    import numpy as np

    random = np.random.default_rng(0)
    centres = random.standard_normal((topics, dim), dtype=np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (int(rows), dim))
    for start in range(0, int(rows), 50_000):
        count = min(50_000, int(rows) - start)
        part = centres[random.integers(0, topics, count)] * 0.8 + random.standard_normal((count, dim), dtype=np.float32)
        copies = np.flatnonzero(random.random(count) < 0.1)
        part[copies] = part[random.integers(0, count, len(copies))]
        part[copies] += 0.1 * random.standard_normal((len(copies), dim), dtype=np.float32)
        out[start : start + count] = part / np.linalg.norm(part, axis=1, keepdims=True)
    out.flush()


def make_labels(path, labels):
    """Assigns clusters after a few iterations on a sample, so that their sizes are uneven."""
    import faiss
    import numpy as np

    vectors = np.load(path, mmap_mode="r")
    sample = np.sort(np.random.default_rng(1).permutation(len(vectors))[: 64 * MATCHING_CLUSTERS])
    means = faiss.Kmeans(vectors.shape[1], MATCHING_CLUSTERS, niter=5, seed=42)
    means.train(np.ascontiguousarray(vectors[sample]))
    parts = (np.ascontiguousarray(vectors[i : i + 50_000]) for i in range(0, len(vectors), 50_000))
    np.save(labels, np.concatenate([means.index.search(part, 1)[1][:, 0] for part in parts]).astype(np.int32))


PEERS = {
    "faiss": faiss_kmeans,
    "sklearn": sklearn_kmeans,
    "numpy": lambda *words: matching(numpy_nearest_earlier, *words),
    "torch": lambda *words: matching(torch_nearest_earlier, *words),
    "make": make_vectors,
    "labels": make_labels,
}

if __name__ == "__main__":
    main()
